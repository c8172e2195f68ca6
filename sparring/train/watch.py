"""What looks on while a training runs: collects its numbers, and stops it when it has gone wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sparring.config.run import SelfplayConfig
from sparring.errors import TrainingStopped
from sparring.game.records import Game
from sparring.train.curves import step_curve
from sparring.train.guards import Line, too_void, tripped
from sparring.train.rollout import Played

log = logging.getLogger(__name__)

OnStep = Callable[[int, list[Game], dict[str, float]], None]
Keep = Callable[[Path, int], None]


class Watch(TrainerCallback):
    """Collects a step's games and numbers, hands them on, and stops a training that has gone wrong.

    Of several processes the first hands on. `history` are the curve's lines of a killed try; those up to the state that
    is taken up count for the guards.
    """

    def __init__(
        self,
        config: SelfplayConfig,
        on_step: OnStep,
        stop: Callable[[], bool],
        history: Sequence[Line] = (),
        keep: Keep | None = None,
    ) -> None:
        self.config, self._on_step, self._stop = config, on_step, stop
        self.trainer: Any = None
        self.reason = ""
        self._lines = list(history)
        self._games: list[Game] = []
        self._measures: Mapping[str, float] = {}
        self._tokens = self._written = 0
        self._keep = keep if config.checkpoint_minutes else None
        self._began = self._kept = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raises TrainingStopped where the state that is taken up is one at which a guard had tripped."""
        self._lines = [line for line in self._lines if line["step"] <= state.global_step]
        if why := tripped(self._lines, self.config):
            raise TrainingStopped(why)
        if self._keep and (self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled):
            log.warning("sharded training states stay in the work folder: no other machine can go on from them")
            self._keep = None

    def played(self, step: int, played: Played) -> None:
        """Takes a step's games. Raises TrainingStopped when too many are void to train on."""
        self._games, self._measures = played.games, played.measures
        self._written = sum(len(ids) for side in (played.attackers, played.defenders) for ids in side.sampled.ids)
        if why := too_void(step, played.games, self.config.max_void_share):
            raise TrainingStopped(why)

    def trains(self, completions: Sequence[Sequence[int]], informative: float | None) -> None:
        """Takes the completions, of those games, that the step trains on, and the share of all groups that teach."""
        self._tokens = sum(map(len, completions))
        self._measures = {**self._measures, **({} if informative is None else {"informative": informative})}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        seconds, self._began = time.monotonic() - self._began, time.monotonic()
        curve = step_curve(state.global_step, self._games, {**logs, **self.trainer.step_stats}, seconds, self._tokens)
        curve |= {"written": float(self._written), **self._measures}
        self._lines.append(curve)
        if state.is_world_process_zero:
            self._on_step(state.global_step, self._games, curve)
        self.reason = tripped(self._lines, self.config)
        control.should_training_stop |= anyones(self.trainer.accelerator, bool(self.reason) or self._stop())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A state is saved when it is time to put one away; the last step leaves its candidate instead."""
        if self._keep is not None and state.global_step < state.max_steps:
            control.should_save |= anyones(self.trainer.accelerator, self._due())

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._keep is None or not anyones(self.trainer.accelerator, self._due()):
            return
        self.trainer.accelerator.wait_for_everyone()  # each process wrote its random numbers
        if state.is_world_process_zero and state.global_step < state.max_steps:
            self._keep(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", state.global_step)
        self._kept = time.monotonic()

    def _due(self) -> bool:
        return time.monotonic() - self._kept >= self.config.checkpoint_minutes * 60


def anyones(accelerator: Any, mine: bool) -> bool:
    """Whether any process says so: one that stopped alone would leave the others waiting for it."""
    if accelerator.num_processes == 1:
        return mine
    return bool(accelerator.gather(torch.tensor([mine], dtype=torch.int32, device=accelerator.device)).any())
