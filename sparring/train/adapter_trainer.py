"""Self-play with one adapter a role: the further overrides of TRL's private hooks (trl 1.16).

One step holds rows of both roles. Each pass takes the rows of one role through that role's adapter and puts the results
back in order, so that clipping, normalisation and the loss are those of one batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparring.train.adapters import act, acting, adapters_off, fit_adapters, unused
from sparring.train.roles import DEFENDER, Begun
from sparring.train.trainer import SelfPlayTrainer


class AdapterTrainer(SelfPlayTrainer):
    """SelfPlayTrainer on a PEFT model. Gradient checkpointing is refused: its second pass, in the backward, would go

    through whichever adapter acts by then.
    """

    def __init__(self, *args: Any, begun: Begun, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.gradient_checkpointing:
            raise ValueError("gradient checkpointing with one adapter a role")
        fit_adapters(self.model, begun, seed)
        self._roles: Tensor | None = None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        act(self.model, DEFENDER)  # what PEFT loads is frozen

    def _generate(self, prompts: list[Any]) -> Any:
        if self.use_vllm:  # TRL would merge one adapter in place and subtract it again: `VllmRoles` sends each role's
            self._last_loaded_step = self.state.global_step
        output = super()._generate(prompts)
        self._roles = torch.tensor(output[5]["role"], device=self.accelerator.device)
        return output

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        batch["role"] = self._roles
        return batch

    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self._roles is None or adapters_off(model):
            return super()._get_per_token_logps_and_entropies(model, input_ids, *args, **kwargs)
        return self._by_role(model, self._roles, input_ids, *args, **kwargs)

    def _by_role(self, model: Any, roles: Tensor, input_ids: Tensor, mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        parts, rows = [], []
        for role in torch.unique(roles).tolist():
            chosen = (roles == role).nonzero().squeeze(1)
            with acting(model, role):
                parts.append(
                    super()._get_per_token_logps_and_entropies(model, input_ids[chosen], mask[chosen], *args, **kwargs)
                )
            rows.append(chosen)
        order = torch.cat(rows).argsort()
        logps, entropies = torch.cat([part[0] for part in parts]), [part[1] for part in parts]
        return logps[order], None if entropies[0] is None else torch.cat(entropies)[order], None

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self._roles = inputs["role"]
        loss = super()._compute_loss(model, inputs)
        return loss + unused(model) if self.accelerator.num_processes > 1 else loss
