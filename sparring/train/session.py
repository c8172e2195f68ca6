"""One self-play training: builds the trainer around the games and runs it, resumable at every saved state."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig

from sparring.config.run import SelfplayConfig
from sparring.errors import TrainingStopped
from sparring.policy.architectures import unwrap
from sparring.train.average import Average, first_step
from sparring.train.dynamic import chosen, informative
from sparring.train.guards import Line
from sparring.train.league import Opponents, rest_opponents
from sparring.train.players import Players, trainer_of
from sparring.train.ranks import check_world, mine, padded, the_firsts
from sparring.train.roles import ATTACKER, DEFENDER, Begun
from sparring.train.rollout import GamePlayer
from sparring.train.rows import rollout_rows
from sparring.train.states import newest_state
from sparring.train.supervised import Example, collate
from sparring.train.trainer import Features
from sparring.train.vllm import rollout_mode, vllm_arguments
from sparring.train.watch import OnStep, Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What a training needs. `start` is the folder of the starting policy: also the KL reference. `bf16`: autocast.

    `stop` is asked after each step; True ends the training there. With adapters `start` is their base, and `begun`
    names those to go on from. `opponents` are a league's. `history` are the curve's lines that a killed try left.
    `keep(folder, step)` puts a training state away, every `checkpoint_minutes`.
    """

    config: SelfplayConfig
    start: Path
    tokenizer: Any
    player: GamePlayer
    lessons: list[Example]
    work: Path
    seed: int
    bf16: bool = False
    stop: Callable[[], bool] = lambda: False
    begun: Begun | None = None
    opponents: Opponents | None = None
    history: Sequence[Line] = ()
    keep: Callable[[Path, int], None] | None = None


