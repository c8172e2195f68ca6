"""Files beside the store: read in a stream, written aside and then renamed. Errors are one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sparring.errors import NotFoundError, StoreError

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_HINTS = {
    errno.ENOSPC: "free some space or set another store",
    errno.EDQUOT: "free some space or set another store",
    errno.EFBIG: "the file size limit (ulimit -f) is too small",
    errno.EACCES: "give this user the right to read and write there, or set another store",
    errno.EPERM: "give this user the right to read and write there, or set another store",
    errno.EROFS: "the file system is read-only: set another store",
    errno.ENOTDIR: "a file stands where the store needs a folder: move it away or set another store",
    errno.EEXIST: "a file stands where the store needs a folder: move it away or set another store",
    errno.EISDIR: "a folder stands where the store needs a file: move it away or set another store",
    errno.EXDEV: "the store must lie on one file system",
}


@contextlib.contextmanager
def file_errors(action: str, path: Path, key: str | None = None) -> Iterator[None]:
    """Turns OSError into one clear line; with `key`, a name that leads nowhere is NotFoundError."""
    try:
        yield
    except OSError as error:
        if key is not None and error.errno in _ABSENT:
            raise NotFoundError(f"no object {key!r} in the store ({path})") from error
        hint = _HINTS.get(error.errno or 0)
        raise StoreError(f"cannot {action} {path}: {error.strerror or error}", hint=hint) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading. Raises StoreError."""
    with file_errors("read", path), path.open("rb") as file:
        yield file


@contextlib.contextmanager
def writing_aside(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` when the block ends well, and not at all when it does not. Raises StoreError."""
    aside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
    with file_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("xb") as file:
                yield file
                settle(file)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def settle(file: BinaryIO) -> None:
    """The bytes must be on the disk before the name is, or a power cut leaves an empty object."""
    file.flush()
    os.fsync(file.fileno())
