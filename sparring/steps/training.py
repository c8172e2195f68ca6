"""What the trainings of step `selfplay` share: sections, inputs, keys in the store, seeds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.config.budget import BudgetConfig
from sparring.config.run import (
    GameConfig,
    JudgeConfig,
    ModelConfig,
    RegistryConfig,
    ReplayConfig,
    RunConfig,
    SelfplayConfig,
    WarmStartConfig,
)
from sparring.game.records import Label, Seed
from sparring.game.schedule import Replayed
from sparring.steps.results import PrepareResult
from sparring.store.base import Store
from sparring.store.datasets import load_table
from sparring.train.transcripts import Transcripts

if TYPE_CHECKING:
    from sparring.train.states import States

_LABELS: tuple[Label, ...] = ("harmful", "benign")


@dataclass(frozen=True)
class SelfplayStepConfig:
    """The sections that self-play reads."""

    model: ModelConfig
    game: GameConfig
    warm_start: WarmStartConfig
    selfplay: SelfplayConfig
    replay: ReplayConfig
    judge: JudgeConfig
    registry: RegistryConfig
    budget: BudgetConfig
    candidate: str | None

    @classmethod
    def of(cls, config: RunConfig) -> SelfplayStepConfig:
        """The sections of a run file."""
        return cls(
            config.model,
            config.game,
            config.warm_start,
            config.selfplay,
            config.replay,
            config.judge,
            config.registry,
            config.budget,
            config.candidate,
        )


@dataclass(frozen=True)
class SelfplayInputs:
    """What the round prepared, the run's seed and a local folder for training states."""

    prepared: PrepareResult
    seed: int
    work: Path

    @property
    def transcripts(self) -> Transcripts:
        """The games of the round's steps, in the work folder."""
        return Transcripts(self.work / f"round-{self.prepared.round:06d}")

    def states(self, store: Store) -> States:
        """The round's training states in the store."""
        from sparring.train.states import States

        return States(store, f"{Keys(self.prepared.round).folder}/states")

    @property
    def round_seed(self) -> int:
        """Seed of this round: the run's seed and the round's number."""
        return self.seed * 10_007 + self.prepared.round


@dataclass(frozen=True)
class Keys:
    round: int

    @property
    def folder(self) -> str:
        return f"rounds/{self.round:06d}/selfplay"

    @property
    def games(self) -> str:
        return f"{self.folder}/games.parquet"

    @property
    def curves(self) -> str:
        return f"{self.folder}/curves.jsonl"

    @property
    def warm(self) -> str:
        return f"{self.folder}/warm.json"

    @property
    def spent(self) -> str:
        return f"{self.folder}/spent.json"


def needs_warm(config: SelfplayStepConfig, inputs: SelfplayInputs) -> bool:
    """The warm start belongs to a line's beginning: later rounds start from a champion that already refuses."""
    return inputs.prepared.champion is None and config.warm_start.steps > 0


def taught_seeds(seeds: Sequence[Seed], warm: WarmStartConfig, seed: int) -> tuple[list[Seed], list[Seed]]:
    """Harmful and benign seeds that the warm start's lessons are made for."""
    rng = random.Random(f"{seed}/lessons")
    harmful = sample([s for s in seeds if s.label == "harmful"], warm.examples, rng)
    return harmful, sample([s for s in seeds if s.label == "benign"], warm.helpful_examples, rng)


def untaught_seeds(seeds: Sequence[Seed], warm: WarmStartConfig, seed: int) -> list[Seed]:
    """Seeds that were in no lesson, for the games: what the warm start has learnt by heart says little about either
    role. All seeds when under a quarter of either label would be left.
    """
    taught = {s.id for part in taught_seeds(seeds, warm, seed) for s in part}
    rest = [s for s in seeds if s.id not in taught]
    counts = [(sum(s.label == label for s in rest), sum(s.label == label for s in seeds)) for label in _LABELS]
    return rest if all(4 * left >= whole for left, whole in counts) else list(seeds)


def sample(items: Sequence[Seed], k: int, rng: random.Random) -> list[Seed]:
    return rng.sample(items, min(k, len(items)))


def load_seeds(store: Store, prepared: PrepareResult) -> list[Seed]:
    names = [field.name for field in fields(Seed)]
    return [Seed(**{name: row[name] for name in names}) for row in load_table(store, prepared.seeds).to_pylist()]


def load_replays(store: Store, prepared: PrepareResult) -> list[Replayed]:
    rows = load_table(store, prepared.replay).to_pylist()
    return [
        Replayed(
            r["attack_id"],
            r["text"],
            Seed(r["seed_id"], r["seed"], r["label"], r["behavior"], r.get("category") or "", "pool"),
        )
        for r in rows
    ]


def put_table(store: Store, key: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.put(key, sink.getvalue().to_pybytes())
