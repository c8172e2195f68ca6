"""The mean of the trained weights over a training's last steps: what the candidate is made of.

    mean ← mean + (weights − mean) / n        after each of the last `selfplay.average_share` of the steps

Steps of self-play swing between refusing and helping: a step that was paid for refusals is followed by some that undo
the excess. The last step's weights stand anywhere in that swing, their mean in its middle (tail averaging: Polyak and
Juditsky 1992; Izmailov et al., arXiv 1803.05407).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

FILE: Final = "average.safetensors"
_COUNT: Final = "steps"


class Average(TrainerCallback):
    """Takes the trained parameters after each step past `first`; part of every training state.

    `off` takes none, where the parameters are sharded: the last step's weights stay as they are.
    """

    def __init__(self, first: int) -> None:
        self.first, self.count, self.off = first, 0, False
        self._mean: dict[str, Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Takes the weights that the step has left."""
        if self.off or state.global_step <= self.first:
            return
        self.count += 1
        for name, parameter in _trained(model).items():
            if self.count == 1:
                self._mean[name] = parameter.clone()
            else:
                self._mean[name] += (parameter - self._mean[name]) / self.count

    def put(self, model: Any) -> None:
        """Gives the model the mean; nothing when no step was taken yet."""
        with torch.no_grad():
            for name, parameter in _trained(model).items() if self.count else ():
                parameter.copy_(self._mean[name])

    def save(self, folder: Path) -> None:
        """Writes the mean into a training state's folder; nothing when no step was taken yet."""
        if self.count:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({**self._mean, _COUNT: torch.tensor(self.count)}, folder / FILE)

    def load(self, folder: Path, model: Any) -> None:
        """Goes on from a training state."""
        found = load_file(folder / FILE) if (folder / FILE).exists() else {_COUNT: torch.tensor(0)}
        self.count = int(found.pop(_COUNT))
        self._mean = {name: value.to(next(model.parameters()).device) for name, value in found.items()}


def first_step(steps: int, share: float) -> int:
    """Steps before those that are averaged: of `steps` the last `share`, rounded.

    >>> first_step(24, 1 / 3), first_step(16, 0.0), first_step(3, 1.0)
    (16, 16, 0)
    """
    return steps - round(steps * share)


def _trained(model: Any) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
