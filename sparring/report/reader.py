"""Reading a store in which anything may be missing or broken: the page about a failed round is needed most."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.errors import NotFoundError, SparringError
from sparring.store.base import Store

T = TypeVar("T")


class Reader:
    """Reads from a store and collects, as lines for people, what is there but could not be read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.problems: list[str] = []

    def take(self, what: str, read: Callable[[], T]) -> T | None:
        """`read()`; None for what is not there, and for what is broken, which is then noted under the name `what`."""
        try:
            return read()
        except NotFoundError:
            return None
        except (SparringError, pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
            text = str(error) if isinstance(error, SparringError) else f"{type(error).__name__}: {error}"
            self.problems.append(f"{what} cannot be read: {' '.join(text.split())[:300]}")
            return None

    def json(self, what: str, key: str) -> dict[str, object]:
        """A JSON object; empty where there is none."""
        return self.take(what, lambda: self._object(key)) or {}

    def parquet(self, what: str, key: str | None, columns: tuple[str, ...]) -> pa.Table | None:
        """Some columns of a Parquet object; a key that should lead somewhere and does not is a problem, too."""
        if not key:
            return None
        table = self.take(what, lambda: self._table(key, columns))
        if table is None and not self.store.exists(key):
            self.problems.append(f"{what} cannot be read: there is no object {key}")
        return table

    def _table(self, key: str, columns: tuple[str, ...]) -> pa.Table:
        table = pq.read_table(pa.BufferReader(self.store.get(key)))
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise ValueError(f"{key} has no column {missing[0]!r}")
        return table.select(list(columns))

    def _object(self, key: str) -> dict[str, object]:
        found = json.loads(self.store.get(key))
        if not isinstance(found, dict):
            raise ValueError(f"{key} is not a JSON object")
        return found
