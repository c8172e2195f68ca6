"""One run at a time a model line on this machine. The kernel drops the lock with the process, however it ends.

Between machines nothing is locked: there the champion log's put-if-absent decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sparring.errors import BusyError, StoreError
from sparring.store.canonical import sha256


@contextlib.contextmanager
def hold_line(url: str, line: str) -> Iterator[None]:
    """Holds the lock of one line of one store while the block runs.

    Raises BusyError naming the holder, and StoreError where this machine has no room for the lock's file.
    """
    handle = _open(_folder() / f"{_name(url, line)}.lock")
    try:
        _take(handle, url, line)
        yield
    finally:
        os.close(handle)  # the file stays: removing it would let two runs lock two files of one name


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the lock {path}: {error.strerror}", hint="set TMPDIR") from error


def _take(handle: int, url: str, line: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "since": _now()}).encode(), 0)
    except BlockingIOError:
        raise BusyError(f"line {line!r} of {url} is held by {_holder(handle)}", hint="wait for it or end it") from None
    except OSError as error:
        raise StoreError(f"cannot hold the lock of line {line!r}: {error.strerror}", hint="set TMPDIR") from error


def _name(url: str, line: str) -> str:
    """Two spellings of one folder are one store; two endpoints are two."""
    where = url if "://" in url else str(Path(url).expanduser().resolve())
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return sha256(json.dumps([where.rstrip("/"), endpoint if "://" in url else "", line]).encode())


def _folder() -> Path:
    """A folder of this user alone: in a shared one another user could hold or replace our locks."""
    try:
        folder = Path(tempfile.gettempdir()) / f"sparring-locks-{os.getuid()}"
    except OSError as error:  # it writes a file to see where one can
        raise StoreError(
            "no temporary folder can be written: the disk is full, or none is allowed",
            hint="free some space, or set TMPDIR",
        ) from error
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StoreError(f"cannot make the lock folder {folder}: {error.strerror}", hint="set TMPDIR") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StoreError(f"lock folder {folder} is not a folder of this user alone", hint="remove it or set TMPDIR")
    return folder


def _holder(handle: int) -> str:
    try:
        found = json.loads(os.pread(handle, 1000, 0))
        return f"process {found['pid']} since {found['since']}"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not written yet
        return "a process that has just begun"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
