"""Step `update-pool`: the round's attacks enter the replay pool, and what became of pooled attacks is recorded.

It runs whatever the gate will decide: outcomes bear the candidate's digest and count only once it is champion. Attacks
are worth keeping either way. A pool over its size limit gives up what `sparring.replay.eviction` says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparring.config.run import ReplayConfig
from sparring.embedding import Vectors, default_embedder
from sparring.errors import CorruptError
from sparring.game.records import Game
from sparring.progress import Progress
from sparring.registry.champion import read_log
from sparring.replay.eviction import keep_limit
from sparring.replay.games import SeedOrigin, attack_rows, defender_range, outcome_rows, poolable, read_games, replayed
from sparring.replay.hygiene import leaders, outside_suites
from sparring.replay.metrics import pool_metrics
from sparring.replay.neighbours import Neighbours, open_neighbours
from sparring.replay.pool import Pool
from sparring.replay.schema import ATTACKS
from sparring.replay.state import PoolState
from sparring.replay.tables import again
from sparring.replay.vectors import encode, novel
from sparring.steps.results import UpdatePoolResult
from sparring.store.base import Store
from sparring.store.datasets import load_table

_STAGES = 5


@dataclass(frozen=True)
class UpdatePoolInputs:
    """What the step reads: the round, its candidate's digest, the transcript's key and dataset digests.

    `suites` is the table of evaluation suites (column `prompt`), `seeds` that of the round's seeds (columns `id`,
    `category`, `source`; None: origins stay empty). `decontaminate_*` are those of the run's `data` section, `reward`
    and `cot` are those of its `game`. `work` is a folder for the cache of embeddings.
    """

    round: int
    candidate: str
    games_key: str
    suites: str
    decontaminate_cosine: float
    decontaminate_ngram: int
    reward: str
    work: Path
    seeds: str | None = None
    cot: bool = False


def run(config: ReplayConfig, store: Store, inputs: UpdatePoolInputs, progress: Progress) -> UpdatePoolResult:
    """Appends the round's attacks, then its outcomes, then evicts; run again, it adds nothing and returns the same.

    `attacks_added` counts pooled attacks that this round's candidate wrote, `attacks_known` those of its attacks that
    the pool had already, in the same words or near them; attacks that stand in a suite are in neither.
    """
    games = read_games(store.get(inputs.games_key), f"{store.url}/{inputs.games_key}", inputs.round)
    pool, written = Pool(store), poolable(games)
    progress.update("games", 1, _STAGES, f"{len(games)} games, {len(written)} attacks")
    there = again(lambda: open_neighbours(pool.contents, inputs.work / "pool"))
    clean, new = _enter(config, store, inputs, there, written)
    progress.update("screened", 2, _STAGES, f"{len(written) - clean} stand in a suite, {new.num_rows} new")
    names = sorted(written.keys() | replayed(games))
    pooled = {*np.array(names, dtype=object)[there.known(names)], *new["attack_id"].to_pylist()}
    outcomes = outcome_rows(games, pooled, inputs.candidate, defender_range(inputs.reward, inputs.cot))
    pool.append(new, outcomes)
    progress.update("appended", 3, _STAGES, f"{outcomes.num_rows} outcomes")
    state, evicted = keep_limit(config, pool, read_log(store).accepted, inputs.round)
    progress.update("within the limit", 4, _STAGES, f"{evicted} evicted")
    added = _added(pool, state, written, inputs)
    found = pool_metrics(state, outcomes, inputs.round, config.mastered_below)
    progress.update("counted", 5, _STAGES, f"{len(state)} attacks in the pool")
    return UpdatePoolResult(
        attacks_added=added,
        attacks_known=clean - added,
        outcomes_added=outcomes.num_rows,
        pool_attacks=len(state),
        pool_outcomes=pool.contents.sizes()["outcomes"].rows,
        metrics=found.values,
        ages=found.ages,
    )


def _enter(
    config: ReplayConfig, store: Store, inputs: UpdatePoolInputs, there: Neighbours, written: Mapping[str, Game]
) -> tuple[int, pa.Table]:
    """How many attacks stand in no suite, and the rows of those that are new to the pool.

    All are embedded, the known ones too: MiniLM int8 scales its activations by batch, and a rerun must see the same.
    """
    names, texts = list(written), [game.attack for game in written.values()]
    vectors = default_embedder().embed(texts) if texts else np.empty((0, 0), dtype=np.float32)
    clean = _clean(texts, vectors, _suite_texts(store, inputs.suites) if texts else [], inputs)
    known = there.known(names)
    rows = np.array([row for row in clean if not known[row]], dtype=np.intp)
    if not len(rows):
        return len(clean), ATTACKS.empty_table()
    codes = encode(vectors[rows])
    near = there.near(codes)
    keep = np.flatnonzero(novel(codes, near.cosine, config.near_duplicate))
    attacks = {names[row]: written[names[row]] for row in rows[keep].tolist()}
    led = leaders(list(attacks), codes[keep], near.take(keep), config.cluster_cosine)
    return len(clean), attack_rows(attacks, codes[keep], led, inputs.candidate, _origins(store, inputs.seeds))


def _clean(texts: list[str], vectors: Vectors, suite: list[str], inputs: UpdatePoolInputs) -> list[int]:
    suite_vectors = default_embedder().embed(suite) if suite else vectors[:0]
    ngram, cosine = inputs.decontaminate_ngram, inputs.decontaminate_cosine
    return outside_suites(texts, vectors, suite, suite_vectors, ngram=ngram, cosine=cosine)


def _suite_texts(store: Store, digest: str) -> list[str]:
    table = _columns(load_table(store, digest), digest, "prompt")
    return sorted(set(table["prompt"].to_pylist()))


def _origins(store: Store, digest: str | None) -> dict[str, SeedOrigin]:
    if digest is None:
        return {}
    table = _columns(load_table(store, digest), digest, "id", "category", "source")
    return {row["id"]: SeedOrigin(row["category"], row["source"]) for row in table.to_pylist()}


def _columns(table: pa.Table, digest: str, *names: str) -> pa.Table:
    for name in names:
        if name not in table.column_names:
            raise CorruptError(f"dataset {digest} has no column `{name}`, only {', '.join(table.column_names)}")
    return table.select(list(names))


def _added(pool: Pool, state: PoolState, names: Collection[str], inputs: UpdatePoolInputs) -> int:
    """How many of the attacks `names` are in the pool and were written by this round's candidate."""
    ours = sorted(set(names) & set(state.names(np.flatnonzero(np.isin(state.ids, np.array(sorted(names), "S32"))))))
    origins = pool.attacks(ours, ["origin_round", "attacker"])
    written = pc.and_(pc.equal(origins["origin_round"], inputs.round), pc.equal(origins["attacker"], inputs.candidate))
    return int(pc.sum(written).as_py() or 0)
