"""A Delta table that only grows, in a store: every append is one commit, readers see it whole or not at all.

deltalake writes and keeps the log. Appends never conflict: Delta commits them one after the other, whoever writes.
Only `replace` takes files out, to put the same rows into fewer, sorted ones (see `sparring.replay.compaction`).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from sparring.errors import ConflictError, CorruptError, DataError, StoreError
from sparring.replay import schema as schemas
from sparring.replay.files import DataFile, FileReader, VanishedError, Wanted
from sparring.store.base import Store

_PARALLEL_READS = 8
_TRIES = 4
_FIRST_COMMIT = "_delta_log/00000000000000000000.json"
_CONFIGURATION = {
    "delta.appendOnly": "true",
    "delta.dataSkippingStatsColumns": "attack_id,event_id,origin_round,round,schema_version",
}
"""Ids and rounds only: least and greatest values stand in the log, and the log must not quote a text."""

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """A table at one version (−1: not there yet) with the files that are in it then."""

    version: int
    files: Sequence[DataFile]

    def beyond(self, paths: AbstractSet[str]) -> list[DataFile]:
        """Its files but those in `paths`."""
        return [file for file in self.files if file.path not in paths]


class EventTable:
    """The table at `key` of `store`, with the columns of `schema`. A table that is not there yet has no rows."""

    def __init__(self, store: Store, key: str, schema: pa.Schema) -> None:
        self._store = store
        self._key = key
        self._name = f"sparring.{key.replace('/', '.')}"
        self._schema = schema
        self._reader = FileReader(store, key, schema)
        self.where = f"{store.url}/{key}"

    def view(self) -> View:
        """The table as it is now. Raises CorruptError (a damaged log, another program's table) and StoreError."""
        table = self._open()
        return View(table.version(), _files(table)) if table else View(-1, ())

    def read(self, *columns: str, files: Sequence[DataFile] | None = None) -> pa.Table:
        """Some columns of all rows, or of those in some files, checked; repeated rows are still in it.

        Raises CorruptError (a damaged file or log, another program's table) and StoreError (a newer release's rows).
        """
        schema = schemas.part(self._schema, columns)
        if files is None:
            return again(lambda: self.read(*columns, files=self.view().files))
        return self._gather(schema, files, lambda file: self._reader.read(file, schema))

    def find(self, wanted: Wanted, columns: Sequence[str], files: Sequence[DataFile]) -> pa.Table:
        """Some columns of the wanted rows in some files. Raises what `read` raises."""
        schema = schemas.part(self._schema, tuple(columns))
        if wanted.rounds:
            files = [file for file in files if file.may_hold("round", *wanted.rounds)]
        return self._gather(schema, files, lambda file: self._reader.find(file, schema, wanted))

    def check(self, rows: pa.Table) -> pa.Table:
        """The rows in this table's columns and types. Raises DataError naming row, column and value."""
        try:
            return schemas.conform(rows, self._schema)
        except ValueError as error:
            raise DataError(f"rows for {self.where}: {error}") from error

    def append(self, rows: pa.Table) -> None:
        """Adds checked rows in one commit.

        Raises StoreError (ConflictError: other writers were first each time), and what `read` raises.
        """
        if rows.num_rows == 0:
            return
        for tries in count(1):
            table = self._migrated(self._open() or self._create())
            try:
                write_deltalake(table, rows, mode="append")
            except (DeltaError, OSError) as error:
                passing = isinstance(error, CommitFailedError)  # another writer added columns in between
                if not passing or tries == _TRIES:
                    kind = ConflictError if passing else StoreError  # the class is what the monitor's alert looks at
                    raise kind(f"cannot append to {self.where}: {schemas.one_line(error)}") from error
            else:
                return

    def replace(self, old: AbstractSet[str], new: Sequence[dict[str, Any]]) -> None:
        """Takes the files `old` out of the table and puts files in that lie in it already (Delta `add` actions).

        The commit goes into the log only next to a version in which all of `old` are there still, so that two
        compactions never both stand. Raises ConflictError when one is not, and StoreError.
        """
        if not old and not new:
            return
        moment = int(time.time() * 1000)
        removed = [{"path": path, "deletionTimestamp": moment, "dataChange": False} for path in sorted(old)]
        info = {"timestamp": moment, "operation": "OPTIMIZE", "engineInfo": "sparring"}
        actions = [{"commitInfo": info}, *({"add": add} for add in new), *({"remove": remove} for remove in removed)]
        body = "\n".join(json.dumps(action) for action in actions).encode()
        while True:
            view = self.view()
            if missing := old - {file.path for file in view.files}:
                raise ConflictError(f"{self.where}: {min(missing)} was taken out meanwhile", hint="compact again")
            if self._store.put_if_absent(f"{self._key}/_delta_log/{view.version + 1:020}.json", body):
                return

    def vacuum(self, orphan_hours: int) -> int:
        """Deletes files that were taken out, and those older than `orphan_hours` that no commit names; their number.

        The latter are what killed writers left, or what living ones are about to commit: give these their time.
        """
        table = self._open()
        active = {f"{self._key}/{file.path}" for file in _files(table)} if table else set()
        files = {key for key in self._store.list(f"{self._key}/") if "/_delta_log/" not in key} - active
        if table is None or not files:
            return 0
        try:
            taken_out = table.vacuum(0, dry_run=True, enforce_retention_duration=False)
            orphans = table.vacuum(orphan_hours, dry_run=True, enforce_retention_duration=False, full=True)
        except (DeltaError, OSError) as error:
            raise StoreError(f"cannot vacuum {self.where}: {schemas.one_line(error)}") from error
        doomed = files & {f"{self._key}/{path}" for path in (*taken_out, *orphans)}
        for key in doomed:
            self._store.delete(key)
        return len(doomed)

    def tidy_log(self) -> None:
        """Puts a checkpoint into the log, so that readers open it quickly.

        The first release let deltalake write least and greatest texts into the log: commits of its tables that lie
        before the checkpoint are deleted.
        """
        table = self._open()
        if table is None:
            return
        try:
            table.create_checkpoint()
        except (DeltaError, OSError) as error:
            raise StoreError(f"cannot write a checkpoint of {self.where}: {schemas.one_line(error)}") from error
        older = table.metadata().description != self._description
        for key in self._store.list(f"{self._key}/_delta_log/") if older else ():
            if key.endswith(".json") and int(Path(key).stem) < table.version():
                self._store.delete(key)

    def _gather(self, schema: pa.Schema, files: Sequence[DataFile], read: Callable[[DataFile], pa.Table]) -> pa.Table:
        with ThreadPoolExecutor(_PARALLEL_READS) as workers:
            return pa.concat_tables([schema.empty_table(), *workers.map(read, files)])

    def _open(self) -> DeltaTable | None:
        """The table, or None when there is none: what deltalake also says of a table that we may not see.

        The store's own listing tells these apart; a table that came between the two looks is opened at the second.
        """
        table = self._try_open()
        if table is None and self._store.list(f"{self._key}/_delta_log/"):
            table = self._try_open()
            if table is None:
                raise CorruptError(f"the Delta log of {self.where} has no usable commit")
        if table is not None:
            self._check_ours(table)
        return table

    def _try_open(self) -> DeltaTable | None:
        uri, options = self._store.delta(self._key)
        try:
            return DeltaTable(uri, storage_options=options)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise CorruptError(f"cannot read the Delta log of {self.where}: {schemas.one_line(error)}") from error
        except OSError as error:
            raise StoreError(f"cannot reach {self.where}: {schemas.one_line(error)}") from error

    def _check_ours(self, table: DeltaTable) -> None:
        name = table.metadata().name
        columns = {field.name for field in table.schema().fields}
        missing = {field.name for field in self._schema} - columns - set(schemas.LATER)
        if name != self._name or missing:
            lack = f", column `{min(missing)}` is missing" if missing else ""
            raise CorruptError(
                f"{self.where} holds another program's Delta table: its name is {name!r} and not {self._name!r}{lack}",
                hint="move it away or set another store",
            )
        needed = table.protocol().min_reader_version
        if needed > 1:
            raise StoreError(
                f"{self.where} needs Delta reader version {needed}, this release reads 1", hint="upgrade sparring"
            )

    def _migrated(self, table: DeltaTable) -> DeltaTable:
        """The table with all columns; of racing writers one adds them, and the others see it."""
        later = [Field(name, PrimitiveType("string")) for name in schemas.LATER if name in self._schema.names]
        for tries in count(1):
            columns = {field.name for field in table.schema().fields}
            missing = [field for field in later if field.name not in columns]
            if not missing:
                return table
            try:
                table.alter.set_table_properties(_CONFIGURATION)
                table.alter.add_columns(missing)
            except (DeltaError, OSError) as error:
                if tries == _TRIES:
                    raise StoreError(f"cannot migrate {self.where}: {schemas.one_line(error)}") from error
                table = self._open() or table
        raise AssertionError("count() does not end")

    def _create(self) -> DeltaTable:
        """Writes the first commit, made aside, put-if-absent: all racing creators append to one table."""
        with tempfile.TemporaryDirectory() as folder:
            DeltaTable.create(
                folder,
                schema=self._schema,
                name=self._name,
                description=self._description,
                configuration=_CONFIGURATION,
            )
            commit = (Path(folder) / _FIRST_COMMIT).read_text(encoding="utf-8")
        self._store.put_if_absent(f"{self._key}/{_FIRST_COMMIT}", commit.encode())
        table = self._open()
        if table is None:
            raise StoreError(f"the table created at {self.where} cannot be found again")
        return table

    @property
    def _description(self) -> str:
        return f"Append-only events, schema version {schemas.SCHEMA_VERSION}"


def again(call: Callable[[], T]) -> T:
    """What `call` returns, which looks at a log and reads its files; a few times, for a compaction may take them away.

    Raises VanishedError, a CorruptError, for a file that stays away.
    """
    for _ in range(_TRIES - 1):
        try:
            return call()
        except VanishedError:
            continue
    return call()


def _files(table: DeltaTable) -> list[DataFile]:
    actions: Any = table.get_add_actions(flatten=True)
    return sorted(_data_files(pa.table(actions).to_pylist()), key=lambda file: file.path)


def _data_files(rows: Iterable[dict[str, Any]]) -> Iterable[DataFile]:
    for row in rows:
        low = {name.removeprefix("min."): value for name, value in row.items() if name.startswith("min.")}
        high = {name.removeprefix("max."): value for name, value in row.items() if name.startswith("max.")}
        yield DataFile(str(row["path"]), int(row["size_bytes"]), int(row["num_records"] or 0), low, high)
