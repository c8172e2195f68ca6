"""Where an orchestrator enters: one process a step, the same on a laptop and in a pod.

    request ─► claim or number ─► result there already? ─► lease ─► ledger ─► recorded configuration ─► step ─► result

A step runs at most once to its end: with its result in the store it is skipped, so a run that was killed anywhere is
finished by the next one. Of two runs that took up one round, one plays a step and the other gets a BusyError.
`promote` and `hold` close the round. `report` is written anew until the round is closed.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from sparring.config.run import Name
from sparring.errors import SparringError, StoreError, UsageError
from sparring.monitor import PORT_VARIABLE, ledger
from sparring.progress import Listener, Progress
from sparring.registry import lease, rounds
from sparring.registry.champion import read_log
from sparring.steps.guard import end_with_runner
from sparring.steps.results import GateResult, PromoteResult
from sparring.steps.table import STEPS, Context
from sparring.steps.work import work_folder
from sparring.store import Store, open_store

STEP_STAGE: Final = "step"
"""Stage of the progress events that tell a step's begin (0 of 1) and end (1 of 1, with its outcome as the note)."""

_ROUNDS_BACK: Final = 3
_BEFORE_DECISION: Final = ("prepare", "selfplay", "update_pool", "answer", "judge", "gate")


class RunRequest(BaseModel):
    """What every step is told: the store, the model line and the digest of the run file stored there."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str
    line: Name
    config: str

    def open(self) -> Store:
        """The line's store."""
        return open_store(self.store).scope(f"lines/{self.line}")


def execute(step: str, run: str, round_number: str = "") -> str:
    """Runs `step` of a round unless it is done, and returns its short outcome (prepare: the round, gate: the decision).

    `run`: JSON of a RunRequest. `round_number`: from prepare; empty for prepare, and for a report of the round that
    this run played, else of the one last begun (then "" is returned when there is none). Raises SparringError; the
    ledger holds its text.
    """
    request = _parse(run)
    end_with_runner()
    store = request.open()
    number = _number(step, request, store, round_number)
    if number == 0:
        return ""
    result = rounds.load_result(store, number, step, STEPS[step].result)
    if result is None:
        _refuse_closed(step, store, number)
        result = _alone(step, request, store, number)
    if step in ("promote", "hold"):
        _close(store, number, result)
    return STEPS[step].outcome(result)


def _refuse_closed(step: str, store: Store, number: int) -> None:
    """A round that was given up meanwhile must not be promoted behind its end. Its page may still be drawn."""
    end = rounds.load_end(store, number)
    if end is not None and step != "report":
        raise UsageError(f"round {number} has ended ({end.decision}: {end.reason}): step {step} is too late")


def publish(run: str, key: str, path: str) -> dict[str, float]:
    """Copies the page at `key` to the file `path` and returns the round's numbers, for an orchestrator's own pages.

    Without a page (`key` is "") an empty file and no numbers. Raises StoreError.
    """
    page = Path(path)
    page.parent.mkdir(parents=True, exist_ok=True)
    if not key:
        page.write_bytes(b"")
        return {}
    from sparring.report.metrics import RoundMetrics  # only the report pays for it

    store = _parse(run).open()
    page.write_bytes(store.get(key))
    numbers = RoundMetrics.model_validate_json(store.get(f"{key.rpartition('/')[0]}/metrics.json"))
    rates = {f"{name}.{role}": rate.value for name, by in numbers.rates.items() for role, rate in by.items()}
    return {name: value for name, value in {**rates, **numbers.values}.items() if math.isfinite(value)}


def _parse(run: str) -> RunRequest:
    try:
        return RunRequest.model_validate_json(run)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "run"
        raise UsageError(f'parameter run must be {{"store", "line", "config"}}: {where}: {fault["msg"]}') from error


def _number(step: str, request: RunRequest, store: Store, given: str) -> int:
    if given:
        return int(given)
    if step == "prepare":
        return rounds.claim(store, config_digest=request.config, now=datetime.now(UTC)).number
    if step == "report":
        return _round_of_run(store)
    raise UsageError(f"step {step} needs a round's number")


