"""What went wrong, in one line: from the ledger, or from the log when no round was there to write into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sparring import errors
from sparring.monitor import ledger
from sparring.store.base import Store

_RAISED: Final = re.compile(r"^\s*sparring\.errors\.(\w+): (.*)$", re.MULTILINE)
_TAIL_LINES: Final = 15


@dataclass(frozen=True)
class Fault:
    """`expected` is a mistake or condition that sparring knows: its line says everything, no log need be read."""

    line: str
    exit_code: int
    expected: bool


def find_fault(store: Store, number: int, since: datetime, log: Path) -> Fault:
    """The first step that failed since `since` in round `number` (0: no round was claimed)."""
    entries = ledger.read(store, number) if number else {}
    recent = [entry for entry in entries.values() if entry.attempts and entry.attempts[-1].start >= since]
    for entry in sorted(recent, key=lambda entry: entry.attempts[-1].start):
        if entry.status == "killed":
            return Fault(f"step {entry.step} was killed, by hand or for want of memory", 1, expected=False)
        if entry.status == "failed":
            return _of_record(entry.step, entry.attempts[-1].error or "")
    return _of_log(log)


def tail(log: Path) -> str:
    """The last lines of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_TAIL_LINES:])


def _of_record(step: str, text: str) -> Fault:
    name, _, message = text.partition(": ")
    code = _exit_code(name)
    return Fault(f"step {step}: {text if code is None else message}", code or 1, expected=code is not None)


def _of_log(log: Path) -> Fault:
    found = _RAISED.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
    if found:
        name, message = found[-1]
        return Fault(message, _exit_code(name) or 1, expected=True)
    return Fault("the pipeline ended without a record of what went wrong", 1, expected=False)


def _exit_code(name: str) -> int | None:
    """Exit code of one of our error classes; None for any other name."""
    cls = getattr(errors, name, None)
    return cls.exit_code if isinstance(cls, type) and issubclass(cls, errors.SparringError) else None
