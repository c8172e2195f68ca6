"""Events become bars or lines: nothing is lost or shown twice, and the remaining time is the plain arithmetic."""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.display import Bars, Lines, duration, make_display
from pipelines.events import EventReader, RoundState
from sparring.progress import Event
from sparring.steps.entry import STEP_STAGE

NAMES = st.sampled_from(["games", "warm start", "éß", "a b"])
EVENTS = st.builds(
    Event, step=NAMES, stage=NAMES, done=st.integers(0, 9), total=st.integers(1, 9), time=st.floats(0, 1e6), note=NAMES
)


def line(event: Event) -> bytes:
    return json.dumps(asdict(event), ensure_ascii=False).encode() + b"\n"


@given(st.lists(EVENTS, max_size=8), st.lists(st.integers(0, 2000), max_size=8))
def test_every_event_is_read_once_however_the_file_grows(events: list[Event], cuts: list[int]) -> None:
    data = b"".join(line(event) for event in events)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        reader = EventReader(path)
        assert list(reader.read()) == []
        found = []
        for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            path.write_bytes(data[:cut])
            found += list(reader.read())
    assert found == events


def test_a_broken_line_is_left_out(tmp_path: Path) -> None:
    good = Event("selfplay", "games", 1, 2, 3.0)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": "self\n' + line(good) + b'{"unknown": 1}\n[]\n')
    assert list(EventReader(path).read()) == [good]


def test_remaining_time_is_the_mean_time_of_a_unit_times_what_is_left() -> None:
    state = RoundState()
    for done in range(5):
        step = state.apply(Event("selfplay", "games", done, 12, 100.0 + 10.0 * done))
    assert step.stages["games"].remaining() == 80.0
    assert step.stages["games"].remaining(now=145.0) == 75.0
    assert step.stages["games"].remaining(now=1e6) == 0.0


def test_remaining_time_is_unknown_at_first_and_nothing_at_the_end() -> None:
    state = RoundState()
    step = state.apply(Event("answer", "candidate", 3, 4, 0.0))
    assert step.stages["candidate"].remaining() is None
    step = state.apply(Event("answer", "candidate", 4, 4, 7.0))
    assert step.stages["candidate"].remaining() == 0.0


def test_a_stage_that_begins_again_is_timed_anew() -> None:
    state = RoundState()
    for event in (Event("s", "a", 5, 6, 0.0), Event("s", "a", 0, 6, 50.0), Event("s", "a", 1, 6, 52.0)):
        step = state.apply(event)
    assert step.stages["a"].remaining() == 10.0


def test_duration() -> None:
    assert [duration(s) for s in (-1, 0.4, 59.6, 372, 3600, 3900)] == [
        "0 s", "0 s", "1 min 0 s", "6 min 12 s", "1 h 0 min", "1 h 5 min",
    ]  # fmt: skip


def played(begin: float = 10.0) -> list[Event]:
    """A step that runs for two minutes with an event each second."""
    stage = [Event("selfplay", "games", done, 120, begin + done, f"loss {done}") for done in range(121)]
    end = Event("selfplay", STEP_STAGE, 1, 1, begin + 120.0, "candidate abc")
    return [Event("selfplay", STEP_STAGE, 0, 1, begin), *stage, end]


def test_a_log_gets_the_begin_the_end_and_a_line_each_half_minute() -> None:
    console = Console(file=io.StringIO(), width=100)
    display = make_display(console)
    assert isinstance(display, Lines)
    with display:
        for event in played():
            display.show(event)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "… selfplay",
        "  selfplay: games 30/120, 1 min 30 s left, loss 30",
        "  selfplay: games 60/120, 1 min 0 s left, loss 60",
        "  selfplay: games 90/120, 30 s left, loss 90",
        "  selfplay: games 120/120, loss 120",
        "✓ selfplay       2 min 0 s  candidate abc",
    ]


def test_a_terminal_gets_bars_while_the_step_runs_and_one_line_at_its_end() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, legacy_windows=False)
    display = make_display(console)
    assert isinstance(display, Bars)
    *running, end = played(time.time() - 60.0)
    with display:
        for event in running[:62]:
            display.show(event)
        with console.capture() as captured:
            console.print(display.renderable())
        display.show(end)
        assert console.render_str(str(display.renderable())).plain == ""
    shown = captured.get()
    assert all(text in shown for text in ("selfplay", "games", "60/120", " left", "loss 60", "━"))
    assert "candidate abc" in console.file.getvalue()  # type: ignore[attr-defined]


def test_markup_in_a_note_is_shown_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Lines(console) as display:
        display.show(Event("gate", "decide", 1, 1, 0.0, "[red]REJECT[/red] [/]"))
    assert "[red]REJECT[/red] [/]" in console.file.getvalue()  # type: ignore[attr-defined]
