"""Step `prepare`: the models a round starts from, its seeds and suites, and the attacks it replays.

data files ─► read, clean, decontaminate ─► seeds, suites       (first: a bad file must cost nothing)
champion log ─► start, reference ─► base model, put into the store by the first round
replay pool ─► attacks for the current defender, without those that stand in a suite
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from sparring.config.run import DataConfig, GateConfig, ModelConfig, ReplayConfig, RunConfig, SelfplayConfig
from sparring.data.build import Built, build_datasets, embed
from sparring.data.hygiene import decontaminate
from sparring.data.suites import Suites
from sparring.embedding import Vectors, default_embedder
from sparring.errors import CorruptError
from sparring.progress import Progress
from sparring.registry.champion import ChampionLog, read_log
from sparring.registry.checkpoints import has_checkpoint
from sparring.replay.draw import draw_for_round
from sparring.replay.pool import Pool
from sparring.steps.results import PrepareResult
from sparring.store.base import Store
from sparring.store.datasets import load_meta, load_table, save_table

BASE_KEY = "base.json"


@dataclass(frozen=True)
class PrepareConfig:
    """The sections that prepare reads."""

    model: ModelConfig
    data: DataConfig
    selfplay: SelfplayConfig
    replay: ReplayConfig
    gate: GateConfig

    @classmethod
    def of(cls, config: RunConfig) -> PrepareConfig:
        """The sections of a run file."""
        return cls(config.model, config.data, config.selfplay, config.replay, config.gate)


@dataclass(frozen=True)
class PrepareInputs:
    """The round's number and the run's seed."""

    round: int
    seed: int


class Base(BaseModel):
    """`base.json`: the line's base model, by the source it was read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1
    source: str
    digest: str


def run(config: PrepareConfig, store: Store, inputs: PrepareInputs, progress: Progress) -> PrepareResult:
    """Prepares a round. Run again with the same inputs it finds what it made and returns the same result.

    Raises DataError (file, row), ModelError, SetupError, CorruptError, StoreError. Writes nothing but content-addressed
    objects, the base record and the record of built data: the champion is only read.
    """
    built = build_datasets(
        config.data, store, default_embedder, progress, lambda suites: power_table(config.gate, suites)
    )
    log = read_log(store)
    base = _base(config.model, store, log, progress)
    replay = _replay(config, store, log, inputs, built, progress)
    return PrepareResult(
        round=inputs.round,
        start=log.champion or base,
        base=base,
        champion=log.champion,
        reference=log.reference,
        log_head=log.head,
        seeds=built.seeds,
        suites=built.suites,
        known_demonstrations=built.known_demonstrations,
        held_out=built.held_out,
        replay=save_table(store, replay, name="replay", meta={"kind": "replay", "round": inputs.round}),
        counts=_counts(store, built, replay),
    )


def replay_count(selfplay: SelfplayConfig, replay: ReplayConfig) -> int:
    """Attacks to draw for a round: one for each replay slot of each step."""
    return selfplay.steps * round(selfplay.games // selfplay.group * replay.share)


def _base(config: ModelConfig, store: Store, log: ChampionLog, progress: Progress) -> str:
    """Digest of the base model. Once a champion was promoted, a changed `model.source` changes nothing.

    Until then a folder is read anew, since somebody may have put another model there.
    """
    recorded = _recorded_base(store)
    if recorded and has_checkpoint(store, recorded.digest):
        same = recorded.source == config.source and not Path(config.source).is_dir()
        if same or log.champion:
            return recorded.digest
    from sparring.policy.packaged import base_checkpoint  # torch: only the first round pays for it

    progress.update("base model", 0, 1, config.source)
    digest = base_checkpoint(config.source, store)
    store.put(BASE_KEY, Base(source=config.source, digest=digest).model_dump_json().encode())
    progress.update("base model", 1, 1, config.source)
    return digest


def _recorded_base(store: Store) -> Base | None:
    if not store.exists(BASE_KEY):
        return None
    try:
        return Base.model_validate_json(store.get(BASE_KEY))
    except ValidationError as error:
        raise CorruptError(
            f"{BASE_KEY} in {store.url} is not what prepare writes", hint="delete it: it is made again"
        ) from error


def _replay(
    config: PrepareConfig, store: Store, log: ChampionLog, inputs: PrepareInputs, built: Built, progress: Progress
) -> pa.Table:
    """Draws until nothing drawn stands in a suite or is held out: both may have grown since an attack was pooled."""
    pool, k = Pool(store), replay_count(config.selfplay, config.replay)
    seed = int.from_bytes(sha256(f"replay {inputs.seed} {inputs.round}".encode()).digest()[:8], "big")
    drawn = draw_for_round(config.replay, pool, log.accepted, k, seed)
    if not drawn.num_rows:
        return drawn
    aside = load_table(store, built.held_out)["text"].to_pylist() if built.held_out else []
    suite = sorted({*load_table(store, built.suites)["prompt"].to_pylist(), *aside})
    vectors = embed(default_embedder(), suite, progress, "screen replay")
    excluded: set[str] = set()
    while standing := _in_suite(drawn, suite, vectors, config.data):
        excluded |= standing
        drawn = draw_for_round(config.replay, pool, log.accepted, k, seed, exclude=excluded)
    return drawn


def _in_suite(drawn: pa.Table, suite: list[str], suite_vectors: Vectors, config: DataConfig) -> set[str]:
    """Ids of drawn attacks that stand in a suite, they or the seeds they were written from."""
    ngram, cosine = config.decontaminate_ngram, config.decontaminate_cosine
    ids, found = drawn["attack_id"].to_pylist(), set[str]()
    for texts in (drawn["text"].to_pylist(), drawn["seed"].to_pylist()):
        vectors = default_embedder().embed(texts)
        drops = decontaminate(texts, vectors, suite, suite_vectors, ngram=ngram, cosine=cosine)
        found |= {ids[drop.row] for drop in drops}
    return found


def _counts(store: Store, built: Built, replay: pa.Table) -> dict[str, int]:
    """Counts by the datasets' cards, for the ledger and the report."""
    seeds, suites = load_meta(store, built.seeds), load_meta(store, built.suites)
    counts = {f"seeds_{name}": number for name, number in _numbers(seeds, "label")}
    counts |= {f"dropped_{name.replace(' ', '_')}": number for name, number in _numbers(seeds, "dropped")}
    counts |= {f"suite_{name}": number for name, number in _numbers(suites, "kinds")}
    if built.held_out:
        aside = load_meta(store, built.held_out)
        counts |= {f"held_out_{name}": number for name, number in _numbers(aside, "held out")}
    return counts | {"replay": replay.num_rows}


def _numbers(card: Mapping[str, object], key: str) -> list[tuple[str, int]]:
    found = card.get(key)
    return [(str(name), int(value)) for name, value in found.items()] if isinstance(found, Mapping) else []


def power_table(config: GateConfig, suites: Suites) -> dict[str, dict[str, object]]:
    """Whether a true improvement can be promoted with these suites: a plan for each policy that will decide.

    Raises ConfigError when a policy is no shipped name and no sound file.
    """
    from sparring.gate.plan import plan  # scipy: only a round with new data pays for it
    from sparring.gate.policy import load_policy

    counts = dict(Counter(f"{row.kind}/{row.slice}" for row in suites.rows))
    tables = {name: plan(load_policy(name), counts) for name in (config.first_run, config.policy)}
    return {name: {**table.model_dump(mode="json"), "lines": table.lines()} for name, table in tables.items()}
