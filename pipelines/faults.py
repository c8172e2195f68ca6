"""What went wrong, in one line: from the ledger, or from the log when no round was there to write into."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sparring import errors
from sparring.monitor import ledger
from sparring.store.base import Store

_RAISED: Final = re.compile(r"^\s*sparring\.errors\.(\w+): (.*)$", re.MULTILINE)
_COLOUR: Final = re.compile(r"\x1b\[\d*m")
_TAIL_LINES: Final = 15


@dataclass(frozen=True)
class Fault:
    """`expected` is a mistake or condition that sparring knows: its line says everything, no log need be read."""

    step: str
    line: str
    exit_code: int
    expected: bool


def find_fault(store: Store, number: int, since: datetime, log: Path) -> Fault:
    """The first step that failed since `since` in round `number` (0: no round was claimed)."""
    entries = ledger.read(store, number) if number else {}
    recent = [entry for entry in entries.values() if entry.attempts and entry.attempts[-1].start >= since]
    for entry in sorted(recent, key=lambda entry: entry.attempts[-1].start):
        if entry.status == "killed":
            killed = f"step {entry.step} was killed, by hand or for want of memory"
            # one that could not even write its record (disk full, store gone) said so in the log
            return raised(_text(log)) or Fault(entry.step, killed, 1, expected=False)
        if entry.status == "failed":
            return fault_of_record(entry.step, entry.attempts[-1].error or "")
    return _of_log(log)


def tail(log: Path, step: str) -> str:
    """The last lines of what `step` printed (empty: of the whole log), without kfp's indent and colours."""
    lines = _COLOUR.sub("", _text(log)).splitlines()
    begin = max((row for row, line in enumerate(lines) if f"Executing task '{step}'" in line), default=0)
    end = next((row for row in range(begin, len(lines)) if f"Task '{step}' finished" in lines[row]), len(lines))
    said = [line for line in lines[begin:end] if line.strip()]
    return textwrap.dedent("\n".join(said[-_TAIL_LINES:]))


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def fault_of_record(step: str, text: str) -> Fault:
    """What a ledger's record `Class: message` says."""
    name, _, message = text.partition(": ")
    code = _exit_code(name)
    return Fault(step, f"step {step}: {text if code is None else message}", code or 1, expected=code is not None)


def raised(log: str) -> Fault | None:
    """The last of our errors in what a step printed; None when there is none."""
    found = _RAISED.findall(_COLOUR.sub("", log))
    if not found:
        return None
    name, message = found[-1]
    return Fault("", message, _exit_code(name) or 1, expected=True)


def _of_log(log: Path) -> Fault:
    unknown = Fault("", "the pipeline ended without a record of what went wrong", 1, expected=False)
    return raised(_text(log)) or unknown


def _exit_code(name: str) -> int | None:
    """Exit code of one of our error classes; None for any other name."""
    cls = getattr(errors, name, None)
    return cls.exit_code if isinstance(cls, type) and issubclass(cls, errors.SparringError) else None
