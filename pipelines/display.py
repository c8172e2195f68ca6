"""Shows a running round: bars with remaining time on a terminal, plain lines elsewhere. Both only read `RoundState`."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipelines.events import RoundState, Stage, StepState
from sparring.progress import Event
from sparring.steps.entry import STEP_STAGE

_PLAIN_SECONDS: Final = 30.0
_BAR_WIDTH: Final = 28


class Display(Protocol):
    """Shows events of a round while it is entered."""

    def __enter__(self) -> Display:
        """Begins to show."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Leaves the terminal as it was, with one line for each finished step."""

    def show(self, event: Event) -> None:
        """Takes in one event."""


def make_display(console: Console) -> Display:
    """Bars where there is a terminal to draw on, else plain lines."""
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Bars:
    """A line for each finished step above the bars of the running one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = RoundState()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self.renderable, refresh_per_second=8, transient=True)

    def __enter__(self) -> Bars:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.__exit__(kind, error, tb)

    def show(self, event: Event) -> None:
        """Takes in one event; a step's end becomes a line that stays."""
        step = self._state.apply(event)
        if event.stage == STEP_STAGE and step.ended:
            self._console.print(finished_line(step))

    def renderable(self) -> RenderableType:
        """The bars of the steps that are running, the latest stage last."""
        running = [step for step in self._state.steps.values() if not step.ended]
        if not running:
            return Text("")
        return Group(*(self._bars(step) for step in running))

    def _bars(self, step: StepState) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(width=12)
        stages = list(step.stages.values()) or [Stage("", step.begun, 0, 0, 0, step.begun)]
        for index, stage in enumerate(stages):
            head = (self._spinner, step.name) if index == 0 else ("", "")
            left = remaining_text(stage, time.time())
            grid.add_row(*head, stage.name, _bar(stage), _count(stage), left, Text(stage.note, "dim"))
        return grid


class Lines:
    """For logs: the begin and end of each step, and each stage at most every half minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = RoundState()
        self._said: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def show(self, event: Event) -> None:
        """Takes in one event and prints what is due."""
        step = self._state.apply(event)
        if event.stage == STEP_STAGE:
            self._print(finished_line(step) if step.ended else Text(f"… {step.name}"))
            return
        key = (event.step, event.stage)
        if event.done >= event.total or event.time - self._said.get(key, step.begun) >= _PLAIN_SECONDS:
            self._said[key] = event.time
            self._print(stage_line(step, step.stages[event.stage]))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def finished_line(step: StepState) -> Text:
    """`✓ selfplay     6 min 12 s  candidate 3f2a`."""
    return Text.assemble(
        ("✓ ", "green"), f"{step.name:<12} ", (f"{duration(step.seconds):>11}", "cyan"), f"  {step.note}"
    )


def stage_line(step: StepState, stage: Stage) -> Text:
    """`  selfplay: games 4/12, 5 min 0 s left, loss 0.31`."""
    left = remaining_text(stage) if stage.done < stage.total else ""
    parts = [f"  {step.name}: {stage.name} {_count(stage)}", left, stage.note]
    return Text(", ".join(part for part in parts if part))


def remaining_text(stage: Stage, now: float | None = None) -> str:
    """`5 min 0 s left`; empty while nothing is known."""
    if stage.total and stage.done >= stage.total:
        return "done"
    seconds = stage.remaining(now)
    return "" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """`12 s`, `6 min 12 s`, `1 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _bar(stage: Stage) -> ProgressBar:
    return ProgressBar(total=stage.total or None, completed=stage.done, width=_BAR_WIDTH, pulse=not stage.total)


def _count(stage: Stage) -> str:
    return f"{stage.done}/{stage.total}" if stage.total else ""
