"""Verdict tables: what was written comes back, and nothing that is no verdict table comes in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.errors import InvalidEvaluation, NotFoundError
from sparring.evaluate.tables import (
    conform,
    decode_verdicts,
    encode_verdicts,
    join,
    problems,
    read_verdicts,
    write_verdicts,
)
from sparring.evaluate.verdicts import SCHEMA
from sparring.store import open_store

ROWS = [
    {
        "model": "m" * 64,
        "suite": "starter",
        "slice": name,
        "kind": kind,
        "prompt_id": f"{kind}-{name}-{i}",
        "behavior": f"{kind}-{i}",
        "answer_index": 0,
        "label": "" if kind == "capability" else kind,
        "refused": None if kind == "capability" else i % 2 == 0,
        "harmful": i % 2 == 1 if kind == "harmful" else None,
        "passed": i % 2 == 1 if kind == "benign" else None,
        "degenerate": None if kind == "capability" else False,
        "score": i / 10 if kind == "capability" else None,
        "tokens": i,
        "judge": "log-likelihood" if kind == "capability" else "j@1",
        "status": "ok",
    }
    for kind, name in (("harmful", "vanilla"), ("benign", "plain"), ("capability", "nll"))
    for i in range(5)
]
TABLE = pa.Table.from_pylist(ROWS, schema=SCHEMA)


def changed(row: int, **cells: object) -> pa.Table:
    return pa.Table.from_pylist([value | cells if i == row else value for i, value in enumerate(ROWS)], schema=SCHEMA)


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    digest = write_verdicts(store, "a/b.parquet", TABLE)
    table, read = read_verdicts(store, "a/b.parquet")
    assert table.equals(TABLE, check_metadata=True)
    assert read == digest


def test_no_table_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_verdicts(open_store(str(tmp_path)), "none.parquet")


def test_an_unjudged_row_is_no_problem_of_the_table() -> None:
    void = changed(0, status="void", refused=None, harmful=None, degenerate=None)
    assert problems(void, "t") == []
    assert decode_verdicts(encode_verdicts(void)).equals(void)


@pytest.mark.parametrize(
    ("row", "cells", "words"),
    [
        (3, {"kind": "nice"}, "row 3: `kind` is 'nice'"),
        (3, {"status": "OK"}, "row 3: `status` is 'OK'"),
        (3, {"label": "benign"}, "row 3: `label` is 'benign'"),
        (4, {"prompt_id": ""}, "row 4: `prompt_id` is ''"),
        (4, {"behavior": ""}, "row 4: `behavior` is ''"),
        (12, {"score": math.nan}, "row 12: `score` is nan"),
        (12, {"score": math.inf}, "row 12: `score` is inf"),
        (12, {"score": -0.01}, "row 12: `score` is -0.01"),
        (12, {"score": 1.01}, "row 12: `score` is 1.01"),
        (2, {"answer_index": -1}, "row 2: `answer_index` is -1"),
        (2, {"tokens": -5}, "row 2: `tokens` is -5"),
        (2, {"model": "n" * 64}, "`model` holds 2 values"),
        (2, {"judge": "j@2"}, "`judge` holds 2 values"),
        (1, {"prompt_id": "harmful-vanilla-0"}, "2 rows for one answer"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(row: int, cells: dict[str, object], words: str) -> None:
    table = changed(row, **cells)
    assert any(words in line for line in problems(table, "t"))
    with pytest.raises(InvalidEvaluation) as caught:
        encode_verdicts(table, "t")
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidEvaluation):
        decode_verdicts(parquet(table), "t")


def test_a_missing_required_value_is_named() -> None:
    loose = pa.schema([field.with_nullable(True) for field in SCHEMA], metadata=SCHEMA.metadata)
    table = pa.Table.from_pylist([ROWS[0], ROWS[1] | {"behavior": None}], schema=loose)
    with pytest.raises(InvalidEvaluation, match="row 1: `behavior` is None"):
        decode_verdicts(parquet(table), "t")


def test_an_empty_table_is_refused() -> None:
    assert problems(TABLE.slice(0, 0), "t") == ["t: the table has no rows"]


@pytest.mark.parametrize("column", SCHEMA.names)
def test_every_column_is_needed(column: str) -> None:
    with pytest.raises(InvalidEvaluation, match=f"`{column}` is there 0 times"):
        decode_verdicts(parquet(TABLE.drop_columns([column])), "t")


def _typed(column: str, kind: pa.DataType, convert: Callable[[object], object]) -> pa.Table:
    values = pa.array([convert(value) for value in TABLE[column].to_pylist()], type=kind)
    return TABLE.set_column(TABLE.column_names.index(column), column, values)


@pytest.mark.parametrize(
    ("column", "kind", "convert"),
    [
        ("harmful", pa.float64(), lambda value: float("nan") if value is None else float(bool(value))),
        ("refused", pa.string(), lambda value: None if value is None else str(value)),
        ("score", pa.string(), lambda value: None if value is None else str(value)),
        ("tokens", pa.float64(), lambda value: float(str(value))),
        ("prompt_id", pa.int64(), lambda value: hash(value)),
        ("answer_index", pa.int64(), lambda value: 2**40),
    ],
)
def test_another_type_is_refused(column: str, kind: pa.DataType, convert: Callable[[object], object]) -> None:
    with pytest.raises(InvalidEvaluation, match=column):
        decode_verdicts(parquet(_typed(column, kind, convert)), "t")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_another_storage_of_text_is_fine(kind: pa.DataType) -> None:
    table = TABLE.set_column(0, "model", TABLE["model"].cast(kind))
    assert conform(table, "t").equals(TABLE)


def test_other_columns_and_their_order_do_not_matter() -> None:
    table = TABLE.append_column("note", pa.array(["x"] * TABLE.num_rows)).select(["note", *reversed(SCHEMA.names)])
    assert conform(table, "t").equals(TABLE)


@pytest.mark.parametrize("version", [None, b"0", b"2"])
def test_another_schema_version_is_refused(version: bytes | None) -> None:
    table = TABLE.replace_schema_metadata({} if version is None else {b"sparring.schema": version})
    with pytest.raises(InvalidEvaluation, match="schema version"):
        decode_verdicts(parquet(table), "t")


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InvalidEvaluation) as caught:
        decode_verdicts(data)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_never_becomes_another_table(position: int, value: int) -> None:
    """A damaged file is refused, or the damage was where nothing stands: pages carry checksums."""
    data = bytearray(encode_verdicts(TABLE))
    data[position % len(data)] = value
    try:
        table = decode_verdicts(bytes(data))
    except InvalidEvaluation:
        return
    assert table.equals(TABLE)


def test_tables_of_suites_are_joined() -> None:
    assert join([TABLE.slice(0, 7), TABLE.slice(7)]).equals(TABLE)
