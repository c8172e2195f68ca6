"""The games of step `selfplay`: the session that plays them, and the candidate they make."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparring.config.run import SelfplayConfig
from sparring.errors import ConfigError, TrainingStopped
from sparring.game.records import Game, Seed
from sparring.game.schedule import Composition, Schedule, composition
from sparring.monitor import ledger
from sparring.progress import Progress
from sparring.registry.checkpoints import save_checkpoint
from sparring.steps.budget import Meter
from sparring.steps.players import Stage, keep_adapters, save_trained, set_up
from sparring.steps.training import (
    SelfplayInputs,
    SelfplayStepConfig,
    load_replays,
    load_seeds,
    needs_warm,
    sample,
    untaught_seeds,
)
from sparring.store.base import Store
from sparring.train.curves import CurveFile
from sparring.train.transcripts import Transcripts

log = logging.getLogger(__name__)


def play(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    start: Path,
    curves: CurveFile,
    games: Transcripts,
    meter: Meter,
    progress: Progress,
) -> tuple[str, str]:
    """Digest of the candidate that the games made of `start`, and the guard that stopped them ("" when none did).

    Of several processes all train, and the first stores; the others return "" for the digest.
    """
    from sparring.evaluate.diversity import diversity
    from sparring.policy.load import carry_mode, set_threads
    from sparring.train.ranks import world
    from sparring.train.session import train

    def on_step(step: int, played: list[Game], curve: dict[str, float]) -> None:
        games.keep(step, played)
        written = [g for g in played if g.kind == "generated"][:: config.selfplay.answers_per_attack]
        varied = diversity([g.attack for g in written], [g.seed for g in written])
        curves.add({"phase": "selfplay", **curve, **varied})
        curves.flush()
        meter.step(int(curve["written"]))
        left = curve["seconds"] * (config.selfplay.steps - step)
        ledger.beat(store, inputs.prepared.round, "selfplay", step, config.selfplay.steps, left)
        progress.update("self-play", step, config.selfplay.steps, _note(curve), {**curve, "remaining": left})

    set_threads(config.model.threads)
    stage = set_up(config.selfplay, store, inputs, start)
    session, rows = _session(config, store, inputs, start, stage, games.folder / "train", meter, progress)
    session = replace(
        session,
        history=[line for line in curves.lines if line["phase"] == "selfplay"],
        keep=lambda folder, step: inputs.states(store).keep(folder, step, games),
    )
    guard, model = "", None
    try:
        model = train(session, rows, on_step)
    except TrainingStopped as stopped:
        guard, model = stopped.message, stopped.model
    if world()[0]:
        return "", guard
    folder = games.folder / "candidate"
    save_trained(config.selfplay, stage, model, folder)
    carry_mode(folder, session.player.chat, config.game.cot)
    progress.update("store candidate", 0, 1)
    digest = save_checkpoint(
        store, folder, meta={"parent": inputs.prepared.start, "round": str(inputs.prepared.round), "phase": "selfplay"}
    )
    keep_adapters(config.selfplay, store, inputs, stage, model, digest)
    progress.update("store candidate", 1, 1, digest[:12])
    return digest, guard


def _session(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    start: Path,
    stage: Stage,
    work: Path,
    meter: Meter,
    progress: Progress,
) -> tuple[Any, int]:
    """The training of `start`: its games, its supervised set; and the rows of one step."""
    from sparring.embedding import default_embedder
    from sparring.judge import load_reward_judge
    from sparring.policy.load import load_policy, trains_in_bf16
    from sparring.train.ranks import SharedJudge
    from sparring.train.rollout import GamePlayer
    from sparring.train.session import Session

    policy, seeds = load_policy(start), load_seeds(store, inputs.prepared)
    replays = load_replays(store, inputs.prepared)
    plan = composition(config.game, config.selfplay, config.replay, len(replays))
    if not config.selfplay.train_defender and not plan.generated:
        raise ConfigError(
            f"no game of a step is written by the attacker, the only one who learns: {plan}",
            hint="raise game.generated_share or selfplay.games",
        )
    judge = load_reward_judge(config.judge, store)
    if config.selfplay.processes > 1:
        judge = SharedJudge(judge)
    fresh = untaught_seeds(seeds, config.warm_start, inputs.round_seed) if needs_warm(config, inputs) else seeds
    schedule = Schedule(fresh, replays, plan, config.game.harmful_share, inputs.round_seed)
    player = GamePlayer(
        config.game,
        schedule,
        policy.chat,
        judge,
        default_embedder(),
        group=config.selfplay.group,
        answers=config.selfplay.answers_per_attack,
        seed=inputs.round_seed,
        round_number=inputs.prepared.round,
        audit=_audit(config, store, inputs.round_seed),
    )
    session = Session(
        config.selfplay,
        stage.base,
        policy.tokenizer,
        player,
        _lessons(config, inputs, policy, judge, seeds, progress),
        work,
        inputs.round_seed,
        trains_in_bf16(config.model.precision),
        lambda: bool(meter.over()),
        stage.begun,
        stage.opponents,
    )
    return session, training_rows(plan, config.selfplay, config.game.turns)


def _lessons(
    config: SelfplayStepConfig, inputs: SelfplayInputs, policy: Any, judge: Any, seeds: list[Seed], progress: Progress
) -> list[Any]:
    """The supervised set: the policy's own answers to benign seeds; none without a supervised term."""
    from sparring.train.supervised import distil

    if config.selfplay.sft_coef == 0:
        return []
    benign = [seed for seed in seeds if seed.label == "benign"]
    chosen = sample(benign, config.selfplay.sft_examples, random.Random(inputs.round_seed))
    progress.update("supervised set", 0, 1)
    chat = policy.chat if config.game.cot else policy.chat.mode(False)
    lessons = distil(policy.model, chat, judge, chosen, config.game, inputs.round_seed)
    progress.update("supervised set", 1, 1, f"{len(lessons)} helpful")
    if not lessons:
        log.warning("none of %d own answers is helpful: there is no supervised term (selfplay.sft_coef)", len(chosen))
    return lessons


def _audit(config: SelfplayStepConfig, store: Store, seed: int) -> Any:
    """The look at the gate's judge; None where it is not asked for, or where this machine cannot ask it."""
    from sparring.judge import load_gate_judge
    from sparring.train.audit import Audit
    from sparring.train.ranks import SharedJudge

    if not config.game.audit_games:
        return None
    try:
        judge = load_gate_judge(config.judge, store)
    except ConfigError as error:  # as a pod for training that lacks the gate judge's secret
        log.warning("the judges' disagreement is not measured: %s", error)
        return None
    return Audit(SharedJudge(judge) if config.selfplay.processes > 1 else judge, config.game.audit_games, seed)


def training_rows(plan: Composition, selfplay: SelfplayConfig, turns: int = 1) -> int:
    """Rows that one step trains on, of an attacker's for each turn of a written attack and a defender's for each game;
    of a share of them whole micro-batches.
    """
    groups = plan.vanilla + (turns + selfplay.answers_per_attack) * plan.generated + plan.replayed
    whole = groups * selfplay.group
    micro = max(selfplay.micro_batch // selfplay.group, 1) * selfplay.group
    return (
        min(whole, math.ceil(whole * selfplay.trained_share / micro) * micro) if selfplay.trained_share < 1 else whole
    )


def gpus() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count()


def _note(curve: dict[str, float]) -> str:
    parts = [
        f"{name} {curve[key]:.0%}"
        for name, key in (("refused harmful", "refused_harmful"), ("refused benign", "refused_benign"))
        if key in curve
    ]
    return ", ".join(parts)
