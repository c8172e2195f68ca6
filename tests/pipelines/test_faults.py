"""What a failed local run is said to have died of."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.faults import find_fault
from pipelines.local import Files, _greet
from pipelines.resume import Plan
from sparring.monitor import ledger
from sparring.steps.entry import RunRequest
from sparring.store import open_store


@pytest.mark.parametrize(
    ("log", "words", "code"),
    [
        ("sparring.errors.StoreError: cannot write x: No space left on device\n", "No space left on device", 1),
        ("the last words of a step\n", "step judge was killed", 1),
    ],
)
def test_a_step_that_could_not_even_record_its_failure_is_not_called_killed(
    log: str, words: str, code: int, tmp_path: Path
) -> None:
    store, since = open_store(str(tmp_path / "store")), datetime.now(UTC)
    ledger.started(store, 1, "judge")
    (tmp_path / "log").write_text(log)
    fault = find_fault(store, 1, since, tmp_path / "log")
    assert words in fault.line and fault.exit_code == code


def test_brackets_in_a_path_are_shown_as_they_are(tmp_path: Path) -> None:
    screen = Console(width=200, record=True, file=io.StringIO())
    request = RunRequest(store="/tmp/a[/b]/[old]", line="default", config="")
    _greet(screen, request, Plan(1, "prepare", ("round 1 begins [now]",)), Files(*[tmp_path / "[x]"] * 3))
    said = screen.export_text()
    assert "store /tmp/a[/b]/[old]" in said and "[now]" in said and "[x]" in said
