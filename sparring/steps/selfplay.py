"""Step `selfplay`: warm start (first round only), then self-play with shared weights; leaves a candidate.

start checkpoint ─► [warm start] ─► games ─► REINFORCE++ ─► candidate
                                      └─► transcripts, learning curves

A killed run goes on: the warm-started checkpoint is recorded in the store, training states lie in the work folder.
A budget that is used up ends either training after a step, but self-play plays one at least: a candidate that is the
champion itself would spend α for nothing.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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
from sparring.data import starter
from sparring.errors import ConfigError
from sparring.game.records import Game, Label, Seed
from sparring.game.schedule import Composition, Replayed, Schedule, composition
from sparring.progress import Progress
from sparring.registry.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from sparring.registry.signing import key_from_env, password_from_env, sign_checkpoint
from sparring.steps.budget import Meter
from sparring.steps.results import PrepareResult, SelfplayResult
from sparring.store.base import Store
from sparring.store.datasets import load_table
from sparring.train.curves import CurveFile
from sparring.train.transcripts import Transcripts, games_table

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
    def round_seed(self) -> int:
        """Seed of this round: the run's seed and the round's number."""
        return self.seed * 10_007 + self.prepared.round


def run(config: SelfplayStepConfig, store: Store, inputs: SelfplayInputs, progress: Progress) -> SelfplayResult:
    """Makes the round's candidate. Raises TrainingError, ModelError, StoreError, SetupError for the key."""
    keys = _Keys(inputs.prepared.round)
    if config.candidate:
        return _given(config.candidate, store, keys)
    key = key_from_env(config.registry.sign_key_env) if config.registry.sign_key_env else None
    meter = Meter(config.budget, store, keys.spent, _gpus())
    curves, games = CurveFile(store, keys.curves), Transcripts(inputs.work / f"round-{inputs.prepared.round:06d}")
    warm = _warm(config, store, inputs, curves, meter, progress) if _needs_warm(config, inputs) else None
    start = load_checkpoint(store, warm or inputs.prepared.start, inputs.work / "checkpoints")
    candidate = warm or inputs.prepared.start
    if config.selfplay.steps:
        candidate = _play(config, store, inputs, start, curves, games, meter, progress)
    if key:
        sign_checkpoint(store, candidate, key, password_from_env())
    table = games.table()
    _put_table(store, keys.games, table)
    result = SelfplayResult(
        candidate=candidate,
        warm=warm,
        games_key=keys.games,
        curves_key=keys.curves,
        games=table.num_rows,
        trained_tokens=int(sum(line.get("tokens", 0) for line in curves.lines)),
        stopped=_stopped(config, meter, curves),
        spent=meter.spent.numbers() if meter.limited else {},
    )
    shutil.rmtree(games.folder, ignore_errors=True)  # training states can be gigabytes; the candidate is stored
    return result


@dataclass(frozen=True)
class _Keys:
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


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _stopped(config: SelfplayStepConfig, meter: Meter, curves: CurveFile) -> str:
    """Why self-play has fewer steps than asked for; "" when it has them all."""
    done = max((int(line["step"]) for line in curves.lines if line["phase"] == "selfplay"), default=0)
    return f"{meter.over()} after step {done} of {config.selfplay.steps}" if done < config.selfplay.steps else ""


def _given(folder: str, store: Store, keys: _Keys) -> SelfplayResult:
    """A candidate trained elsewhere: nothing is played, the tables stay empty."""
    from sparring.policy.packaged import import_folder

    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"candidate {folder} is not a folder", hint="name a folder with safetensors and tokenizer")
    digest = import_folder(path, store, meta={"source": folder})
    _put_table(store, keys.games, games_table([]))
    store.put(keys.curves, b"")
    return SelfplayResult(
        candidate=digest, warm=None, games_key=keys.games, curves_key=keys.curves, games=0, trained_tokens=0
    )


def _needs_warm(config: SelfplayStepConfig, inputs: SelfplayInputs) -> bool:
    """The warm start belongs to a line's beginning: later rounds start from a champion that already refuses."""
    return inputs.prepared.champion is None and config.warm_start.steps > 0


