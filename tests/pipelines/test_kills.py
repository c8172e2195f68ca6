"""kill -9 in every step of real rounds: the next run goes on, and the round ends as if nothing had happened.

Two rounds are played, each killed again and again on its way: a first one whose candidate is promoted, and a second
one with a real training, which ends in a hold. Each is compared with a twin that nobody killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sparring.cli.facts import verified
from sparring.config.run import RunConfig
from sparring.gate.spending import looks
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.steps.results import JudgeResult, ReportResult, SelfplayResult, UpdatePoolResult
from tests.pipelines.memorised import Memory
from tests.pipelines.real_rounds import ROOT, SECONDS, Line, refuses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

Moment = tuple[str, int]
"""A step, and how many lines of the learning curve it shall have written before the kill, in the order of the run."""
TRAINING = {"steps": 3, "learning_rate": 1e-6}


@dataclass(frozen=True)
class Twins:
    """A line after its first promotion, that nobody killed, and the models it came from."""

    line: Line
    first: Path


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    folder, memory = tmp_path_factory.mktemp("twins"), Memory()
    base = memory.save(folder / "base", refuses(memory, harmful=0.05, benign=0.0))
    first = memory.save(folder / "first", refuses(memory, harmful=0.5, benign=0.05))
    line = Line(folder, base)
    assert line.play(line.config(first)) == "PROMOTE"
    return Twins(line, first)


def test_a_promotion_killed_in_each_step(twins: Twins, tmp_path: Path) -> None:
    line = Line(tmp_path, twins.line.base)
    config = line.config(twins.first)
    caught = play_killed(line, config, [("prepare", 0), ("answer", 0), ("gate", 0), ("promote", 0)])
    assert caught >= {"prepare", "answer"}  # the others may be over before the kill arrives
    assert_same(line, twins.line, 1)
    assert line.record().decision == twins.line.record().decision
    assert line.log.champion == twins.line.log.champion is not None


def test_a_training_killed_in_each_step(twins: Twins, tmp_path: Path) -> None:
    twin, line = twins.line.copy(tmp_path / "twin"), twins.line.copy(tmp_path / "killed")
    assert twin.play(twin.config(selfplay=TRAINING)) == "REJECT"
    moments = [("selfplay", 0), ("selfplay", 2), ("judge", 0), ("update_pool", 0), ("hold", 0), ("report", 0)]
    caught = play_killed(line, line.config(selfplay=TRAINING), moments)
    assert caught >= {"selfplay", "judge"}
    assert_same(line, twin, 2)
    assert line.log.champion == twins.line.log.champion
    for step, cls in (("selfplay", SelfplayResult), ("update_pool", UpdatePoolResult), ("judge", JudgeResult)):
        found, wanted = (rounds.load_result(one.store, 2, step, cls) for one in (line, twin))
        assert found is not None and wanted is not None
        numbers = {name for name, value in wanted.model_dump().items() if isinstance(value, int)}
        assert found.model_dump(include=numbers) == wanted.model_dump(include=numbers)


def play_killed(line: Line, config: RunConfig, moments: list[Moment]) -> set[str]:
    """Plays a round, killed at each of the moments, to its end. Returns the steps that a kill stopped on their way."""
    number, caught = rounds.last_round(line.store) + 1, set[str]()
    for moment in moments:
        if line.store.exists(f"rounds/{number:06d}/{moment[0]}/result.json"):
            continue  # steps that do not wait for each other come in any order: this one was over at an earlier kill
        kill_at(line, config, number, moment)
        entry = ledger.read(line.store, number)[moment[0]]
        caught |= {entry.step} if entry.status == "killed" else set()
        assert rounds.last_round(line.store) == number  # each run goes on with the round
    if rounds.load_result(line.store, number, "report", ReportResult) is None:
        done = line.run(config)
        assert done.returncode == 0 and f"round {number} goes on at step" in done.stdout, done.stdout + done.stderr
    return caught


def kill_at(line: Line, config: RunConfig, number: int, moment: Moment) -> None:
    """Runs as a user does, and kills the run with all its processes as soon as the moment has come."""
    step, lines = moment
    before = attempts(line, number, step)
    log = line.folder / "killed.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            line.command(config), cwd=ROOT, env=line.environment, stdout=out, stderr=out, process_group=0
        )
        try:
            wait_for(lambda: attempts(line, number, step) > before and curve(line, number) >= lines, process, log)
        finally:
            kill(process)


def attempts(line: Line, number: int, step: str) -> int:
    if rounds.last_round(line.store) < number:
        return 0
    entry = ledger.read(line.store, number).get(step)
    return len(entry.attempts) if entry else 0


def curve(line: Line, number: int) -> int:
    """Steps of the training so far."""
    key = f"rounds/{number:06d}/selfplay/curves.jsonl"
    return len(line.store.get(key).splitlines()) if line.store.exists(key) else 0


def wait_for(found: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not found():
        assert process.poll() is None, f"the run ended before its kill: {log.read_text()[-3000:]}"
        assert time.monotonic() < end, f"waited in vain: {log.read_text()[-3000:]}"
        time.sleep(0.01)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the run's group and for all that it started, the worker's session too; returns when all are gone."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    end = time.monotonic() + SECONDS
    while not all(map(gone, below)):
        assert time.monotonic() < end, f"still there after SIGKILL: {below}"
        time.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    """Also a dead process that nobody reaps is gone."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def assert_same(line: Line, twin: Line, number: int) -> None:
    """One decision, the same for the same reason; no look more; the same history, whole."""
    store = line.store
    assert rounds.last_round(store) == number and rounds.load_end(store, number) == rounds.load_end(twin.store, number)
    assert rounds.load_result(store, number, "report", ReportResult) is not None
    paid = [(look.round, look.spent, look.alpha) for look in looks(store)]
    assert paid == [(look.round, look.spent, look.alpha) for look in looks(twin.store)] and len(paid) == number
    told = [(record.kind, record.round, record.decision) for record in line.log.records]
    assert told == [(record.kind, record.round, record.decision) for record in twin.log.records]
    assert len(list(verified(store))) > 0  # the chain, the decisions made again, the checkpoints
    assert "failed" not in {entry.status for entry in ledger.read(store, number).values()}
