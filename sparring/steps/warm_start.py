"""The warm start of step `selfplay`: the first round's supervised lessons, and the checkpoint they make."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from typing import Any

from sparring.data import starter
from sparring.game.records import Seed
from sparring.progress import Progress
from sparring.registry.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from sparring.steps.budget import Meter
from sparring.steps.training import Keys, SelfplayInputs, SelfplayStepConfig, load_seeds, taught_seeds
from sparring.steps.work import CHECKPOINTS
from sparring.store.base import Store
from sparring.train.curves import CurveFile


def warm(
    config: SelfplayStepConfig,
    store: Store,
    inputs: SelfplayInputs,
    curves: CurveFile,
    meter: Meter,
    progress: Progress,
) -> str:
    """Digest of the warm-started checkpoint; a run killed after it finds it recorded."""
    key = Keys(inputs.prepared.round).warm
    if store.exists(key):
        digest = str(json.loads(store.get(key))["digest"])
        if has_checkpoint(store, digest):
            return digest
    from sparring.policy.load import carry_mode, load_policy, save_policy, set_threads, trains_in_bf16
    from sparring.train.supervised import warm_batches
    from sparring.train.warm import warm_start

    set_threads(config.model.threads)
    start = load_checkpoint(store, inputs.prepared.start, inputs.work / CHECKPOINTS)
    policy = load_policy(start)
    seeds, rng = load_seeds(store, inputs.prepared), random.Random(inputs.round_seed)
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
    carry_mode(scratch / "model", policy.chat, config.game.cot)
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

    chat = policy.chat if config.game.cot else policy.chat.mode(False)
    harmful, benign = taught_seeds(seeds, config.warm_start, inputs.round_seed)
    judge = load_reward_judge(config.judge, store)
    known = inputs.prepared.known_demonstrations
    demonstrations = [d for d in starter.demonstrations() if d.id not in known]
    return Lessons(
        refusal_examples(chat, harmful, starter.refusals(), starter.categories(), config.game, rng),
        distil(policy.model, chat, judge, benign, config.game, inputs.round_seed),
        attack_examples(chat, demonstrations, config.game),
    )
