"""The metric ledger: `ledger/<n>/<step>.json`, one object a step with every attempt at it, whatever became of it.

Each attempt is written at its start and again at its end, so a killed step is seen as a start without an end. Seconds
come from the monotonic clock where one process saw both ends, else from the wall clock, never below zero.
"""

from __future__ import annotations

import os
import re
import socket
import time
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from sparring.errors import CorruptError, NotFoundError
from sparring.store.base import Store
from sparring.store.keys import check_key

SCHEMA_VERSION = 1
RUN_VARIABLE: Final = "SPARRING_RUN"
"""Environment variable with the orchestrator's id of the run that a step belongs to."""
_KEY = re.compile(r"ledger/(\d{6,})/([^/]+)\.json")
BEAT_SECONDS: Final = 30.0
_MOST_ERROR = 4000  # characters: a traceback of a thousand lines helps nobody

Status = Literal["ok", "failed", "killed"]


class Attempt(BaseModel):
    """One attempt. `end`, `seconds` and `status` are None in the store while it has no end.

    `run` is the orchestrator's id of the run, "" where it has none. `beat` is when a long step last said that it lives:
    `done` of `planned` units, and about `remaining` seconds to go.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    start: AwareDatetime
    host: str
    pid: int
    clock: float
    run: str = ""
    end: AwareDatetime | None = None
    seconds: float | None = None
    status: Status | None = None
    metrics: dict[str, float] = {}
    error: str | None = None
    beat: AwareDatetime | None = None
    done: int = 0
    planned: int = 0
    remaining: float | None = None


class LedgerEntry(BaseModel):
    """All attempts at one step of one round, in order. As read, an attempt without end has status `killed`."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    schema_version: int = SCHEMA_VERSION
    round: int
    step: str
    attempts: tuple[Attempt, ...] = ()

    @property
    def status(self) -> Status:
        """How the last attempt ended."""
        return (self.attempts[-1].status if self.attempts else None) or "killed"

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last attempt."""
        return self.attempts[-1].metrics if self.attempts else {}

    @property
    def seconds(self) -> float:
        """Time spent on the step in all attempts that ended."""
        return sum(attempt.seconds or 0.0 for attempt in self.attempts)


def started(store: Store, round: int, step: str) -> None:
    """Records the start of an attempt. Earlier attempts without end stay as they are."""
    entry = _load(store, round, step)
    attempt = Attempt(
        start=datetime.now(UTC),
        host=socket.gethostname(),
        pid=os.getpid(),
        clock=time.monotonic(),
        run=os.environ.get(RUN_VARIABLE, ""),
    )
    _save(store, entry, (*entry.attempts, attempt))


def beat(store: Store, round: int, step: str, done: int, planned: int, remaining: float) -> None:
    """Records that the last attempt lives. Within `BEAT_SECONDS` of the last time nothing is written."""
    entry, now = _load(store, round, step), datetime.now(UTC)
    if not entry.attempts or entry.attempts[-1].end is not None:
        return
    last = entry.attempts[-1]
    if done < planned and last.beat is not None and (now - last.beat).total_seconds() < BEAT_SECONDS:
        return
    said = {"beat": now, "done": done, "planned": planned, "remaining": max(0.0, remaining)}
    _save(store, entry, (*entry.attempts[:-1], last.model_copy(update=said)))


def finished(
    store: Store,
    round: int,
    step: str,
    *,
    status: Literal["ok", "failed"],
    metrics: dict[str, float],
    error: str | None,
) -> None:
    """Records the end of the last attempt; without a start (its object was lost) the end alone is kept."""
    entry = _load(store, round, step)
    if not entry.attempts or entry.attempts[-1].end is not None:
        started(store, round, step)
        entry = _load(store, round, step)
    last = entry.attempts[-1]
    end = datetime.now(UTC)
    done = last.model_copy(
        update={
            "end": end,
            "seconds": _seconds(last, end),
            "status": status,
            "metrics": {name: float(value) for name, value in metrics.items()},
            "error": error[:_MOST_ERROR] if error else None,
        }
    )
    _save(store, entry, (*entry.attempts[:-1], done))


def read(store: Store, round: int) -> dict[str, LedgerEntry]:
    """Entries of a round by step; attempts without end have status `killed`. Raises CorruptError."""
    return {step: entry for _, step, entry in _entries(store, f"ledger/{round:06d}/")}


def history(store: Store) -> list[tuple[int, str, LedgerEntry]]:
    """All entries, by round and step, as `read` gives them. Raises CorruptError."""
    return _entries(store, "ledger/")


def _entries(store: Store, prefix: str) -> list[tuple[int, str, LedgerEntry]]:
    found = (match for match in map(_KEY.fullmatch, store.list(prefix)) if match)
    named = sorted((int(match[1]), match[2]) for match in found)
    return [(round, step, _noticed(_load(store, round, step))) for round, step in named]


def _noticed(entry: LedgerEntry) -> LedgerEntry:
    attempts = tuple(
        attempt.model_copy(update={"status": "killed"}) if attempt.status is None else attempt
        for attempt in entry.attempts
    )
    return entry.model_copy(update={"attempts": attempts})


def _seconds(attempt: Attempt, end: datetime) -> float:
    if (attempt.host, attempt.pid) == (socket.gethostname(), os.getpid()):
        return max(0.0, time.monotonic() - attempt.clock)
    return max(0.0, (end - attempt.start).total_seconds())


def _load(store: Store, round: int, step: str) -> LedgerEntry:
    key = _key(round, step)
    try:
        return LedgerEntry.model_validate_json(store.get(key))
    except NotFoundError:
        return LedgerEntry(round=round, step=step)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"ledger {key!r} in {store.url} cannot be read: {where}: {fault['msg']}") from error


def _save(store: Store, entry: LedgerEntry, attempts: tuple[Attempt, ...]) -> None:
    store.put(_key(entry.round, entry.step), entry.model_copy(update={"attempts": attempts}).model_dump_json().encode())


def _key(round: int, step: str) -> str:
    return f"ledger/{round:06d}/{check_key(step)}.json"
