"""A lease on one step of a round, so that two runs that took up the same round do not both play it.

    free, given back or dead? ─► claim the next number ─► beat while the step runs ─► give back
    beating?                  ─► BusyError
    silent for a minute?      ─► claim the next number; whoever was silent finds it and ends

No clocks are compared: who waits looks whether the holder's count moves, by its own clock. Correctness does not rest on
it: results, decisions and the champion log are claimed put-if-absent. It saves a second training, and the records of
the first from being mixed with the second's.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from sparring.errors import BusyError, CorruptError, NotFoundError, StoreError
from sparring.store.base import Store
from sparring.store.keys import check_key

BEAT: Final = 15.0
"""Seconds between two beats of a holder."""
PATIENCE: Final = 60.0
"""Seconds of silence after which a holder is taken for dead."""
_LOOKS: Final = 20  # so often a waiting run looks in that time
_KEY: Final = re.compile(r".*/(\d{6,})\.json")
_held: set[str] = set()  # nonces of this process


class _Holder(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1
    nonce: str
    host: str
    pid: int
    beat: int = 0
    released: bool = False


@dataclass(frozen=True)
class _Place:
    """Where the leases of one step of one round lie: below the ledger, which every step may write."""

    store: Store
    round: int
    step: str

    @property
    def folder(self) -> str:
        return f"ledger/{self.round:06d}/{check_key(self.step)}.leases/"

    def key(self, number: int) -> str:
        return f"{self.folder}{number:06d}.json"

    def last(self) -> tuple[int, _Holder | None]:
        """The highest number and its holder; 0 and None when there never was one."""
        matches = (_KEY.fullmatch(key) for key in self.store.list(self.folder))
        number = max((int(match[1]) for match in matches if match), default=0)
        return number, self._load(number) if number else None

    def _load(self, number: int) -> _Holder | None:
        try:
            return _Holder.model_validate_json(self.store.get(self.key(number)))
        except NotFoundError:
            return None
        except ValidationError as error:
            raise CorruptError(f"{self.key(number)!r} in {self.store.url} is not what was written") from error


@contextlib.contextmanager
def hold(store: Store, round: int, step: str, *, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the step while the block runs.

    A holder that is dead or silent for `patience` seconds is succeeded, after that time at the latest. Loses the step
    to a successor: then this process ends. Raises BusyError when another run holds it and lives.
    """
    place = _Place(store, round, step)
    mine = _Holder(nonce=uuid.uuid4().hex, host=socket.gethostname(), pid=os.getpid())
    _held.add(mine.nonce)
    try:
        number = _acquire(place, mine, patience)
        with _beating(place, number, mine, beat):
            yield
    finally:
        _held.discard(mine.nonce)


@dataclass(frozen=True)
class Beat:
    """A sign of life: it differs from the one before as long as the holder lives."""

    number: int
    nonce: str
    count: int
    released: bool


def last_beat(store: Store, round: int, step: str) -> Beat | None:
    """The last sign of life of whoever holds or held the step; None when nobody ever did. Raises CorruptError."""
    number, holder = _Place(store, round, step).last()
    return Beat(number, holder.nonce, holder.beat, holder.released) if holder else None


def _acquire(place: _Place, mine: _Holder, patience: float) -> int:
    """The number under which the step is now ours."""
    while True:
        number, holder = place.last()
        if holder is not None and not holder.released and not _dead(holder):
            _wait(place, number, holder, patience)
        if place.store.put_if_absent(place.key(number + 1), mine.model_dump_json().encode()):
            return number + 1


def _wait(place: _Place, number: int, holder: _Holder, patience: float) -> None:
    """Returns when the holder gave the step back or was silent for `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(patience / _LOOKS)
        found = place.last()
        if found[1] is not None and found[1].released:
            return
        if found != (number, holder):
            who = f"process {holder.pid} on {holder.host}"
            raise BusyError(
                f"step {place.step} of round {place.round} is being played by {who}", hint="wait until that run ends"
            )


def _dead(holder: _Holder) -> bool:
    """Whether the holder ran on this machine and its process is gone. Of other machines nothing is known."""
    if holder.host != socket.gethostname():
        return False
    if holder.pid == os.getpid():
        return holder.nonce not in _held
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(holder.pid)


def _is_zombie(pid: int) -> bool:
    """Whether the process is dead and not reaped yet; False where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][0] == "Z"
    except (OSError, IndexError):
        return False


@contextlib.contextmanager
def _beating(place: _Place, number: int, mine: _Holder, beat: float) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(place, number, mine, beat, stop), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(StoreError):  # the next one waits a minute then; the step's own end must be told
            place.store.put(place.key(number), mine.model_copy(update={"released": True}).model_dump_json().encode())


def _beat(place: _Place, number: int, mine: _Holder, beat: float, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(beat):
        count += 1
        with contextlib.suppress(StoreError):  # a store that does not answer stops the step itself, not its lease
            if place.store.exists(place.key(number + 1)):
                print(f"step {place.step} of round {place.round} was taken over by another run", file=sys.stderr)
                sys.stderr.flush()
                os._exit(1)
            place.store.put(place.key(number), mine.model_copy(update={"beat": count}).model_dump_json().encode())
