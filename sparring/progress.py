"""Progress of a step as small events: a pod prints them as plain lines, the laptop's runner draws bars from them.

The local Kubeflow runner pipes a step's output, so a bar drawn inside a step would be lost. When the environment
variable SPARRING_EVENTS names a file, every event is appended to it as one JSON line; otherwise a line is printed,
at most one every few seconds a stage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

EVENTS_VARIABLE = "SPARRING_EVENTS"
_PLAIN_SECONDS = 10.0


@dataclass(frozen=True)
class Event:
    """One state of one stage: `done` of `total` units; `note` is a short human text (loss, refusal rate)."""

    step: str
    stage: str
    done: int
    total: int
    time: float
    note: str = ""


Listener = Callable[[Event, Mapping[str, float]], None]
"""Is told every event, with a training step's numbers where there are any."""


class Progress:
    """Reports the progress of one step. Cheap enough to call after every batch; never raises for a full disk."""

    def __init__(self, step: str, listener: Listener | None = None) -> None:
        self.step = step
        self._listener = listener
        self._file = os.environ.get(EVENTS_VARIABLE)
        self._printed: dict[str, float] = {}

    def update(
        self, stage: str, done: int, total: int, note: str = "", numbers: Mapping[str, float] | None = None
    ) -> None:
        """Says that `done` of `total` units of `stage` are finished; `numbers` are a training step's curves."""
        event = Event(self.step, stage, done, total, time.time(), note)
        if self._listener:
            self._listener(event, numbers or {})
        if self._file:
            self._append(event)
        elif done >= total or time.time() - self._printed.get(stage, 0.0) > _PLAIN_SECONDS:
            self._printed[stage] = time.time()
            print(f"[{self.step}] {stage} {done}/{total} {note}".rstrip(), flush=True)

    def _append(self, event: Event) -> None:
        try:
            with Path(str(self._file)).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event)) + "\n")
        except OSError:  # progress is a courtesy: it must not end a training
            self._file = None
