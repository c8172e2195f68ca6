"""Puts attacks of other tools into the pool, by the same hygiene as a round's own: no step of a round, a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from sparring.config.run import ReplayConfig, RunConfig
from sparring.data.suites import build_suites
from sparring.data.text import content_id
from sparring.embedding import DIMENSION, Vectors, default_embedder
from sparring.errors import DataError, UsageError
from sparring.game.records import Label
from sparring.importers.attacks.base import FoundAttack
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.replay.eviction import keep_limit
from sparring.replay.games import pool_rows
from sparring.replay.hygiene import leaders, outside_suites
from sparring.replay.identity import attack_id
from sparring.replay.neighbours import Neighbours, open_neighbours
from sparring.replay.pool import Pool
from sparring.replay.schema import MAX_TEXT, OUTCOMES
from sparring.replay.tables import again
from sparring.replay.vectors import encode, novel
from sparring.steps.results import PrepareResult
from sparring.store.base import Store
from sparring.store.datasets import load_table


@dataclass(frozen=True)
class Origin:
    """Where attacks come from: the tool, the label of all of them, and the name under which they can be forgotten."""

    tool: str
    label: Label
    seed_source: str


@dataclass(frozen=True)
class Imported:
    """What became of a file's attacks; the five add up to `found`. `evicted` had to go for them: the pool is full."""

    found: int
    added: int
    repeated: int
    known: int
    near: int
    in_suites: int
    evicted: int


def import_attacks(
    config: RunConfig, store: Store, found: Sequence[FoundAttack], origin: Origin, work: Path
) -> Imported:
    """Adds what is new; the same file again adds nothing. Raises DataError for a text that is too long,
    UsageError for a source that was forgotten, StoreError."""
    named, pool, number = _named(found), Pool(store), rounds.last_round(store)
    if origin.seed_source in pool.gone().sources:
        raise UsageError(f"source {origin.seed_source!r} was forgotten", hint="name another with --source")
    there = again(lambda: open_neighbours(pool.contents, work / "pool"))
    names = [name for name, known in zip(named, there.known(list(named)), strict=True) if not known]
    fresh = [names[row] for row in _outside_suites(config, store, [named[name] for name in names])]
    new = _new_rows(config.replay, there, {name: named[name] for name in fresh}, origin, number)
    added = pool.append(new, OUTCOMES.empty_table())[0]
    _, evicted = keep_limit(config.replay, pool, read_log(store).accepted, number)
    return Imported(
        found=len(found),
        added=added,
        repeated=len(found) - len(named),
        known=len(named) - len(names),
        near=len(fresh) - added,
        in_suites=len(names) - len(fresh),
        evicted=evicted,
    )


def _named(found: Sequence[FoundAttack]) -> dict[str, FoundAttack]:
    """Attacks by id, each once. Raises DataError for a text that no pool takes."""
    named: dict[str, FoundAttack] = {}
    for attack in found:
        for what, text in (("attack", attack.text), ("seed", attack.seed)):
            if len(text) > MAX_TEXT:
                raise DataError(f"{attack.place}: the {what} has {len(text):,} characters, the most is {MAX_TEXT:,}")
        named.setdefault(attack_id(attack.text, content_id(attack.seed)), attack)
    return named


def _outside_suites(config: RunConfig, store: Store, attacks: Sequence[FoundAttack]) -> list[int]:
    """Rows of attacks that stand in no suite of the run file, nor in one of the last round; nor do their seeds."""
    if not attacks:
        return []
    suite = sorted({*build_suites(config.data).texts()[1], *_last_suites(store)})
    suite_vectors = _embed(suite)
    rows = set(range(len(attacks)))
    for texts in ([attack.text for attack in attacks], [attack.seed for attack in attacks]):
        ngram, cosine = config.data.decontaminate_ngram, config.data.decontaminate_cosine
        rows &= set(outside_suites(texts, _embed(texts), suite, suite_vectors, ngram=ngram, cosine=cosine))
    return sorted(rows)


def _last_suites(store: Store) -> list[str]:
    prepared = rounds.load_result(store, rounds.last_round(store), "prepare", PrepareResult)
    return [] if prepared is None else load_table(store, prepared.suites)["prompt"].to_pylist()


def _embed(texts: Sequence[str]) -> Vectors:
    return default_embedder().embed(texts) if texts else np.zeros((0, DIMENSION), dtype=np.float32)


def _new_rows(
    config: ReplayConfig, there: Neighbours, attacks: dict[str, FoundAttack], origin: Origin, number: int
) -> pa.Table:
    """Rows of the attacks that are near to no other, as of the round last begun."""
    names = list(attacks)
    codes = encode(_embed([attack.text for attack in attacks.values()]))
    near = there.near(codes)
    keep = np.flatnonzero(novel(codes, near.cosine, config.near_duplicate))
    kept = [names[row] for row in keep.tolist()]
    led = leaders(kept, codes[keep], near.take(keep), config.cluster_cosine)
    return pool_rows([_row(name, attacks[name], origin, number) for name in kept], codes[keep], led)


def _row(name: str, attack: FoundAttack, origin: Origin, number: int) -> dict[str, object]:
    return {
        "attack_id": name,
        "text": attack.text,
        "seed_id": content_id(attack.seed),
        "seed": attack.seed,
        "label": origin.label,
        "behavior": attack.behavior or content_id(attack.seed),
        "category": attack.category,
        "seed_source": origin.seed_source,
        "source": f"import:{origin.tool}",
        "attacker": "",
        "origin_round": number,
        "origin_step": 0,
    }
