"""One round on this machine: kfp's local runner in a child process, its output in a log, bars on the screen.

lock the line ─► store the run file ─► plan (resume?) ─► child plays the pipeline ─► panel, or one line of error
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from pipelines.closing import print_closing
from pipelines.display import Display, duration, make_display
from pipelines.events import EventReader
from pipelines.faults import find_fault, tail
from pipelines.resume import Plan, give_up, plan
from sparring import __version__
from sparring.config.run import RunConfig
from sparring.errors import SetupError, UsageError
from sparring.progress import EVENTS_VARIABLE
from sparring.registry import rounds
from sparring.registry.lock import hold_line
from sparring.steps.entry import RunRequest, next_step
from sparring.steps.guard import runner_alive
from sparring.steps.work import WORK_VARIABLE, work_folder
from sparring.store.base import Store

EXIT_INVALID: Final = 12
_POLL_SECONDS: Final = 0.15
_GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Files:
    """Local files of one run: the steps' events, everything they print, and the folder of the guard's locks."""

    events: Path
    log: Path
    guards: Path


class Stopped(KeyboardInterrupt):
    """Ctrl-C or a termination; `code` is the exit code by the shell's custom, 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def play_round(config: RunConfig, screen: Console, *, abandon: bool = False) -> int:
    """Plays the next round of the line, or finishes the open one, and returns the exit code of `run`.

    0: decided (PROMOTE, REJECT, INCONCLUSIVE); 12: INVALID; 1 or an error's own code: a fault; 130: Ctrl-C.
    Raises SparringError before the pipeline starts: BusyError when the line is held, StoreError, UsageError.
    """
    with _signals(), hold_line(config.store, config.line):
        request = RunRequest(store=_absolute(config.store), line=config.line, config="")
        store = request.open()
        if abandon:
            screen.print(give_up(store))
        request = request.model_copy(update={"config": rounds.save_config(store, config)})
        ahead = plan(store, request.config)
        files = _files(work_folder(request.store, request.line))
        _greet(screen, request, ahead, files)
        return _play(request, store, ahead, files, screen)


def _play(request: RunRequest, store: Store, ahead: Plan, files: Files, screen: Console) -> int:
    begun, clock = datetime.now(UTC), time.monotonic()
    try:
        with make_display(screen) as display, runner_alive(files.guards) as guard, _scratch() as scratch:
            environment = {**_environment(files), "TMPDIR": scratch, **guard}
            code = _run_child(_command(request, ahead, scratch), environment, files, display)
    except Stopped as stop:
        screen.print(f"stopped: {_where(store)}", highlight=False)
        return stop.code
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise SetupError(what, hint=f"free some space, or set TMPDIR and {WORK_VARIABLE}") from error
    seconds = duration(time.monotonic() - clock)
    end = rounds.load_end(store, ahead.number)
    if end:
        print_closing(screen, store, ahead.number, seconds)
    if end and code == 0:
        return EXIT_INVALID if end.decision == "INVALID" else 0
    return _explain(store, ahead, begun, files, screen)


def _run_child(command: list[str], environment: dict[str, str], files: Files, display: Display) -> int:
    reader = EventReader(files.events)
    with files.log.open("wb") as log:
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                _show(reader, display)
                time.sleep(_POLL_SECONDS)
            _show(reader, display)
        finally:
            _end_group(child)
    return child.returncode


def _show(reader: EventReader, display: Display) -> None:
    for event in reader.read():
        display.show(event)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and every step below it; nothing of a stopped run may go on unseen."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        if _gone(child):
            break
    child.wait()


def _gone(child: subprocess.Popen[bytes]) -> bool:
    """Whether the whole process group is gone soon. Dead processes that nobody reaps count as there: hence a limit."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        child.poll()
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def _explain(store: Store, ahead: Plan, begun: datetime, files: Files, screen: Console) -> int:
    number = ahead.number if rounds.last_round(store) >= ahead.number else 0
    fault = find_fault(store, number, begun, files.log)
    if not fault.expected:
        screen.print(
            tail(files.log, fault.step.replace("_", "-")), style="dim", markup=False, highlight=False, soft_wrap=True
        )
    screen.print(f"log: {files.log}", markup=False, highlight=False, soft_wrap=True)
    again = "run again to go on" if number else "run again to try again"
    if number and fault.exit_code == UsageError.exit_code:  # the round keeps the run file that it began with
        again += ", or with --give-up to begin the next round with a mended run file"
    errors = Console(stderr=True)
    errors.print(f"error: {fault.line} ({again})", style="bold red", markup=False, highlight=False, soft_wrap=True)
    return fault.exit_code


def _where(store: Store) -> str:
    current = rounds.open_round(store)
    if current is None:
        return "run again for the next round"
    return f"run again to go on with round {current.number} at step {next_step(store, current.number)}"


def _greet(screen: Console, request: RunRequest, ahead: Plan, files: Files) -> None:
    screen.print(
        f"sparring {__version__} · line {request.line} · store {request.store}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    screen.print(f"log: {files.log}", style="dim", markup=False, highlight=False, soft_wrap=True)
    for line in ahead.lines:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)


def _files(work: Path) -> Files:
    """Fresh files for this run."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    files = Files(work / "events.jsonl", work / "logs" / f"{stamp}.log", work / "runners")
    try:
        files.log.parent.mkdir(parents=True, exist_ok=True)
        files.events.unlink(missing_ok=True)
    except OSError as error:
        hint = f"set {WORK_VARIABLE} to a folder that this user may write"
        raise SetupError(f"work folder {work}: {error.strerror}", hint=hint) from error
    return files


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Temporary folder of the child and its steps: kfp leaves one file a task there and never removes it."""
    return tempfile.TemporaryDirectory(prefix="sparring-", ignore_cleanup_errors=True)


def _command(request: RunRequest, ahead: Plan, scratch: str) -> list[str]:
    only = ["--report", str(ahead.number)] if ahead.report_only else []
    run = ["--run", request.model_dump_json(), "--root", f"{scratch}/kfp"]
    return [sys.executable, "-m", "pipelines.worker", *run, *only]


def _environment(files: Files) -> dict[str, str]:
    """The child finds `pipelines` also when the clone is neither installed nor the working folder.

    Its steps' threads soon sleep while they wait for each other: as long as OpenMP lets them spin by default, beside
    other work on the same cores each matrix product costs a time slice.
    """
    clone = str(Path(__file__).parent.parent)
    path = os.pathsep.join(part for part in (clone, os.environ.get("PYTHONPATH")) if part)
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", EVENTS_VARIABLE: str(files.events)}
    return {"GOMP_SPINCOUNT": "10000", **os.environ, **own}


def _absolute(url: str) -> str:
    return url if "://" in url else str(Path(url).expanduser().absolute())


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C and a termination end the round in order."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
