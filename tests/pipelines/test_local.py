"""Real rounds under kfp's own local runner: both branches, faults, kills, Ctrl-C, two at once.

Rounds are planted up to the judge (`planted.py`), or stopped in `prepare`, so that none needs a training.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sparring.config.run import RunConfig
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.registry.lock import hold_line
from sparring.steps.entry import RunRequest, execute, next_step
from sparring.steps.results import ReportResult
from sparring.store import Store, open_store
from tests.conftest import Seaweed
from tests.pipelines.planted import BASE, BETTER, Planted, plant

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
SECONDS = 280.0


def command(store: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", "run", "--config", str(ROOT / "sparring.yaml"), "--store", store, *more]


def run(store: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(store, *more), cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)


def line_of(store: str) -> Store:
    return open_store(store).scope("lines/default")


@contextmanager
def started(store: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A run in the background, in a process group of its own as a shell would give it."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command(store, *more), cwd=ROOT, stdout=pipe, stderr=pipe, text=True, process_group=0)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(found: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def step_processes(store: str) -> list[psutil.Process]:
    """Live processes that kfp started for this store's steps, and the worker itself."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if store in words and "pipelines run" not in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def in_prepare(store: str) -> bool:
    """Whether the round is claimed and its first step at work."""
    line = line_of(store)
    return rounds.last_round(line) == 1 and "prepare" in ledger.read(line, 1)


# --- both branches ------------------------------------------------------------------------------------------------


