"""Reads the steps' progress events as they are appended, and keeps what is known of each step and stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sparring.progress import Event
from sparring.steps.entry import STEP_STAGE


class EventReader:
    """Follows the events file. A line that is still being written waits for its end; a broken one is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Event]:
        """Events that are new since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            event = _parse(line)
            if event:
                yield event


def _parse(line: bytes) -> Event | None:
    try:
        return Event(**json.loads(line))
    except (ValueError, TypeError):  # two processes wrote into each other: progress is a courtesy
        return None


@dataclass
class Stage:
    """One bar: `done` of `total` units since `begun` (seconds of the clock), which had `first` units at its start."""

    name: str
    begun: float
    first: int
    done: int
    total: int
    now: float
    note: str = ""

    def remaining(self, now: float | None = None) -> float | None:
        """Seconds to go at the average speed so far, seen from `now` (clock; else from the last event).

        None before a first unit was done; never below zero: a unit may take longer than those before it.
        """
        made = self.done - self.first
        if made <= 0:
            return None
        expected = (self.now - self.begun) / made * max(0, self.total - self.done)
        return max(0.0, expected - ((now or self.now) - self.now))


@dataclass
class StepState:
    """What the events say of one step. `ended` is its clock time once it is done."""

    name: str
    begun: float
    ended: float | None = None
    note: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the step took, or has taken so far by its last event."""
        last = max([stage.now for stage in self.stages.values()], default=self.begun)
        return (self.ended or last) - self.begun


class RoundState:
    """All steps of the round in the order in which they began."""

    def __init__(self) -> None:
        self.steps: dict[str, StepState] = {}

    def apply(self, event: Event) -> StepState:
        """Takes in one event and returns the step it concerns."""
        step = self.steps.setdefault(event.step, StepState(event.step, event.time))
        if event.stage == STEP_STAGE:
            step.note = event.note
            step.ended = event.time if event.done >= event.total else None
            return step
        stage = step.stages.get(event.stage)
        if stage is None or event.total != stage.total or event.done < stage.done:
            step.stages[event.stage] = Stage(
                event.stage, event.time, event.done, event.done, event.total, event.time, event.note
            )
        else:
            stage.done, stage.now, stage.note = event.done, event.time, event.note
        return step
