"""A Delta table that only grows, in a store: every append is one commit, readers see it whole or not at all.

deltalake writes and keeps the log. The Parquet files named in the log are fetched through the `Store`, so that a lost,
cut or damaged file is named, and credentials, retries and errors are the store's own. Appends never conflict: Delta
commits them one after the other, whoever writes.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from sparring.errors import CorruptError, DataError, NotFoundError, StoreError
from sparring.replay import schema as schemas
from sparring.store.base import Store

_PARALLEL_READS = 8
_FIRST_COMMIT = "_delta_log/00000000000000000000.json"


class EventTable:
    """The table at `key` of `store`, with the columns of `schema`. A table that is not there yet has no rows."""

    def __init__(self, store: Store, key: str, schema: pa.Schema) -> None:
        self._store = store
        self._key = key
        self._name = f"sparring.{key.replace('/', '.')}"
        self._schema = schema
        self.where = f"{store.url}/{key}"

    def read(self, *columns: str) -> pa.Table:
        """Some columns of all rows, checked; repeated rows are still in it.

        Raises CorruptError (a damaged file or log, another program's table) and StoreError (a newer release's rows).
        """
        schema = schemas.part(self._schema, columns)
        table = self._open()
        if table is None:
            return schema.empty_table()
        with ThreadPoolExecutor(_PARALLEL_READS) as workers:
            parts = list(workers.map(lambda file: self._read_file(file[0], file[1], schema), self._files(table)))
        return pa.concat_tables([schema.empty_table(), *parts])

    def check(self, rows: pa.Table) -> pa.Table:
        """The rows in this table's columns and types. Raises DataError naming row, column and value."""
        try:
            return schemas.conform(rows, self._schema)
        except ValueError as error:
            raise DataError(f"rows for {self.where}: {error}") from error

    def append(self, rows: pa.Table) -> None:
        """Adds checked rows in one commit. Raises StoreError, and what `read` raises."""
        if rows.num_rows == 0:
            return
        table = self._open() or self._create()
        try:
            write_deltalake(table, rows, mode="append")
        except (DeltaError, OSError) as error:
            raise StoreError(f"cannot append to {self.where}: {schemas.one_line(error)}") from error

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
        missing = {field.name for field in self._schema} - {field.name for field in table.schema().fields}
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

    def _create(self) -> DeltaTable:
        """Writes the first commit, made aside, put-if-absent: all racing creators append to one table."""
        with tempfile.TemporaryDirectory() as folder:
            DeltaTable.create(
                folder,
                schema=self._schema,
                name=self._name,
                description=f"Append-only events, schema version {schemas.SCHEMA_VERSION}",
                configuration={"delta.appendOnly": "true"},
            )
            commit = (Path(folder) / _FIRST_COMMIT).read_bytes()
        self._store.put_if_absent(f"{self._key}/{_FIRST_COMMIT}", commit)
        table = self._open()
        if table is None:
            raise StoreError(f"the table created at {self.where} cannot be found again")
        return table

    def _files(self, table: DeltaTable) -> list[tuple[str, int]]:
        actions: Any = table.get_add_actions(flatten=True)
        files = pa.table(actions).select(["path", "size_bytes"]).to_pylist()
        return sorted((str(file["path"]), int(file["size_bytes"])) for file in files)

    def _read_file(self, path: str, size: int, schema: pa.Schema) -> pa.Table:
        where = f"{self.where}/{path}"
        try:
            data = self._store.get(f"{self._key}/{path}")
        except NotFoundError as error:
            raise CorruptError(f"{where} is in the Delta log but not in the store") from error
        if len(data) != size:
            raise CorruptError(f"{where} has {len(data)} bytes, the Delta log says {size}")
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
            self._refuse_future(file, where)
            wanted = [name for name in schema.names if name in file.schema_arrow.names]
            return schemas.conform(file.read(columns=wanted, use_threads=False), schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CorruptError(f"{where}: {schemas.one_line(error)}") from error

    def _refuse_future(self, file: pq.ParquetFile, where: str) -> None:
        """A newer release may have given a column another meaning: its rows are refused, not guessed at."""
        if "schema_version" not in file.schema_arrow.names:
            raise ValueError("column `schema_version` is there 0 times")
        newest = schemas.newest_version(file.read(columns=["schema_version"], use_threads=False))
        if newest > schemas.SCHEMA_VERSION:
            raise StoreError(
                f"{where} was written by a newer release: schema version {newest}, this release reads up to"
                f" {schemas.SCHEMA_VERSION}",
                hint="upgrade sparring",
            )
