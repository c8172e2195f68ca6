"""Reading, checking and writing verdict tables (schema: `sparring.evaluate.verdicts`).

A table is checked whole when it is written and again when it is read: the gate believes nothing else, so that a
wrong type, a missing value or a second row for one answer must be named here and must never become a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparring.errors import InvalidEvaluation
from sparring.evaluate.verdicts import SCHEMA, SCHEMA_VERSION
from sparring.store.base import Store

KEY = ("suite", "slice", "prompt_id", "answer_index")
"""One answer of one model; the same for every model."""

KINDS = ("harmful", "benign", "capability")
STATUSES = ("ok", "void")
LABELS = ("harmful", "benign", "")
_VERSION_KEY = b"sparring.schema"
_ASKED_KEY = b"sparring.asked"
_FILLED = ("model", "suite", "slice", "prompt_id", "behavior", "judge")


def write_verdicts(store: Store, key: str, table: pa.Table, asked: str = "") -> str:
    """Checks a verdict table and writes it as Parquet; the sha256 (hex) of the bytes. Raises InvalidEvaluation.

    `asked` names how the model was asked (`asked_of`).
    """
    data = encode_verdicts(table, key, asked)
    store.put(key, data)
    return hashlib.sha256(data).hexdigest()


def read_verdicts(store: Store, key: str) -> tuple[pa.Table, str]:
    """A checked verdict table and the sha256 (hex) of its bytes.

    Raises NotFoundError for a missing object and InvalidEvaluation for one that is not a sound verdict table.
    """
    data = store.get(key)
    return decode_verdicts(data, key), hashlib.sha256(data).hexdigest()


def asked_of(table: pa.Table) -> str:
    """How the table's model was asked (decoding, chat template), "" where the table does not say.

    Models that were asked differently cannot be compared.
    """
    return str((table.schema.metadata or {}).get(_ASKED_KEY, b"").decode("utf-8", "replace"))


def encode_verdicts(table: pa.Table, name: str = "verdicts", asked: str = "") -> bytes:
    """The Parquet bytes of a checked table. Raises InvalidEvaluation."""
    table = _marked(conform(table, name), asked)
    check(table, name)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue().to_pybytes())


def decode_verdicts(data: bytes, name: str = "verdicts") -> pa.Table:
    """The checked table in Parquet bytes. Raises InvalidEvaluation: no Parquet, other version or schema, bad rows."""
    try:
        # not `read_table`: that goes through pyarrow.dataset, which imports pandas where there is one
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        table.validate(full=True)
        str(table.column_names)  # names that are not Unicode
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidEvaluation(
            f"{name}: not a readable Parquet file ({_line(error)})", hint="judge the answers again"
        ) from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode("utf-8", "replace")
    if version != SCHEMA_VERSION:
        raise InvalidEvaluation(
            f"{name}: schema version is {version}, this release reads {SCHEMA_VERSION}",
            hint="write the table with `sparring.evaluate.tables`",
        )
    checked = conform(table, name)
    check(checked, name)
    return _marked(checked, asked_of(table))


def _marked(table: pa.Table, asked: str) -> pa.Table:
    mark = {_ASKED_KEY: asked.encode()} if asked else {}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **mark})


def conform(table: pa.Table, name: str) -> pa.Table:
    """The schema's columns in its order and types; other columns are left out.

    Only the storage form of text and the width of whole numbers may differ: a label that was stored as a number is
    refused, because NaN would become True. Raises InvalidEvaluation.
    """
    columns = []
    for field in SCHEMA:
        if table.column_names.count(field.name) != 1:
            raise InvalidEvaluation(
                f"{name}: column `{field.name}` is there {table.column_names.count(field.name)} times"
            )
        columns.append(_as_type(table.column(field.name), field, name))
    return pa.table(columns, schema=SCHEMA)


def check(table: pa.Table, name: str) -> None:
    """Raises InvalidEvaluation with the first problem of `problems`, and how many more there are."""
    found = problems(table, name)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InvalidEvaluation(found[0] + more)


def problems(table: pa.Table, name: str, *, known: Sequence[str] = ()) -> list[str]:
    """Everything wrong with one table, each a line with the first row (from 0), the column and the value.

    Expects the types of SCHEMA. A row that was not judged (status void, or a null label) is no problem here: the
    gate counts it. `known`: columns whose very values the caller has seen in a sound table; they are not looked at
    again.
    """
    if table.num_rows == 0:
        return [f"{name}: the table has no rows"]
    found = [*_nulls(table, name, known)]
    if found:
        return found
    for column in _unknown(_FILLED, known):
        found += _rows(name, table, column, pc.equal(table[column], ""), "must not be empty")
    for column, allowed in (("kind", KINDS), ("status", STATUSES), ("label", LABELS)):
        if column not in known:
            outside = pc.invert(pc.is_in(table[column], value_set=pa.array(allowed)))
            found += _rows(name, table, column, outside, f"must be one of {', '.join(map(repr, allowed))}")
    for column in _unknown(("answer_index", "tokens"), known):
        found += _rows(name, table, column, pc.less(table[column], 0), "must not be negative")
    for needs, wrong in _WHOLE:
        found += wrong(table, name) if _unknown(needs, known) else []
    return found


def _unknown(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    return [column for column in columns if column not in known]


def _nulls(table: pa.Table, name: str, known: Sequence[str]) -> list[str]:
    required = _unknown([field.name for field in SCHEMA if not field.nullable], known)
    return [
        message
        for column in required
        for message in _rows(name, table, column, pc.is_null(table[column]), "must not be missing")
    ]


def _scores(table: pa.Table, name: str) -> list[str]:
    score = table["score"]
    inside = pc.and_(pc.greater_equal(score, 0.0), pc.less_equal(score, 1.0))  # false for NaN
    return _rows(name, table, "score", pc.fill_null(pc.invert(inside), False), "must be a number from 0 to 1")


def _labels(table: pa.Table, name: str) -> list[str]:
    """A harmful prompt may not stand in a benign suite, nor the other way round: the worst case would flip."""
    labelled = pc.and_(pc.not_equal(table["label"], ""), pc.not_equal(table["kind"], "capability"))
    other = pc.and_(labelled, pc.not_equal(table["label"], table["kind"]))
    return _rows(name, table, "label", other, "does not agree with the row's kind")


def _models(table: pa.Table, name: str) -> list[str]:
    return _several(table["model"], "model", name)


def _judges(table: pa.Table, name: str) -> list[str]:
    """One judge for all answers, and one scorer for all capability rows."""
    scored = pc.equal(table["kind"], "capability")
    return [
        line for rows in (pc.invert(scored), scored) for line in _several(table["judge"].filter(rows), "judge", name)
    ]


def _several(values_of: pa.ChunkedArray, column: str, name: str) -> list[str]:
    values = sorted(values_of.unique().to_pylist())
    if len(values) < 2:
        return []
    return [f"{name}: `{column}` holds {len(values)} values ({values[0]}, {values[1]}); one is allowed"]


def _duplicates(table: pa.Table, name: str) -> list[str]:
    counts = table.group_by(list(KEY), use_threads=False).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1)).sort_by([(column, "ascending") for column in KEY])
    if twice.num_rows == 0:
        return []
    first = twice.slice(0, 1).to_pylist()[0]
    place = ", ".join(f"{column} {first[column]!r}" for column in KEY)
    return [f"{name}: {first['count_all']} rows for one answer ({place}); {twice.num_rows} answers stand there twice"]


_WHOLE: tuple[tuple[Sequence[str], Callable[[pa.Table, str], list[str]]], ...] = (
    (("score",), _scores),
    (("label", "kind"), _labels),
    (("model",), _models),
    (("judge", "kind"), _judges),
    (KEY, _duplicates),
)
"""Checks of whole columns, by the columns that they look at."""


def _rows(name: str, table: pa.Table, column: str, wrong: pa.ChunkedArray, rule: str) -> list[str]:
    """One line for a mask of wrong rows, naming the first; nothing when the mask is empty."""
    rows = pc.indices_nonzero(wrong)  # `to_numpy` of a chunked column imports pandas where there is one
    if len(rows) == 0:
        return []
    first = rows[0].as_py()
    value = table[column][first].as_py()
    more = f" ({len(rows)} rows)" if len(rows) > 1 else ""
    return [f"{name}: row {first}: `{column}` is {value!r}; it {rule}{more}"]


def _as_type(column: pa.ChunkedArray, field: pa.Field, name: str) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    if not _castable(column.type, field.type):
        raise InvalidEvaluation(f"{name}: column `{field.name}` is {column.type}, it must be {field.type}")
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise InvalidEvaluation(f"{name}: column `{field.name}` does not fit {field.type} ({_line(error)})") from error


def _castable(have: pa.DataType, want: pa.DataType) -> bool:
    if pa.types.is_null(have):
        return True
    if pa.types.is_string(want):
        inner = have.value_type if pa.types.is_dictionary(have) else have
        return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner))
    if pa.types.is_integer(want):
        return bool(pa.types.is_integer(have))
    return bool(pa.types.is_floating(want) and have == pa.float32())


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Several tables of one model as one, for judges that work suite by suite."""
    return pa.concat_tables([conform(table, "verdicts") for table in tables])