def train(session: Session, rows: int, on_step: OnStep) -> Any:
    """Runs all steps and returns the trained model, with adapters PEFT's. `rows` is the training rows of one step.

    Its weights are the mean over the last `average_share` of the steps.

    A training state left in `session.work` by a killed run is taken up. `on_step(step, games, curve)` is called after
    each optimizer step. Raises TrainingStopped, with the model as the last good step left it, when a guard trips.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func's warning: the version is pinned
    watch = Watch(session.config, on_step, session.stop, session.history, session.keep)
    players, average = Players(session), Average(first_step(session.config.steps, session.config.average_share))
    trainer = trainer_of(session)(
        model=str(session.start),
        reward_funcs=_recorded_score,
        args=_arguments(session, rows),
        train_dataset=_groups(session.config, rows),
        processing_class=session.tokenizer,
        rollout_func=lambda prompts, trainer: _roll(session, players, watch, rows, prompts, trainer),
        features=Features(
            kl=session.config.kl,
            estimator=session.config.estimator,
            group_baseline=session.config.baseline == "group",
            answer_decay=1.0 if session.player.game.cot else session.config.answer_decay,
            sft_coef=session.config.sft_coef,
        ),
        average=average,
        callbacks=[watch],
    )
    watch.trainer = trainer
    if average.first < session.config.steps and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        log.warning("selfplay.average_share is left out: the weights are sharded")
        average.off = True
    check_world(session.config.processes, trainer.accelerator.num_processes)
    session = replace(session, lessons=the_firsts(session.lessons))
    trainer.features = replace(trainer.features, sft=_lesson_plan(session, watch))
    trainer.remove_callback(PrinterCallback)
    try:
        found = newest_state(session.work)
        trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
        reason = watch.reason
    except TrainingStopped as stopped:  # before an update that would have spoilt the weights
        reason = stopped.message
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    if reason:
        raise TrainingStopped(reason, model)
    average.put(model)
    return model


def _recorded_score(score: list[float], **_: Any) -> list[float]:
    """The reward of each row, as the rollout recorded it."""
    return score


def _arguments(session: Session, rows: int) -> GRPOConfig:
    config = session.config
    rows = process_rows(rows, config)
    micro = micro_batch(rows, config.group, config.micro_batch)
    if micro < min(rows, config.micro_batch) // 2:
        log.warning(
            "%d rows a step only divide into micro-batches of %d (selfplay.micro_batch %d), which is slow: "
            "choose selfplay.games or game.generated_share so that they divide better",
            rows,
            micro,
            config.micro_batch,
        )
    return GRPOConfig(
        output_dir=str(session.work),
        max_steps=config.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows // micro,
        num_generations=config.group,
        max_completion_length=max(session.player.game.attack_room, session.player.game.answer_room),
        shuffle_dataset=False,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=round(config.steps * config.warmup),
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=config.kl,
        epsilon=config.clip,
        loss_type="dapo",
        scale_rewards="none",
        bf16=session.bf16,
        use_cpu=not torch.cuda.is_available(),  # transformers wants to be told before it multiplies in bf16 there
        gradient_checkpointing=False,
        disable_dropout=True,
        ddp_broadcast_buffers=False,  # processes need not pass the model equally often
        ddp_find_unused_parameters=False,
        model_init_kwargs={"dtype": "float32", "use_safetensors": True, "trust_remote_code": False},
        logging_steps=1,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=session.seed % 2**31,
        **vllm_arguments(config, session.player.game, rollout_mode(config)),
    )


def process_rows(rows: int, config: SelfplayConfig) -> int:
    """Rows of a step that one process trains on, filled up so that every process has whole groups and as many."""
    multiple = config.group * config.processes
    return (rows + -rows % multiple) // config.processes


def micro_batch(rows: int, group: int, wanted: int) -> int:
    """Rows of a micro-batch: the largest divisor of `rows` that keeps groups whole and is at most half above `wanted`.

    >>> micro_batch(48, 2, 16), micro_batch(44, 2, 16), micro_batch(12, 4, 16)
    (24, 22, 12)
    """
    return max(m for m in range(group, max(group, wanted * 3 // 2) + 1, group) if rows % m == 0)


def _groups(config: SelfplayConfig, rows: int) -> Dataset:
    """One dataset row a group of `group` training rows; it only names the step, the schedule does the rest."""
    per_step = process_rows(rows, config) * config.processes // config.group
    return Dataset.from_list([{"prompt": f"{step}:{g}"} for step in range(config.steps) for g in range(per_step)])


def _roll(
    session: Session, players: Players, watch: Watch, count: int, prompts: list[str], trainer: Any
) -> dict[str, list[Any]]:
    """A step's games, and of their rows the `count` that are trained on: this process' part."""
    step = int(prompts[0].split(":")[0])
    roles, seats = players.of_step(trainer, step)
    played = session.player.play(roles, step)
    watch.played(step, played)
    rows = rollout_rows(played, trained=trained_roles(session.config))
    rest_opponents(rows, {ATTACKER: played.attackers.slots, DEFENDER: played.defenders.slots}, seats)
    teaching = informative(rows)
    if session.config.trained_share < 1:
        rows = chosen(rows, count, f"{session.seed}/dynamic/{step}")
    watch.trains(rows["completion_ids"], teaching)
    return mine(padded(rows, session.config.group * session.config.processes))


def trained_roles(config: SelfplayConfig) -> list[int]:
    """The roles that learn; the rows of the others carry no loss."""
    return [role for role, learns in ((ATTACKER, config.train_attacker), (DEFENDER, config.train_defender)) if learns]


def _lesson_plan(session: Session, watch: Watch) -> Callable[[int, int, int], Any] | None:
    if not session.lessons:
        return None
    size = session.config.sft_batch

    def batch(step: int, part: int, parts: int) -> tuple[Any, float]:
        model = unwrap(watch.trainer.model).config
        every = random.Random(f"{session.seed}/sft/{step}").choices(session.lessons, k=size)
        chosen = every[part::parts]
        tokens = sum(len(example.answer) for example in every)
        if not chosen or not tokens:  # a process without a row still takes part in the pass of the others
            return (collate(every[:1], model), 0.0) if tokens and session.config.processes > 1 else (None, 0.0)
        return collate(chosen, model), sum(len(example.answer) for example in chosen) / tokens

    return batch
