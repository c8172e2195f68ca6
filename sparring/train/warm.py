"""The supervised warm start of the first round: a LoRA adapter on the middle of the model, on transformers' Trainer.

A model that refuses 2 % of anything gives pure reinforcement learning no refusal to reinforce. The warm start makes
both answers likely where they belong, and leaves the rest of the model as it is:

- What tells harmful from harmless is easiest to read half-way up (by a linear probe: docs/measured.md), so only the
  layers there learn, by an adapter that is merged in the end. Layers below need no gradient.
- Own words are taught by the whole distribution that they were drawn from (the model without its adapter), not by the
  one token that came up: the same target with less noise, and nothing to learn where nothing has changed.
- Every row counts alike, and in an opening the first words count most: they decide whether to help.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from sparring.config.run import WarmStartConfig
from sparring.errors import TrainingError
from sparring.policy.products import FastProducts
from sparring.train.adapters import span
from sparring.train.supervised import Example, collate

_MICRO = 16
"""Rows of a forward pass at most: attention is quadratic in a packed row."""
_LAYER: Final = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
OnStep = Callable[[int, dict[str, float]], None]


class _Rows(Dataset[Example]):
    def __init__(self, rows: list[Example]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return self._rows[index]


class _Lessons(Trainer):
    """Walks the batches in the order they were drawn in, own words first in each."""

    def _get_train_sampler(self, *_: Any) -> None:
        return None

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(norm):
            raise TrainingError(
                f"warm start, step {self.state.global_step + 1}: the loss or its gradient is not finite",
                hint="lower warm_start.learning_rate; nothing was stored",
            )
        return norm

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over rows of each row's weighted mean over its answer tokens: nats."""
        lesson, own, weights = inputs["lesson"], inputs["own"], inputs["weights"]
        labels = lesson.pop("labels")[0, 1:]
        said = _logp(model, lesson)
        loss = -said.gather(1, labels[:, None])[:, 0]
        if own is not None:
            own.pop("labels")
            with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():
                before = _logp(model, own)
            count = len(before)
            told = (before.exp() * (before - said[:count])).sum(1)
            loss = torch.cat([told, loss[count:]])
        mean = (loss * weights).sum()
        return (mean, None) if return_outputs else mean


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

    `stop` is asked after each step; True ends the training there. Raises TrainingError for a gradient that is
    not finite.
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
        warmup_steps=min(5, len(batches)),
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
    adapted = _adapted(model, config, seed)
    trainer = _Lessons(
        model=adapted,
        args=arguments,
        train_dataset=_Rows(rows),
        data_collator=partial(lesson_batch, config=model.config),
        callbacks=[_Report(on_step, stop)],
    )
    trainer.model_accepts_loss_kwargs = False  # the loss is a mean over rows: accumulated steps are averaged
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    adapted.merge_and_unload()
    model.requires_grad_(True)


def _adapted(model: Any, config: WarmStartConfig, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return get_peft_model(
            model,
            LoraConfig(
                r=config.rank,
                lora_alpha=config.rank,
                target_modules=middle(model, config.layers),
                task_type="CAUSAL_LM",
            ),
        )


def middle(model: Any, part: tuple[float, float]) -> list[str]:
    """Names of the linear layers in `part` of the model's depth (0: the lowest layer, 1: the highest); at least one
    layer's. All but the head where the model's layers are not numbered.
    """
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    depth = {name: int(found[1]) for name in linear if (found := _LAYER.search(f".{name}."))}
    if not depth:
        return linear
    layers = span(part, max(depth.values()) + 1)
    return [name for name in linear if depth.get(name) in layers]


def lesson_batch(examples: Sequence[Example], config: Any) -> dict[str, Any]:
    """`lesson`: the packed rows (`collate`), own words first; `own`: those alone, None without any; `weights` (K,) of
    the K answer tokens, in the order of `lesson`, 1 in all: as much for each row, within one falling by its `decay`.
    """
    rows = sorted(examples, key=lambda example: not example.own)
    own = [example for example in rows if example.own]
    weights = [weight / len(rows) for example in rows for weight in _falling(len(example.answer), example.decay)]
    return {
        "lesson": collate(rows, config),
        "own": collate(own, config) if own else None,
        "weights": torch.tensor(weights),
    }


def _falling(count: int, decay: float) -> list[float]:
    raw = [decay**place for place in range(count)]
    return [weight / sum(raw) for weight in raw]


def _logp(model: Any, batch: dict[str, Any]) -> Tensor:
    with FastProducts():
        logits = model(**batch).logits[0, :-1]
    return torch.log_softmax(logits.float(), dim=-1)
