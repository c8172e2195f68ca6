"""A folder as a store. Objects appear whole: written aside, synced, then linked or renamed into place.

The exclusive claim is `link(2)`, which fails when the name is taken, also on NFS. Files under way lie in `.tmp/` at
the root, on the same file system; what a killed writer left there is removed by a later upload, recognised by its
lock, which the kernel drops with the process.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sparring.errors import StoreError
from sparring.store.base import Entry
from sparring.store.files import file_errors, reading, settle, writing_aside
from sparring.store.keys import check_key, check_prefix, join

_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    """`Store` in a folder; the folder is made by the first write."""

    def __init__(self, root: Path, prefix: str = "") -> None:
        self._root = Path(os.path.abspath(root))
        self._prefix = prefix
        self.url = str(self._root / prefix)

    def get(self, key: str) -> bytes:
        """See `Store.get`."""
        path = self._path(key)
        with file_errors("read", path, key):
            return path.read_bytes()

    def get_part(self, key: str, start: int, length: int) -> bytes:
        """See `Store.get_part`."""
        path = self._path(key)
        with file_errors("read", path, key), path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        path = self._path(key)
        with file_errors("write", path), self._aside() as (file, aside):
            file.write(data)
            settle(file)
            _make_folder(path.parent)
            os.replace(aside, path)
            _sync_folder(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `Store.put_if_absent`."""
        path = self._path(key)
        with file_errors("write", path), self._aside() as (file, aside):
            _make_folder(path.parent)
            if path.is_file():
                return False
            file.write(data)
            settle(file)
            return _link(aside, path)

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        path = self._path(key)
        with file_errors("look for", path):
            try:
                return _is_file(path)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def list(self, prefix: str = "") -> list[str]:
        """See `Store.list`."""
        return [key for key, _ in self._found(prefix)]

    def entries(self, prefix: str = "") -> builtins.list[Entry]:
        """See `Store.entries`."""
        found: builtins.list[Entry] = []
        for key, path in self._found(prefix):
            with file_errors("look for", path), contextlib.suppress(FileNotFoundError):  # removed meanwhile
                status = path.stat()
                found.append(Entry(key, status.st_size, status.st_mtime))
        return found

    def folders(self, prefix: str) -> builtins.list[str]:
        """See `Store.folders`."""
        folder = self._path(prefix)
        with file_errors("list", folder):
            try:
                return sorted(path.name for path in folder.iterdir() if path.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        path = self._path(key)
        with file_errors("delete", path):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return

    def upload(self, path: Path, key: str) -> None:
        """See `Store.upload`."""
        target = self._path(key)
        with reading(path) as source, file_errors("write", target), self._aside() as (file, aside):
            self._sweep()
            shutil.copyfileobj(source, file, 1 << 20)
            settle(file)
            _make_folder(target.parent)
            os.replace(aside, target)
            _sync_folder(target.parent)

    def download(self, key: str, path: Path) -> None:
        """See `Store.download`."""
        source = self._path(key)
        with file_errors("read", source, key), source.open("rb") as file, writing_aside(path) as target:
            shutil.copyfileobj(file, target, 1 << 20)

    def scope(self, prefix: str) -> LocalStore:
        """See `Store.scope`."""
        return LocalStore(self._root, join(self._prefix, check_key(prefix)))

    def delta(self, key: str) -> tuple[str, dict[str, str]]:
        """See `Store.delta`. deltalake commits with a rename that refuses to replace: safe without options."""
        return str(self._path(key)), {}

    def _found(self, prefix: str) -> builtins.list[tuple[str, Path]]:
        check_prefix(prefix)
        base = self._root / self._prefix
        folder = base / prefix.rpartition("/")[0]
        with file_errors("list", folder):
            files = _files(folder, skip=self._root / _TEMPORARY)
            keys = ((path.relative_to(base).as_posix(), path) for path in files)
            return sorted((key, path) for key, path in keys if key.startswith(prefix))

    def _path(self, key: str) -> Path:
        full = join(self._prefix, check_key(key))
        if full.split("/", 1)[0] == _TEMPORARY:
            raise StoreError(f"store key {full!r} lies in {_TEMPORARY!r}, where files under way are kept")
        return self._root / full

    @contextlib.contextmanager
    def _aside(self) -> Iterator[tuple[BinaryIO, Path]]:
        folder = self._root / _TEMPORARY
        _make_folder(folder)
        path = folder / uuid.uuid4().hex
        with path.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file, path
            finally:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Removes what killed writers left: old, and locked by nobody."""
        for path in (self._root / _TEMPORARY).iterdir():
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    with path.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink(missing_ok=True)


def _link(aside: Path, path: Path) -> bool:
    try:
        os.link(aside, path)
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            message = f"the file system of {path.parent} refuses hard links, which claims need ({error.strerror})"
            raise StoreError(message, hint="set a store on another file system") from error
        raise
    _sync_folder(path.parent)
    return True


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        _sync_folder(folder.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{os.strerror(errno.ENOTDIR)}: {folder}")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_file(path: Path) -> bool:
    """Like Path.is_file, but a folder that may not be entered is an error and not an absence."""
    return stat.S_ISREG(path.stat().st_mode)


def _files(folder: Path, skip: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # removed meanwhile, or never made: nothing there
        return
    for path in entries:
        if path.is_dir():
            if path != skip:
                yield from _files(path, skip)
        else:
            yield path
