"""Collects the seeds of a run from the starter set and the user's files, and cleans them against the suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import PurePath
from typing import Final

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
from sparring.store.base import Store
from sparring.store.datasets import load_table

_SALT: Final = "sparring held out"

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
    """The seeds that may train, their vectors, what was dropped (`Dropped.row` counts the collected seeds), and the
    seeds of the behaviours that never train."""

    seeds: tuple[Seed, ...]
    vectors: Vectors
    duplicates: tuple[Dropped, ...]
    contaminated: tuple[Dropped, ...]
    held_out: tuple[Seed, ...] = ()


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

    Held-out rows go before the others there: a seed that repeats one of them does not train.

    `vectors` and `suite_vectors` are the unit vectors of the seeds' and of the suites' texts. Raises DataError when
    no seed of a label is left.
    """
    texts = [seed.text for seed in collected.seeds]
    ngram, cosine = config.decontaminate_ngram, config.decontaminate_cosine
    contaminated = decontaminate(texts, vectors, suite, suite_vectors, ngram=ngram, cosine=cosine)
    gone = {drop.row for drop in contaminated}
    aside = held_out_rows(collected.seeds, config.heldout_share)
    rows = sorted((row for row in range(len(texts)) if row not in gone), key=lambda row: row not in aside)
    labels = [collected.seeds[row].label for row in rows]
    repeated = duplicates([texts[row] for row in rows], labels, vectors[rows], config.near_duplicate)
    repeated = [Dropped(rows[d.row], rows[d.other], d.reason, d.similarity) for d in repeated]
    gone |= {drop.row for drop in repeated}
    repeated.sort(key=lambda drop: drop.row)
    left = sorted(set(rows) - gone)
    kept = [row for row in left if row not in aside]
    seeds = tuple(collected.seeds[row] for row in kept)
    held_out = tuple(collected.seeds[row] for row in left if row in aside)
    _require_both(seeds, collected, Counter(contaminated=len(contaminated), repeated=len(repeated)), held_out)
    return Clean(seeds, vectors[kept], tuple(repeated), tuple(contaminated), held_out)


def held_out_rows(seeds: Sequence[Seed], share: float) -> set[int]:
    """Rows whose behaviour never trains: about `share` of the behaviours, drawn by the hash of their names.

    Seeds of one text, whatever their label and file, and seeds of one behaviour stand on one side; the order of the
    seeds changes nothing. What the starter set trains on is not drawn: it has a held-out split of its own.
    """
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(_joined(seeds)):
        groups.setdefault(name, []).append(row)
    found: set[int] = set()
    for rows in groups.values():
        name = min(seeds[row].behavior for row in rows)
        if _draw(name) < share and all(seeds[row].source != STARTER for row in rows):
            found |= set(rows)
    return found


def heldout_behaviors(store: Store, digest: str, label: Label = "harmful") -> tuple[Seed, ...]:
    """The seeds of one label that never train, from `PrepareResult.held_out`; none for an empty digest.

    For evaluation only, adaptive attacks above all. Raises NotFoundError and CorruptError.
    """
    if not digest:
        return ()
    return tuple(seed for seed in read_seeds(load_table(store, digest)) if seed.label == label)


def _joined(seeds: Sequence[Seed]) -> list[str]:
    """A name for each seed, the same for all that share a text or a behaviour, over any number of steps."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = parent[above]  # halves the way for the next one
            key = parent[key]
        return key

    keys = [(f"text {normalise(seed.text)}", f"behavior {seed.behavior}") for seed in seeds]
    for text, behavior in keys:
        parent[root(text)] = root(behavior)
    return [root(text) for text, _ in keys]


def _draw(behavior: str) -> float:
    """A number in [0, 1) that depends on the behaviour's name alone."""
    return int.from_bytes(sha256(f"{_SALT} {behavior}".encode()).digest()[:8], "big") / 2**64


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


def _require_both(
    seeds: Sequence[Seed], collected: Collected, dropped: Mapping[str, int], held_out: Sequence[Seed]
) -> None:
    for label in ("harmful", "benign"):
        if not any(seed.label == label for seed in seeds):
            read, aside = (sum(seed.label == label for seed in part) for part in (collected.seeds, held_out))
            raise DataError(
                f"no {label} seed is left of {read} ({dropped['contaminated']} seeds stand in a suite,"
                f" {dropped['repeated']} are duplicates, {aside} {label} ones are held out)",
                hint=f"give data.{label} prompts that no suite holds"
                + (", or lower data.heldout_share" if aside else ""),
            )
