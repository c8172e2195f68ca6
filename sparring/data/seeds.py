"""Collects the seeds of a run from the starter set and the user's files, and cleans them against the suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath

import pyarrow as pa

from sparring.config.paths import STARTER
from sparring.config.run import DataConfig
from sparring.data import starter
from sparring.data.hygiene import Dropped, decontaminate, duplicates
from sparring.data.load import PromptRow, load_prompts
from sparring.data.text import content_id, normalise
from sparring.embedding import Vectors
from sparring.errors import DataError
from sparring.game.records import Label, Seed

SEEDS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("id", "text", "label", "behavior", "category", "source")],
    metadata={"sparring.schema": "1"},
)
"""One row a seed: the fields of `sparring.game.records.Seed`."""


@dataclass(frozen=True)
class Collected:
    """Seeds as read, where each stands (`file: row n`), and {file: rows left out for being of the other label}."""

    seeds: tuple[Seed, ...]
    places: tuple[str, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Clean:
    """The seeds that may train, their vectors, and what was dropped (`Dropped.row` counts the collected seeds)."""

    seeds: tuple[Seed, ...]
    vectors: Vectors
    duplicates: tuple[Dropped, ...]
    contaminated: tuple[Dropped, ...]


def collect_seeds(config: DataConfig) -> Collected:
    """Harmful seeds, then benign ones, in the order of the configuration. Raises DataError (file, row)."""
    found: list[tuple[Seed, str]] = []
    left_out: Counter[str] = Counter()
    labels: tuple[tuple[Label, list[str]], ...] = (("harmful", config.harmful), ("benign", config.benign))
    for label, sources in labels:
        for source in sources:
            rows, other = _seeds_of(source, label, config.max_prompt_chars)
            found += rows
            left_out[source] += other
    return Collected(tuple(seed for seed, _ in found), tuple(place for _, place in found), dict(+left_out))


def clean_seeds(
    collected: Collected, vectors: Vectors, suite: Sequence[str], suite_vectors: Vectors, config: DataConfig
) -> Clean:
    """Decontaminates first, then drops duplicates, so that a row standing for others is one that may train.

    `vectors` and `suite_vectors` are the unit vectors of the seeds' and of the suites' texts. Raises DataError when
    no seed of a label is left.
    """
    texts = [seed.text for seed in collected.seeds]
    ngram, cosine = config.decontaminate_ngram, config.decontaminate_cosine
    contaminated = decontaminate(texts, vectors, suite, suite_vectors, ngram=ngram, cosine=cosine)
    gone = {drop.row for drop in contaminated}
    rows = [row for row in range(len(texts)) if row not in gone]
    labels = [collected.seeds[row].label for row in rows]
    repeated = duplicates([texts[row] for row in rows], labels, vectors[rows], config.near_duplicate)
    repeated = [Dropped(rows[d.row], rows[d.other], d.reason, d.similarity) for d in repeated]
    gone |= {drop.row for drop in repeated}
    kept = [row for row in rows if row not in gone]
    seeds = tuple(collected.seeds[row] for row in kept)
    _require_both(seeds, collected, len(contaminated), len(repeated))
    return Clean(seeds, vectors[kept], tuple(repeated), tuple(contaminated))


def seeds_table(seeds: Sequence[Seed]) -> pa.Table:
    """The seeds under SEEDS_SCHEMA."""
    return pa.Table.from_pylist([asdict(seed) for seed in seeds], SEEDS_SCHEMA)


def read_seeds(table: pa.Table) -> tuple[Seed, ...]:
    """The seeds of a table that `seeds_table` made."""
    return tuple(Seed(**row) for row in table.to_pylist())


def _seeds_of(source: str, label: Label, max_chars: int) -> tuple[list[tuple[Seed, str]], int]:
    if source == STARTER:
        return [(seed, f"starter: {seed.id}") for seed in starter.seeds() if seed.label == label], 0
    loaded = load_prompts(source, max_chars=max_chars)
    rows = [row for row in loaded if row.label in (None, label)]
    if not rows:
        raise DataError(f"{source}: no row is labelled {label}", hint=f"take it out of data.{label}")
    name = PurePath(source).name
    return [(_seed(row, label, name), row.place) for row in rows], len(loaded) - len(rows)


def _seed(row: PromptRow, label: Label, source: str) -> Seed:
    """The id depends on label and text only, so that a seed keeps it over rounds and edits of its file."""
    behavior = f"{source}:{row.behavior}" if row.behavior else content_id(normalise(row.intent))
    return Seed(f"u-{content_id(f'{label} {row.prompt}')}", row.prompt, label, behavior, row.category, source)


def _require_both(seeds: Sequence[Seed], collected: Collected, contaminated: int, repeated: int) -> None:
    for label in ("harmful", "benign"):
        if not any(seed.label == label for seed in seeds):
            read = sum(seed.label == label for seed in collected.seeds)
            raise DataError(
                f"no {label} seed is left of {read} ({contaminated} seeds stand in a suite, {repeated} are duplicates)",
                hint=f"give data.{label} prompts that no suite holds",
            )
