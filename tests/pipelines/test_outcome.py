"""What a run on a cluster came to, read from the store alone: by the run's id in every attempt of the ledger."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.backend import Run
from pipelines.follow import _cause
from pipelines.outcome import Outcome, of_run
from sparring.errors import SparringError
from sparring.integrations.after_round import STEP as HOOKS
from sparring.monitor import ledger
from sparring.steps.entry import execute
from tests.pipelines.planted import BASE, BETTER, Planted, plant


def run(planted: Planted, run_id: str, state: str = "FAILED") -> Run:
    return Run(run_id, "a name", state, datetime.now(UTC), "", planted.request)


def found(planted: Planted, run_id: str, state: str = "FAILED") -> Outcome:
    outcome = of_run(planted.store, run(planted, run_id, state))
    assert outcome is not None
    return outcome


def play(planted: Planted, step: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ledger.RUN_VARIABLE, run_id)
    execute(step, planted.request.model_dump_json(), str(planted.number))


def test_the_run_that_closed_the_round_decided_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(tmp_path, BETTER)
    play(planted, "gate", "first", monkeypatch)
    assert str(found(planted, "first", "RUNNING")) == "round 1: at gate"
    assert _cause(found(planted, "first")) == (None, "the run ended after step gate of round 1")
    play(planted, "promote", "second", monkeypatch)
    assert str(found(planted, "second")) == "round 1: PROMOTE" and found(planted, "second").decided
    assert not found(planted, "first").decided
    assert of_run(planted.store, run(planted, "third")) is None
    assert _cause(None) == (None, "the run ended and no step of it has written a record")


def test_a_step_that_failed_gives_its_own_line_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(tmp_path, replace(BASE, asr=0.95))
    play(planted, "gate", "first", monkeypatch)
    with pytest.raises(SparringError):
        play(planted, "promote", "first", monkeypatch)  # held, so promote refuses
    outcome = found(planted, "first")
    code, line = _cause(outcome)
    assert str(outcome) == "round 1: promote failed" and not outcome.decided
    assert code == 2 and line.startswith("step promote: ") and "UsageError" not in line


def test_a_hook_that_failed_is_told_and_leaves_the_round_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant(tmp_path, BETTER)
    for step in ("gate", "promote"):
        play(planted, step, "first", monkeypatch)
    ledger.started(planted.store, 1, HOOKS)
    ledger.finished(planted.store, 1, HOOKS, status="failed", metrics={}, error="chat: answered 500")
    outcome = found(planted, "first", "SUCCEEDED")
    assert (outcome.decided, outcome.failed, outcome.untold) == (True, None, "chat: answered 500")
    assert found(planted, "first").failed is None


def test_a_step_without_an_end_goes_on_while_the_run_does_and_was_killed_after(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    code = "import sys, os, signal; from sparring.monitor import ledger; from sparring.store import open_store; " \
        "ledger.started(open_store(sys.argv[1]), 1, 'judge'); os.kill(os.getpid(), signal.SIGKILL)"  # fmt: skip
    environment = {"SPARRING_RUN": "first", "PATH": ""}
    subprocess.run([sys.executable, "-c", code, planted.store.url], env=environment, check=False)
    assert str(found(planted, "first", "RUNNING")) == "round 1: at judge"
    outcome = found(planted, "first")
    assert str(outcome) == "round 1: judge killed"
    assert _cause(outcome)[1].startswith("step judge of round 1 was killed: ")


def test_a_second_attempt_in_the_same_run_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(tmp_path, BETTER)
    monkeypatch.setenv(ledger.RUN_VARIABLE, "first")
    ledger.started(planted.store, 1, "gate")  # a pod that was lost
    play(planted, "gate", "first", monkeypatch)
    assert found(planted, "first").failed is None
