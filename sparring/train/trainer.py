"""Self-play as a TRL trainer: every override of GRPOTrainer's private hooks lives in this file (trl 1.16).

TRL brings the loop, accelerate, checkpoints, the reference model, clipping and logging. Ours are the games (through
the public `rollout_func`), the advantages (REINFORCE++ normalised for each role), the log-probabilities with the
prompt computed once, and the supervised term. With `features` None a step equals stock TRL bit for bit (tested).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from sparring.errors import TrainingError, TrainingStopped
from sparring.policy.logprobs import pack, packed_logprobs
from sparring.policy.products import FastProducts
from sparring.train.advantages import grpo, reinforce_pp, weigh_openings
from sparring.train.average import Average
from sparring.train.roles import DEFENDER

EXTRA = ("role", "score", "valid", "slot")
"""What the rollout adds to every row: role number, raw reward (0 when void), whether the row trains, group number."""


@dataclass(frozen=True)
class Features:
    """What differs from stock GRPO. `kl` weighs the KL penalty inside the reward (`grpo` has TRL's, in the loss).

    `sft(step, part, parts)` returns the supervised batch of one of the step's micro-batches, over all processes, as
    model inputs with `labels` (None where there is none), and the share that its tokens are of the step's.
    """

    estimator: Literal["reinforce_pp", "grpo"] = "reinforce_pp"
    kl: float = 0.0
    group_baseline: bool = False
    answer_decay: float = 1.0
    sft_coef: float = 0.0
    sft: Callable[[int, int, int], tuple[dict[str, Any] | None, float]] | None = None


class SelfPlayTrainer(GRPOTrainer):
    """GRPOTrainer that learns both roles from whole games. See the module's docstring."""

    _buffered_inputs: Any
    beta: Any

    def __init__(
        self, *args: Any, features: Features | None = None, average: Average | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.features, self.average = features, average
        if average is not None:
            self.add_callback(average)
        self._rows: dict[str, Tensor] = {}
        self.step_stats: dict[str, float] = {}
        self._taught = 0.0

    def _calculate_rewards(self, inputs: Any, *args: Any) -> Any:
        if self.features:
            device = self.accelerator.device
            self._rows = {name: torch.tensor([row[name] for row in inputs], device=device) for name in EXTRA}
        return super()._calculate_rewards(inputs, *args)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        if not self.features:
            return batch
        mask = batch["completion_mask"] * batch["tool_mask"]
        # a sampler with other kernels (vLLM) has TRL compute log π_old by the trained model; ours tells it exactly
        old = batch.get("old_per_token_logps", batch["sampling_per_token_logps"])
        reference = batch.get("ref_per_token_logps")
        batch["advantages"] = self._over_ranks(self.features, old, reference, mask)
        if reference is not None:
            sums = torch.stack([((old - reference) * mask).sum(), mask.sum().to(old.dtype)])
            gap, total = self.accelerator.reduce(sums) if self.accelerator.num_processes > 1 else sums
            self.step_stats["kl"] = float((gap / total.clamp(min=1)).item())
        batch["group"] = torch.arange(len(mask), device=mask.device)
        return batch

    def _over_ranks(self, features: Features, old: Tensor, reference: Tensor | None, mask: Tensor) -> Tensor:
        """Advantages of this process' rows, with the statistics of all processes' rows."""
        one, (rows, width) = self.accelerator, mask.shape
        if one.num_processes == 1:
            return _advantages(features, self._rows, old, reference, mask)

        def everyones(part: Tensor) -> Tensor:
            return one.gather(one.pad_across_processes(part, dim=1) if part.dim() == 2 else part)  # type: ignore[no-any-return]

        columns = {name: everyones(column) for name, column in self._rows.items()}
        whole = None if reference is None else everyones(reference)
        advantages = _advantages(features, columns, everyones(old), whole, everyones(mask))
        return advantages[rows * one.process_index : rows * (one.process_index + 1), :width]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self.features and self.model.training and self._buffered_inputs is not before:
            # TRL shuffles single rows; rows of one prompt must meet in one micro-batch to share its forward pass
            self._buffered_inputs = _in_order(self._buffered_inputs)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **kwargs: Any,
    ) -> Any:
        if not self.features:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        size = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            ids, mask = input_ids[start : start + size], attention_mask[start : start + size]
            completions = ids[:, -logits_to_keep:]
            packed = pack(ids[:, :-logits_to_keep], mask[:, :-logits_to_keep], completions, mask[:, -logits_to_keep:])
            with torch.autocast(ids.device.type, torch.bfloat16, enabled=bool(self.args.bf16)):
                # accelerate wraps the trained model's calls so, but not the reference's
                parts.append(packed_logprobs(model, packed, completions, entropy=compute_entropy))
        entropies = torch.cat([e for _, e in parts if e is not None]) if compute_entropy else None
        return torch.cat([logps for logps, _ in parts]), entropies, None

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.features and not math.isfinite(norm):  # the same on every rank: gradients are summed over all
            raise TrainingStopped(f"step {self.state.global_step + 1}: the loss or its gradient is not finite")
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A state that cannot be written leaves the one before it. Raises TrainingError."""
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            if self.average is not None and self.args.should_save:  # first: what super writes last marks a whole state
                self.average.save(folder)
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own
            shutil.rmtree(folder, ignore_errors=True)
            raise TrainingError(
                f"the training state of step {self.state.global_step} cannot be written to {folder}: {error}",
                hint="free some space and run again: it goes on from the state before",
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint), self.model)

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        if not self.features:
            return super()._compute_loss(model, inputs)
        beta = self.beta
        if self.features.estimator == "reinforce_pp":
            self.beta = 0.0  # the KL is in the reward already; counted here it would count twice
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        return loss + self._supervised(model)

    def _supervised(self, model: Any) -> Any:
        """This micro-batch's part of the mean over the answer tokens of the step's supervised rows."""
        features, parts, ranks = self.features, self.current_gradient_accumulation_steps, self.accelerator.num_processes
        if not features or not features.sft or features.sft_coef == 0:
            return 0.0
        part = self._step % parts
        batch, weight = features.sft(
            self.state.global_step, part * ranks + self.accelerator.process_index, parts * ranks
        )
        with FastProducts():
            loss = None if batch is None else model(**self._prepare_input(batch), use_cache=False).loss
        self._taught = (self._taught if part else 0.0) + (0.0 if loss is None else float(loss.detach()) * weight)
        if part == parts - 1:
            taught = torch.tensor(self._taught, device=self.accelerator.device)
            self.step_stats["sft_loss"] = float(self.accelerator.reduce(taught)) if ranks > 1 else self._taught
        return 0.0 if loss is None else features.sft_coef * loss * (weight * ranks)  # processes' gradients are averaged


def _advantages(
    features: Features, rows: dict[str, Tensor], old: Tensor, reference: Tensor | None, mask: Tensor
) -> Tensor:
    score, group, valid = rows["score"].float(), rows["slot"], rows["valid"].bool()
    if features.estimator == "grpo":
        found = grpo(score, mask, group, valid)
    else:
        baseline = group if features.group_baseline else None
        found = reinforce_pp(score, old, reference, mask, rows["role"], valid, features.kl, baseline)
    return weigh_openings(found, mask, rows["role"] == DEFENDER, features.answer_decay)


def _in_order(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Brings the rows of all micro-batches back into the order of the rollout (`group`) and splits them again."""
    order = torch.cat([b["group"] for b in batches]).argsort()
    size = len(batches[0]["group"])
    joined = {
        key: torch.cat([b[key] for b in batches])[order] if _per_row(value, size) else value
        for key, value in batches[0].items()
    }
    return [
        {
            key: value[i * size : (i + 1) * size] if _per_row(batches[0][key], size) else value
            for key, value in joined.items()
        }
        for i in range(len(batches))
    ]


def _per_row(value: Any, size: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == size