def _warm(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    curves: CurveFile,
    meter: Meter,
    progress: Progress,
) -> str:
    """Digest of the warm-started checkpoint; a run killed after it finds it recorded."""
    key = _Keys(inputs.prepared.round).warm
    if store.exists(key):
        digest = str(json.loads(store.get(key))["digest"])
        if has_checkpoint(store, digest):
            return digest
    from sparring.policy.load import load_policy, save_policy, set_threads, trains_in_bf16
    from sparring.train.supervised import warm_batches
    from sparring.train.warm import warm_start

    set_threads(config.model.threads)
    start = load_checkpoint(store, inputs.prepared.start, inputs.work / "checkpoints")
    policy = load_policy(start)
    seeds, rng = _seeds(store, inputs.prepared), random.Random(inputs.round_seed)
    progress.update("own answers", 0, 1)
    lessons = _lessons(config, store, inputs, policy, seeds, rng)
    progress.update("own answers", 1, 1, f"{len(lessons.helpful)} helpful")

    def on_step(step: int, logs: dict[str, float]) -> None:
        curves.add({"phase": "warm", "step": step, "loss": float(logs["loss"])})
        meter.step()
        progress.update("warm start", step, config.warm_start.steps, f"loss {logs['loss']:.2f}")

    scratch = inputs.work / f"round-{inputs.prepared.round:06d}" / "warm"
    batches = warm_batches(lessons, config.warm_start, rng)
    warm_start(
        policy.model,
        batches,
        config.warm_start,
        scratch,
        inputs.round_seed,
        on_step,
        bf16=trains_in_bf16(config.model.precision),
        stop=lambda: bool(meter.over()),
    )
    save_policy(policy.model, start, scratch / "model")
    digest = save_checkpoint(store, scratch / "model", meta={"parent": inputs.prepared.start, "phase": "warm"})
    store.put(key, json.dumps({"schema_version": 1, "digest": digest}).encode())
    curves.flush()
    shutil.rmtree(scratch, ignore_errors=True)
    return digest


def _lessons(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    policy: Any,
    seeds: Sequence[Seed],
    rng: random.Random,
) -> Any:
    from sparring.judge import load_reward_judge
    from sparring.train.supervised import Lessons, attack_examples, distil, refusal_examples

    harmful, benign = taught_seeds(seeds, config.warm_start, inputs.round_seed)
    judge = load_reward_judge(config.judge, store)
    known = inputs.prepared.known_demonstrations
    demonstrations = [d for d in starter.demonstrations() if d.id not in known]
    return Lessons(
        refusal_examples(policy.chat, harmful, starter.refusals(), starter.categories(), config.game, rng),
        distil(policy.model, policy.chat, judge, benign, config.game, inputs.round_seed),
        attack_examples(policy.chat, demonstrations, config.game),
    )


def taught_seeds(seeds: Sequence[Seed], warm: WarmStartConfig, seed: int) -> tuple[list[Seed], list[Seed]]:
    """Harmful and benign seeds that the warm start's lessons are made for."""
    rng = random.Random(f"{seed}/lessons")
    harmful = _sample([s for s in seeds if s.label == "harmful"], warm.examples, rng)
    return harmful, _sample([s for s in seeds if s.label == "benign"], warm.helpful_examples, rng)


def untaught_seeds(seeds: Sequence[Seed], warm: WarmStartConfig, seed: int) -> list[Seed]:
    """Seeds that were in no lesson, for the games: what the warm start has learnt by heart says little about either
    role. All seeds when under a quarter of either label would be left.
    """
    taught = {s.id for part in taught_seeds(seeds, warm, seed) for s in part}
    rest = [s for s in seeds if s.id not in taught]
    counts = [(sum(s.label == label for s in rest), sum(s.label == label for s in seeds)) for label in _LABELS]
    return rest if all(4 * left >= whole for left, whole in counts) else list(seeds)


