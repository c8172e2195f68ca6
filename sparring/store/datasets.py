"""Content-addressed tables: `datasets/<digest>/<name>.parquet` and, written last, `card.json`.

The digest is of the content (name, column names, types and values), not of the Parquet bytes, so that another
pyarrow or another chunking gives the same digest for the same table.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.errors import CorruptError, NotFoundError, StoreError
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256

SCHEMA_VERSION = 1
_ROWS = 65_536
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def save_table(store: Store, table: pa.Table, *, name: str, meta: dict[str, object]) -> str:
    """Stores a table with its card and returns the content digest; a table that is there already is left alone.

    `meta` is plain JSON (the data card); the card of the first writer stays. Raises StoreError.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"table name {name!r} is not of the form {_NAME.pattern}")
    digest = table_digest(table, name)
    if not store.exists(_card_key(digest)):
        card = _card(table, name, meta)
        store.put(f"datasets/{digest}/{name}.parquet", _to_parquet(table))
        store.put_if_absent(_card_key(digest), canonical(card))
    return digest


def load_table(store: Store, digest: str) -> pa.Table:
    """The table of a digest, verified. Raises NotFoundError (none, or not finished) and CorruptError."""
    name = str(_load_card(store, digest)["name"])
    key = f"datasets/{digest}/{name}.parquet"
    try:
        table = pq.read_table(io.BytesIO(store.get(key)))
    except NotFoundError as error:
        raise CorruptError(f"dataset {digest} has a card but no table {key!r} in {store.url}") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptError(f"dataset {digest}: {key!r} in {store.url} is not readable Parquet ({error})") from error
    found = table_digest(table, name)
    if found != digest:
        raise CorruptError(f"dataset {digest}: the content of {key!r} in {store.url} has digest {found}")
    return table


def load_meta(store: Store, digest: str) -> dict[str, object]:
    """The card's `meta` as given to `save_table`. Raises NotFoundError and CorruptError."""
    meta = _load_card(store, digest)["meta"]
    if not isinstance(meta, dict):
        raise CorruptError(f"dataset {digest}: `meta` of the card in {store.url} is not an object")
    return meta


def table_digest(table: pa.Table, name: str) -> str:
    """SHA-256 over name, schema and values. Independent of chunking, Parquet options and schema metadata."""
    columns = [[field.name, str(field.type)] for field in table.schema]
    digest = hashlib.sha256(canonical({"columns": columns, "name": name, "rows": table.num_rows}))
    for column in table.columns:
        for start in range(0, table.num_rows, _ROWS):
            values = column.slice(start, _ROWS).to_pylist()
            digest.update(json.dumps(values, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    raise StoreError(f"a table column holds {type(value).__name__}, which datasets do not store")


def _card(table: pa.Table, name: str, meta: dict[str, object]) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "rows": table.num_rows,
        "columns": {field.name: str(field.type) for field in table.schema},
        "meta": meta,
        "meta_sha256": sha256(canonical(meta)),
    }


def _card_key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest[:80]!r} is not a dataset digest (64 hexadecimal digits)")
    return f"datasets/{digest}/card.json"


def _load_card(store: Store, digest: str) -> dict[str, object]:
    key = _card_key(digest)
    try:
        card = json.loads(store.get(key))
    except ValueError as error:
        raise CorruptError(f"dataset {digest}: {key!r} in {store.url} is not JSON ({error})") from error
    if not isinstance(card, dict) or card.get("schema_version") != SCHEMA_VERSION:
        raise CorruptError(f"dataset {digest}: {key!r} in {store.url} is not a card of version {SCHEMA_VERSION}")
    if not _NAME.fullmatch(str(card.get("name"))) or card.get("meta_sha256") != sha256(canonical(card.get("meta"))):
        raise CorruptError(f"dataset {digest}: {key!r} in {store.url} is not what was written")
    return card


def _to_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    plain = table.replace_schema_metadata(None)
    pq.write_table(plain, sink, compression="zstd", use_compliant_nested_type=False)  # else list fields are renamed
    kept = pq.read_schema(io.BytesIO(sink.getvalue()))
    for field in plain.schema:
        if kept.field(field.name).type != field.type:
            raise StoreError(
                f"column {field.name!r} is {field.type}, which Parquet keeps as {kept.field(field.name).type}"
            )
    return sink.getvalue()
