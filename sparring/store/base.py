"""The object store behind one small protocol: a local folder and S3 look the same to every step."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """What a store says of one object: key, bytes, and when it was last written, in seconds by the store's own clock.

    Compare `written` with other entries of the same store only: its clock need not be that of this machine.
    """

    key: str
    size: int
    written: float


class Store(Protocol):
    """Keys are relative, `/`-separated. Every method raises StoreError (or a child) and nothing else of its own.

    A put is atomic: readers see the whole object or none. `put_if_absent` is the only way to claim a name.
    """

    url: str
    """Root of this store, as a user would write it, without credentials."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFoundError."""

    def get_part(self, key: str, start: int, length: int) -> bytes:
        """At most `length` > 0 bytes of the object from `start` on; fewer where it ends. Raises NotFoundError."""

    def put(self, key: str, data: bytes) -> None:
        """Writes or replaces an object."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes an object unless one is there; True for exactly one of any number of racing callers.

        A retried call whose first reply was lost is still answered True: callers put a nonce into `data`.
        """

    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    def list(self, prefix: str = "") -> list[str]:
        """All keys under `prefix` (a plain string prefix), sorted."""

    def entries(self, prefix: str = "") -> builtins.list[Entry]:
        """Like `list`, with each object's size and time."""

    def folders(self, prefix: str) -> builtins.list[str]:
        """Names of the folders right below `prefix/`, sorted, without looking into them.

        One that has lost its last object may still be among them.
        """

    def delete(self, key: str) -> None:
        """Removes an object; no error when it is not there."""

    def upload(self, path: Path, key: str) -> None:
        """Writes a file's bytes as one object, streaming."""

    def download(self, key: str, path: Path) -> None:
        """Writes an object to a file, atomically (temporary name, then rename). Raises NotFoundError."""

    def scope(self, prefix: str) -> Store:
        """The same store with all keys under `prefix/`."""

    def delta(self, key: str) -> tuple[str, dict[str, str]]:
        """URI and storage options of a Delta table at `key`, for `deltalake` (it does not use boto3)."""