def _play(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    start: Path,
    curves: CurveFile,
    games: Transcripts,
    meter: Meter,
    progress: Progress,
) -> str:
    """Digest of the candidate that the games made of `start`."""
    from sparring.policy.load import save_policy, set_threads
    from sparring.train.session import train

    def on_step(step: int, played: list[Game], curve: dict[str, float]) -> None:
        games.keep(step, played)
        curves.add({"phase": "selfplay", **curve})
        curves.flush()
        meter.step(int(curve["tokens"]))
        progress.update("self-play", step, config.selfplay.steps, _note(curve), curve)

    set_threads(config.model.threads)
    session, rows = _session(config, store, inputs, start, games.folder / "train", meter, progress)
    model = train(session, rows, on_step)
    folder = games.folder / "candidate"
    save_policy(model, start, folder)
    progress.update("store candidate", 0, 1)
    digest = save_checkpoint(
        store, folder, meta={"parent": inputs.prepared.start, "round": str(inputs.prepared.round), "phase": "selfplay"}
    )
    progress.update("store candidate", 1, 1, digest[:12])
    return digest


def _session(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    start: Path,
    work: Path,
    meter: Meter,
    progress: Progress,
) -> tuple[Any, int]:
    """The training of `start`: its games, its supervised set; and the rows of one step."""
    from sparring.embedding import default_embedder
    from sparring.judge import load_reward_judge
    from sparring.policy.load import load_policy, trains_in_bf16
    from sparring.train.rollout import GamePlayer
    from sparring.train.session import Session
    from sparring.train.supervised import distil

    policy, seeds = load_policy(start), _seeds(store, inputs.prepared)
    replays = _replays(store, inputs.prepared)
    plan = composition(config.game, config.selfplay, config.replay, len(replays))
    judge, rng = load_reward_judge(config.judge, store), random.Random(inputs.round_seed)
    benign = _sample([s for s in seeds if s.label == "benign"], config.selfplay.sft_examples, rng)
    lessons = []
    if config.selfplay.sft_coef > 0:
        progress.update("supervised set", 0, 1)
        lessons = distil(policy.model, policy.chat, judge, benign, config.game, inputs.round_seed)
        progress.update("supervised set", 1, 1, f"{len(lessons)} helpful")
    fresh = untaught_seeds(seeds, config.warm_start, inputs.round_seed) if _needs_warm(config, inputs) else seeds
    schedule = Schedule(fresh, replays, plan, config.game.harmful_share, inputs.round_seed)
    player = GamePlayer(
        config.game,
        schedule,
        policy.chat,
        judge,
        default_embedder(),
        group=config.selfplay.group,
        seed=inputs.round_seed,
        round_number=inputs.prepared.round,
    )
    session = Session(
        config.selfplay,
        start,
        policy.tokenizer,
        player,
        lessons,
        work,
        inputs.round_seed,
        trains_in_bf16(config.model.precision),
        lambda: bool(meter.over()),
    )
    return session, training_rows(plan, config.selfplay.group)


def training_rows(plan: Composition, group: int) -> int:
    """Rows that one step trains on: an attacker and a defender row for each generated game, else a defender row."""
    return (plan.vanilla + 2 * plan.generated + plan.replayed) * group


def _note(curve: dict[str, float]) -> str:
    parts = [
        f"{name} {curve[key]:.0%}"
        for name, key in (("refused harmful", "refused_harmful"), ("refused benign", "refused_benign"))
        if key in curve
    ]
    return ", ".join(parts)


def _sample(items: Sequence[Seed], k: int, rng: random.Random) -> list[Seed]:
    return rng.sample(items, min(k, len(items)))


def _seeds(store: Store, prepared: PrepareResult) -> list[Seed]:
    names = [field.name for field in fields(Seed)]
    return [Seed(**{name: row[name] for name in names}) for row in load_table(store, prepared.seeds).to_pylist()]


def _replays(store: Store, prepared: PrepareResult) -> list[Replayed]:
    rows = load_table(store, prepared.replay).to_pylist()
    return [
        Replayed(
            r["attack_id"],
            r["text"],
            Seed(r["seed_id"], r["seed"], r["label"], r["behavior"], r.get("category") or "", "pool"),
        )
        for r in rows
    ]


def _put_table(store: Store, key: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.put(key, sink.getvalue().to_pybytes())
