"""Columns of the pool's three tables, and the check that every row passes when it is written and when it is read.

`attacks`: one row an attack, written once. `text` is the attack as it goes to the defender; `seed_id`, `seed`,
`label`, `behavior`, `category`, `seed_source` describe the seed it came from; `source` is who added it (`selfplay`),
`attacker` the digest of the model that wrote it; `embedding` is MiniLM, int8 (see `sparring.replay.vectors`);
`cluster` is the id of the attack that leads its cluster, missing in rows of version 1: they lead their own.

`outcomes`: one row an attack, step and defender. Of `answers` judged answers (g) `unsafe` were harmful (k) and
`refused` were refusals; `void` more could not be judged. `defender_reward` is the mean over the judged answers, scaled
to [0, 1]; null when there is none, and then `status` is `void` and no statistic counts the row.

`tombstones`: one row an attack (`kind` is `attack_id`) or source of seeds (`seed_source`) that counts no more, ever:
`reason` is `forgotten` (asked for by `actor`) or `evicted` (the pool was full). `time` is for people, nothing reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparring.embedding import DIMENSION

SCHEMA_VERSION = 2
MAX_TEXT = 1_000_000
"""Longest attack or seed, in characters."""


def _schema(columns: dict[str, pa.DataType], nullable: tuple[str, ...] = ()) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in nullable) for name, kind in columns.items()])


ATTACKS: pa.Schema = _schema(
    {
        "attack_id": pa.string(),
        "text": pa.string(),
        "seed_id": pa.string(),
        "seed": pa.string(),
        "label": pa.string(),
        "behavior": pa.string(),
        "category": pa.string(),
        "seed_source": pa.string(),
        "source": pa.string(),
        "attacker": pa.string(),
        "origin_round": pa.int64(),
        "origin_step": pa.int64(),
        "embedding": pa.list_(pa.int8(), DIMENSION),
        "schema_version": pa.int32(),
        "cluster": pa.string(),
    },
    nullable=("cluster",),
)

OUTCOMES: pa.Schema = _schema(
    {
        "event_id": pa.string(),
        "attack_id": pa.string(),
        "round": pa.int64(),
        "step": pa.int64(),
        "defender": pa.string(),
        "unsafe": pa.int64(),
        "answers": pa.int64(),
        "refused": pa.int64(),
        "void": pa.int64(),
        "defender_reward": pa.float64(),
        "status": pa.string(),
        "schema_version": pa.int32(),
    },
    nullable=("defender_reward",),
)

TOMBSTONES: pa.Schema = _schema(
    {
        "kind": pa.string(),
        "value": pa.string(),
        "reason": pa.string(),
        "round": pa.int64(),
        "time": pa.string(),
        "actor": pa.string(),
        "schema_version": pa.int32(),
    }
)

LATER = ("cluster", "attack_thought", "answer_thought", "said")
"""Columns that earlier versions did not have, of the pool or of transcripts: their rows have no value there."""

_ALLOWED = {"label": ("harmful", "benign"), "status": ("ok", "void")}
_TOMBSTONE = {"kind": ("attack_id", "seed_source"), "reason": ("forgotten", "evicted")}
"""Allowed in tombstones: games have columns of these names too."""
_COUNTS = ("origin_round", "origin_step", "round", "step", "unsafe", "answers", "refused", "void")
_IDS = ("attack_id", "event_id", "cluster")
_TEXTS = ("text", "seed")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STACK = re.compile(r"\d+: ")


def part(schema: pa.Schema, columns: tuple[str, ...]) -> pa.Schema:
    """The schema of a reading of some columns, in the order given."""
    return pa.schema([schema.field(name) for name in columns])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns of `table`, in its order and types. Raises ValueError naming row, column and value."""
    columns = []
    for field in schema:
        found = table.column_names.count(field.name)
        if not found and field.name in LATER:
            table, found = table.append_column(field, pa.nulls(table.num_rows, field.type)), 1
        if found != 1:
            raise ValueError(f"column `{field.name}` is there {found} times")
        columns.append(_as_type(table.column(field.name), field))
    clean = pa.table(columns, schema=schema)
    for message in _problems(clean):
        raise ValueError(message)
    return clean


