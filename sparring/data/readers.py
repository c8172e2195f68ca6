"""Reads rows from JSONL, CSV and Parquet with bounded memory; every fault names file and row.

Nothing is read past the limits: a line of a gigabyte is refused after its first few megabytes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.errors import DataError

MAX_LINE_BYTES: Final = 4 << 20
"""Longest line of a text file, and longest CSV row over all its lines."""
MAX_GROUP_BYTES: Final = 2 << 30
"""Largest row group of a Parquet file, uncompressed."""


@dataclass(frozen=True)
class Row:
    """One row: its place for messages (`file: row 3`), its number (data rows from 1) and its fields."""

    place: str
    number: int
    fields: Mapping[str, object]


Reader = Callable[[Path], Iterator[Row]]


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of one file, chosen by its suffix. Raises DataError: unreadable, empty, binary, cut off, too long."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of file", hint=f"known are {', '.join(READERS)}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        yield from reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield Row(f"{path}: row {number}", number, _json_object(line, f"{path}: row {number}"))


def _json_object(line: str, place: str) -> Mapping[str, object]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        cut_off = error.pos >= len(line.rstrip()) or "Unterminated" in error.msg
        what = "the JSON ends too early (is the file cut off?)" if cut_off else f"not JSON: {error.msg}"
        raise DataError(f"{place}: {what}, at character {error.pos + 1}") from error
    except (RecursionError, ValueError) as error:  # nesting without end, a number of thousands of digits
        raise DataError(f"{place}: not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{place}: a JSON {type(found).__name__} where an object is expected", hint="one object a line")
    return found


def _csv(path: Path) -> Iterator[Row]:
    lines = _Budget(path)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        lines.start_row(number)
        try:
            cells = next(reader, None)
        except csv.Error as error:
            what = "a quoted cell never ends (is the file cut off?)" if "unexpected end" in str(error) else str(error)
            raise DataError(f"{path}: row {number} (line {reader.line_num}): not CSV: {what}") from error
        if cells is None:
            return
        if header is None:
            header = _header(cells, path)
        elif cells:
            yield Row(f"{path}: row {number}", number, _csv_fields(header, cells, f"{path}: row {number}"))
        number += 1 if cells else 0


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {twice[0]!r} twice")
    return names


def _csv_fields(header: list[str], cells: list[str], place: str) -> Mapping[str, object]:
    if len(cells) != len(header):
        raise DataError(f"{place}: {len(cells)} cells, but the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


class _Budget:
    """Lines of a CSV file that stop when one row, over all its lines, grows past the limit."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines, self._row, self._used = path, _lines(path), 0, 0

    def start_row(self, number: int) -> None:
        self._row, self._used = number, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._used += len(line)
        if self._used > MAX_LINE_BYTES:
            raise DataError(f"{self._path}: row {self._row} is longer than {MAX_LINE_BYTES >> 20} MiB (an open quote?)")
        return line


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends, decoded. Only a bounded piece of the file is in memory."""
    with path.open("rb") as file:
        _refuse_utf16(file, path)
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            yield _decoded(line, f"{path}: row {number}" if path.suffix.lower() != ".csv" else f"{path}: line {number}")


def _refuse_utf16(file: BinaryIO, path: Path) -> None:
    start = file.read(3)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: UTF-16 text", hint="save the file as UTF-8")
    if start != b"\xef\xbb\xbf":  # a UTF-8 byte order mark is skipped
        file.seek(0)


def _decoded(line: bytes, place: str) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise DataError(f"{place}: the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    if b"\0" in line:
        raise DataError(f"{place}: holds a NUL byte: a binary file?")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 at byte {error.start + 1} of the line", hint="save it as UTF-8") from error


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = _text_columns(file, path)
            for batch in file.iter_batches(batch_size=1024, columns=names):
                batch.validate(full=True)  # a damaged page may hold bytes that are no UTF-8
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}: row {number}", number, fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a readable Parquet file (after row {number}): {reason}") from error


def _text_columns(file: pq.ParquetFile, path: Path) -> list[str]:
    """Names of the flat columns and of lists of text (choices); other nested ones are never read.

    Refuses row groups too large to hold.
    """
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        # Not asked column by column: pyarrow's accessor ends the process on some damaged files instead of raising.
        if metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
            raise DataError(f"{path}: row group {group} is larger than {MAX_GROUP_BYTES >> 30} GiB")
    return [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type) or _texts(field.type)]


def _texts(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)))


READERS: Final[Mapping[str, Reader]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""File suffix → its reader. A new format is one function and one line here."""
