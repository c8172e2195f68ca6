"""The supervised warm start of the first round, on transformers' Trainer.

A model that refuses 2 % of anything gives pure reinforcement learning no refusal to reinforce. The warm start is only
strong enough to make both answers likely; telling harmful from harmless is left to self-play.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from sparring.config.run import WarmStartConfig
from sparring.train.supervised import Example, collate

_MICRO = 16
"""Rows of a forward pass at most: attention is quadratic in a packed row."""
OnStep = Callable[[int, dict[str, float]], None]


class _Rows(Dataset[Example]):
    def __init__(self, rows: list[Example]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return self._rows[index]


class _Ordered(Trainer):
    """Walks the batches in the order they were drawn in."""

    def _get_train_sampler(self, *_: Any) -> None:
        return None


class _Report(TrainerCallback):
    def __init__(self, on_step: OnStep, stop: Callable[[], bool]) -> None:
        self._on_step, self._stop = on_step, stop

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._on_step(state.global_step, logs)
            control.should_training_stop |= self._stop()


def warm_start(
    model: Any,
    batches: list[list[Example]],
    config: WarmStartConfig,
    work: Path,
    seed: int,
    on_step: OnStep,
    *,
    bf16: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Trains `model` in place, one optimizer step a batch; `on_step(step, logs)` after each. `bf16`: autocast.

    `stop` is asked after each step; True ends the training there.
    """
    micro = next(m for m in range(min(_MICRO, config.batch), 0, -1) if config.batch % m == 0)
    rows = [row for batch in batches for row in batch]
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=len(batches),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch // micro,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(3, len(batches)),
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),  # transformers wants to be told before it multiplies in bf16 there
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=seed,
    )
    trainer = _Ordered(
        model=model,
        args=arguments,
        train_dataset=_Rows(rows),
        data_collator=partial(collate, config=model.config),
        callbacks=[_Report(on_step, stop)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
