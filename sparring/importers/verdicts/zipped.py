"""Inspect's `.eval` files: a zip of stored, deflated or (inspect_ai 0.3.285) Zstandard entries, method 93.

Python reads method 93 only from 3.14 on: such an entry is found by `zipfile` and unpacked by pyarrow's codec. Every
entry is unpacked in pieces to at most `MAX_ENTRY`, all together to `MAX_TOTAL`, whatever the directory says about
sizes, and its CRC is checked.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from sparring.errors import DataError
from sparring.importers.verdicts.base import Record, as_record

MAX_ENTRY: Final = 64 << 20
"""Largest entry, unpacked, in bytes."""
MAX_TOTAL: Final = 4 << 30
MAX_ENTRIES: Final = 1_000_000
_ZSTD: Final = 93
_LOCAL: Final = struct.Struct("<4s22xHH")
_SAMPLE: Final = re.compile(r"samples/.+_epoch_\d+\.json")


def read_zipped(path: Path) -> tuple[Record, list[Record]]:
    """The header and the samples in the directory's order. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            names = _entries(archive, path)
            if "header.json" not in names:
                raise DataError(
                    f"{path}: no header.json: the run did not end", hint="`inspect log recover`, or run again"
                )
            reader = _Reader(path, archive, raw)
            header = reader.json(names["header.json"])
            return header, [reader.json(names[name]) for name in names if _SAMPLE.fullmatch(name)]
    except (
        OverflowError,
        zipfile.BadZipFile,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a readable .eval file ({reason})", hint="is it cut off?") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or str(error)[:200]}") from error


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > MAX_ENTRIES:
        raise DataError(f"{path}: more than {MAX_ENTRIES:,} entries")
    names = {entry.filename: entry for entry in listed}
    if len(names) != len(listed):
        raise DataError(f"{path}: an entry is there twice", hint="the log was written to after it ended")
    return names


class _Reader:
    """Unpacks entries within one budget."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, raw: IO[bytes]) -> None:
        self._path, self._archive, self._raw, self._left = path, archive, raw, MAX_TOTAL

    def json(self, entry: zipfile.ZipInfo) -> Record:
        """The object in an entry. Raises DataError."""
        place = f"{self._path}: {entry.filename}"
        data = self._bounded(entry, place)
        try:
            return as_record(json.loads(data), place)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON: {str(error)[:200]}") from error

    def _bounded(self, entry: zipfile.ZipInfo, place: str) -> bytes:
        limit = min(MAX_ENTRY, self._left)
        if entry.compress_type == _ZSTD:
            data = self._zstd(entry, place, limit)
        else:
            with self._archive.open(entry) as packed:
                data = packed.read(limit + 1)
        if len(data) > limit:
            raise DataError(f"{place}: larger than {limit >> 20} MiB unpacked", hint="a log of that size is not read")
        self._left -= len(data)
        return data

    def _zstd(self, entry: zipfile.ZipInfo, place: str, limit: int) -> bytes:
        if entry.compress_size > limit or entry.flag_bits & 1:
            raise DataError(f"{place}: too large, or encrypted")
        self._raw.seek(entry.header_offset)
        mark, name, extra = _LOCAL.unpack(self._raw.read(_LOCAL.size))
        if mark != b"PK\x03\x04":
            raise DataError(f"{place}: the directory points elsewhere (is the file cut off?)")
        self._raw.seek(name + extra, 1)
        packed = self._raw.read(entry.compress_size)
        try:
            with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
                data = bytes(stream.read(limit + 1))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{place}: cannot be unpacked ({str(error)[:120]})", hint="is the file damaged?") from error
        if len(data) <= limit and zlib.crc32(data) != entry.CRC:
            raise DataError(f"{place}: its checksum is wrong: the file is damaged")
        return data