def test_promote_branch(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    done = run(planted.request.store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 1 goes on at step gate" in done.stdout and "round 1: PROMOTE" in done.stdout
    assert read_log(planted.store).champion == planted.candidate
    assert_finished(planted, done.stdout, "promote", "hold")


def test_hold_branch(tmp_path: Path) -> None:
    planted = plant(tmp_path, replace(BASE, asr=0.88))
    done = run(planted.request.store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 1: REJECT" in done.stdout or "round 1: INCONCLUSIVE" in done.stdout
    assert read_log(planted.store).champion is None and read_log(planted.store).head == 1
    assert_finished(planted, done.stdout, "hold", "promote")


def assert_finished(planted: Planted, said: str, played: str, skipped: str) -> None:
    """The round is closed by the right branch alone, and its page is where the last line says."""
    steps = ledger.read(planted.store, planted.number)
    assert steps[played].status == "ok" and skipped not in steps
    assert rounds.load_end(planted.store, planted.number) is not None
    page = rounds.load_result(planted.store, planted.number, "report", ReportResult)
    assert page is not None and page.path is not None and Path(page.path).is_file()
    assert page.path in said


def test_an_evaluation_that_can_carry_no_decision_exits_12(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    missing = f"rounds/{planted.number:06d}/judge/candidate.parquet"
    planted.store.put(missing, b"PAR1 not a table PAR1")
    done = run(planted.request.store)
    assert done.returncode == 12, done.stdout + done.stderr
    assert "round 1: INVALID" in done.stdout
    assert read_log(planted.store).champion is None


def test_the_runner_on_s3(s3_environment: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    planted = plant(tmp_path, BETTER, url=f"s3://{s3_environment.bucket}/{secrets.token_hex(8)}")
    done = run(planted.request.store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_log(planted.store).champion == planted.candidate
    assert f"{planted.store.url}/rounds/000001/report/index.html" in done.stdout
    assert list((tmp_path / "cache").rglob("*.log")) and s3_environment.secret_key not in done.stdout


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_fault_is_one_line_with_the_steps_own_words(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    done = run(store, "--set", f"data.harmful=[{tmp_path}/no-such.jsonl]")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: step prepare: ")
    assert "no-such.jsonl" in done.stderr and "Traceback" not in done.stdout
    assert rounds.open_round(line_of(store)) is not None


def test_a_round_that_never_got_going_makes_way_for_a_mended_configuration(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    broken = ("--set", f"data.harmful=[{tmp_path}/no-such.jsonl]")
    assert run(store, *broken).returncode == 2
    assert "round 1 goes on at step prepare" in run(store, *broken).stdout
    other = run(store, "--set", f"data.harmful=[{tmp_path}/other.jsonl]")
    assert "round 1 is given up" in other.stdout and "round 2 begins" in other.stdout
    end = rounds.load_end(line_of(store), 1)
    assert end is not None and end.decision == "INVALID"


def test_an_unforeseen_fault_shows_the_end_of_the_log(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    planted.store.put("champion/log/000001.json", b"{}")
    done = run(planted.request.store)
    assert done.returncode == 1
    assert "log: " in done.stdout and done.stderr.startswith("error: step gate: ")
    assert rounds.open_round(planted.store) is not None


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file stands where the store should be")
    done = run(str(tmp_path / "store"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "store" in done.stderr


# --- kills --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_its_steps_and_says_how_to_go_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    with started(store) as process:
        wait_for(lambda: in_prepare(store), "prepare")
        os.killpg(process.pid, number)
        said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors
    assert "run again to go on with round 1 at step prepare" in said and "Traceback" not in errors
    assert not step_processes(store)
    assert next_step(line_of(store), 1) == "prepare"


def test_steps_end_with_a_runner_that_was_killed(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    with started(store) as process:
        wait_for(lambda: in_prepare(store), "prepare")
        process.kill()
        process.wait()
        wait_for(lambda: not step_processes(store), "the steps to end")
    with hold_line(store, "default"):  # and the line is free
        pass


def test_a_killed_step_is_named_and_leaves_the_round_open(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    rounds.close(planted.store, planted.number, decision="INVALID", reason="makes way for a round that has to prepare")
    store = planted.request.store
    with started(store) as process:
        wait_for(
            lambda: rounds.last_round(planted.store) == 2 and "prepare" in ledger.read(planted.store, 2), "prepare"
        )
        pid = ledger.read(planted.store, 2)["prepare"].attempts[-1].pid
        os.kill(pid, signal.SIGKILL)
        said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, said
    assert errors.startswith("error: step prepare was killed") and errors.count("\n") == 1
    assert rounds.open_round(planted.store) is not None


@pytest.mark.parametrize("lost", ["gate", "promote", "report"])
def test_whatever_a_kill_left_undone_the_next_run_does(lost: str, tmp_path: Path) -> None:
    """The store as a kill leaves it: the step began, its result is missing, what comes after it never was."""
    planted = plant(tmp_path, BETTER)
    for step in ("gate", "promote", "report"):
        if step == lost:
            ledger.started(planted.store, planted.number, step)
            break
        execute(step, planted.request.model_dump_json(), str(planted.number))
    done = run(planted.request.store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"round 1 goes on at step {lost}" in done.stdout and "round 1: PROMOTE" in done.stdout
    assert read_log(planted.store).head == 1 and rounds.last_round(planted.store) == 1
    assert_finished(planted, done.stdout, "promote", "hold")


# --- two at once, settings ------------------------------------------------------------------------------------------


def test_a_line_that_is_held_is_refused_at_once(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    with hold_line(store, "default"):
        done = run(store)
        assert done.returncode == 1
        assert f"process {os.getpid()}" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_resumed_round_says_that_it_keeps_its_own_configuration(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER, RunConfig.model_validate({"seed": 7, "gate": {"approve_first_run": True}}))
    done = run(planted.request.store, "--seed", "8")
    assert "finished with the configuration it began with" in done.stdout


def test_an_undecided_round_can_be_given_up_and_a_decided_one_cannot(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    store, broken = planted.request.store, ("--give-up", "--set", f"data.harmful=[{tmp_path}/no-such.jsonl]")
    assert "round 1 is given up" in run(store, *broken).stdout
    decided = plant(tmp_path / "decided", BETTER)
    execute("gate", decided.request.model_dump_json(), "1")
    done = run(decided.request.store, "--give-up")
    assert done.returncode == 2 and "can only be finished" in done.stderr


def test_an_interpreter_in_a_folder_with_a_blank_in_its_name(tmp_path: Path) -> None:
    planted = plant(tmp_path / "my store", BETTER)
    python = tmp_path / "my venv" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])}
    done = subprocess.run(
        [str(python), *command(planted.request.store)[1:]],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_request_is_json_without_braces_that_argo_would_replace() -> None:
    request = RunRequest(store="s3://bucket/prefix", line="default", config="0" * 64).model_dump_json()
    assert "{{" not in request and "}}" not in request and set(json.loads(request)) == {"store", "line", "config"}