def _round_of_run(store: Store) -> int:
    """The round that this run played; where it is not known to have played any, the one last begun.

    Another run may have begun a round since: its page is not ours, and ours would be missing.
    """
    run, last = os.environ.get(ledger.RUN_VARIABLE), rounds.last_round(store)
    for number in range(last, max(0, last - _ROUNDS_BACK), -1):
        if run and any(one.run == run for entry in ledger.read(store, number).values() for one in entry.attempts):
            return number
    return last


def _is_final(store: Store, number: int, step: str) -> bool:
    """A page of an open round is not the last one: it leaves no result, so that it is written again."""
    return step != "report" or rounds.load_end(store, number) is not None


def _alone(step: str, request: RunRequest, store: Store, number: int) -> BaseModel:
    """Plays a step that no other run plays. The page may be drawn by two: each draws what there is."""
    if step == "report":
        return _play(step, request, store, number)
    with lease.hold(store, number, step):
        done = rounds.load_result(store, number, step, STEPS[step].result)  # meanwhile
        return done or _play(step, request, store, number)


def _play(step: str, request: RunRequest, store: Store, number: int) -> BaseModel:
    with _Recorded(store, number, step) as record, _shown(step) as listener:
        progress = Progress(step, listener)
        progress.update(STEP_STAGE, 0, 1)
        config = rounds.load_config(store, recorded_config(store, number))
        context = Context(config, store, number, progress, work_folder(request.store, request.line))
        with room(context.work):
            result = STEPS[step].run(context)
        if _is_final(store, number, step):
            rounds.save_result(store, number, step, result)
        record.metrics = _metrics(result)
    progress.update(STEP_STAGE, 1, 1, STEPS[step].note(result))
    return result


@contextmanager
def room(work: Path) -> Iterator[None]:
    """Says in one line that the disk is full, whichever library met it: states, transcripts and models are large."""
    try:
        yield
    except SparringError:
        raise
    except Exception as error:  # safetensors and pyarrow have classes of their own for it
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and os.strerror(errno.ENOSPC) not in str(error):
            raise
        where = getattr(error, "filename", None) or work
        raise StoreError(f"no space left for {where}", hint="free some and run again: it goes on") from error


def _shown(step: str) -> AbstractContextManager[Listener | None]:
    """The metrics of the step while it works, where a port is named for them."""
    if not os.environ.get(PORT_VARIABLE):
        return nullcontext()
    from sparring.monitor.live import serving  # prometheus-client: only who shows them pays for it

    return serving(step)


def recorded_config(store: Store, number: int) -> str:
    """Digest of the run file that the round was claimed with. Raises NotFoundError."""
    return str(json.loads(store.get(f"rounds/{number:06d}/claim.json"))["config_digest"])


def next_step(store: Store, number: int) -> str:
    """The first step of an open round that has no result."""
    for step in _BEFORE_DECISION:
        if rounds.load_result(store, number, step, STEPS[step].result) is None:
            return step
    gate = rounds.load_result(store, number, "gate", GateResult)
    return "promote" if gate and gate.decision == "PROMOTE" else "hold"


class _Recorded:
    """Writes the step's start and end to the ledger, whatever the end is: an error's text, or the metrics."""

    def __init__(self, store: Store, number: int, step: str) -> None:
        self._at = (store, number, step)
        self.metrics: dict[str, float] = {}

    def __enter__(self) -> _Recorded:
        ledger.started(*self._at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        failed = error is not None
        text = describe(error) if error is not None else None
        ledger.finished(*self._at, status="failed" if failed else "ok", metrics=self.metrics, error=text)


def describe(error: BaseException) -> str:
    """One line: the class, which carries the exit code, and the message."""
    text = str(error) if isinstance(error, SparringError) else " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"


def _metrics(result: BaseModel) -> dict[str, float]:
    """The numbers among a result's fields and, by `field.key`, in its mappings."""
    found: dict[str, float] = {}
    for name, value in result.model_dump().items():
        items = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, Mapping) else {name: value}
        found.update((key, float(item)) for key, item in items.items() if isinstance(item, int | float))
    return found


def _close(store: Store, number: int, result: BaseModel) -> None:
    """Ends the round with what promote or hold left in the champion log: promote may have had to hold."""
    assert isinstance(result, PromoteResult)
    record = read_log(store).records[result.record - 1]
    rounds.close(store, number, decision=result.decision, reason=record.reason)