def newest_version(table: pa.Table) -> int:
    """The highest schema version among the rows; 0 without rows or without a whole-number column for it."""
    if "schema_version" not in table.column_names or not pa.types.is_integer(table["schema_version"].type):
        return 0
    return int(pc.max(table["schema_version"]).as_py() or 0)


def _as_type(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if column.type != field.type and not _castable(column.type, field.type):
        raise ValueError(f"column `{field.name}` is {column.type}, it must be {field.type}")
    try:
        typed = column.cast(field.type)
        typed.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(f"column `{field.name}` does not fit {field.type} ({one_line(error)})") from error
    return typed


def _castable(have: pa.DataType, want: pa.DataType) -> bool:
    """Only the storage form may differ: a label or number kept as text is somebody else's table."""
    if pa.types.is_null(have):
        return True
    if pa.types.is_string(want):
        return bool(pa.types.is_large_string(have) or pa.types.is_string_view(have))
    if pa.types.is_integer(want):
        return bool(pa.types.is_integer(have))
    if pa.types.is_fixed_size_list(want):
        return bool(getattr(have, "value_type", None) == want.value_type)
    return bool(pa.types.is_float64(want) and pa.types.is_float32(have))


def _problems(table: pa.Table) -> Iterator[str]:
    names = table.column_names
    for field in table.schema:
        if not field.nullable:
            yield from _rows(table, field.name, pc.is_null(table[field.name]), "must not be missing")
    allowed = {**_ALLOWED, **(_TOMBSTONE if set(names) <= set(TOMBSTONES.names) else {})}
    for name in (n for n in names if n in allowed):
        outside = pc.invert(pc.is_in(table[name], value_set=pa.array(allowed[name])))
        yield from _rows(table, name, outside, f"must be one of {', '.join(allowed[name])}")
    for name in (n for n in names if n in _COUNTS and pa.types.is_integer(table.schema.field(n).type)):
        yield from _rows(table, name, pc.less(table[name], 0), "must not be negative")
    for name in (n for n in names if n in _IDS):
        named = pc.match_substring_regex(table[name], "^[0-9a-f]{32}$")
        yield from _rows(table, name, pc.invert(named), "must be 32 hexadecimal digits")
    for name in (n for n in names if n in _TEXTS):
        yield from _rows(table, name, pc.greater(pc.utf8_length(table[name]), MAX_TEXT), "is too long")
    if {"answers", "defender_reward", "status"} <= set(names):
        yield from _judged(table)


def _judged(table: pa.Table) -> Iterator[str]:
    judged = pc.equal(table["status"], "ok")
    for name in ("unsafe", "refused"):
        if name in table.column_names:
            yield from _rows(table, name, pc.greater(table[name], table["answers"]), "must not exceed `answers`")
    empty = pc.not_equal(judged, pc.greater(table["answers"], 0))
    yield from _rows(table, "status", empty, "must be ok with judged answers and void without")
    reward = table["defender_reward"]
    inside = pc.fill_null(pc.and_(pc.greater_equal(reward, 0.0), pc.less_equal(reward, 1.0)), False)
    unsound = pc.if_else(judged, pc.invert(inside), pc.is_valid(reward))
    yield from _rows(table, "defender_reward", unsound, "must be 0 to 1 if status is ok, missing if void")


def _rows(table: pa.Table, column: str, wrong: pa.ChunkedArray, rule: str) -> Iterator[str]:
    """A line for a mask of wrong rows, naming the first (from 0); nothing when there is none."""
    rows = np.flatnonzero(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False))
    if len(rows):
        value = table[column][int(rows[0])].as_py()
        shown = f"{len(value):,} characters long" if column in _TEXTS and value else repr(value)[:80]
        yield f"row {rows[0]}: `{column}` is {shown}; it {rule}"


def one_line(error: BaseException) -> str:
    """Another library's message as part of one line of ours: colours, arrows and stack traces taken out."""
    lines = [_COLOUR.sub("", line).strip(" \t↳") for line in str(error).splitlines()]
    told = takewhile(lambda line: not _STACK.match(line), (line for line in lines if line))
    return ": ".join(told)[:400] or type(error).__name__
