"""Nearest pooled attacks without loading the pool: int8 codes and an index, both memory-mapped, in a local cache.

    cache/  map.json        which files of the table the rows come from, in order; written last
            codes.i8        the embeddings, one row after the other
            ids, leaders    16 bytes a row: the attack, and the leader of its cluster
            0-….usearch …   an HNSW graph (usearch, arXiv 1603.09320) of each 65,536 rows, never changed once written

What the graphs find is compared again, exactly; rows that no graph holds yet are all compared. So a pool under 65,536
attacks is searched exactly, and a larger one misses what the graphs miss: measured in docs/measured.md. Every update
takes in the files that are new to the cache and builds at most one graph, so that a fresh machine is not held up for
minutes. A cache that is missing, damaged or of other files is made again: it is never the only copy.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sparring.embedding import DIMENSION
from sparring.errors import StoreError
from sparring.replay.files import DataFile
from sparring.replay.vectors import Codes, Cosines, Mask, Numbers, cosines, nearest

Ids = npt.NDArray[np.uint64]
"""Attack ids as numbers, shape (n, 2)."""

SEGMENT: Final = 1 << 16
FOUND: Final = 16
"""Rows that each graph is asked for."""
_VERSION: Final = 1
_ID_BYTES: Final = 16
COLUMNS: Final = ("attack_id", "cluster", "embedding")


class Source(Protocol):
    """The attacks table, file by file."""

    def attack_files(self) -> Sequence[DataFile]:
        """The files that make up the table now. A file never changes under its name."""

    def attack_file(self, file: DataFile, columns: Sequence[str]) -> pa.Table:
        """Some columns of one file, checked; repeated rows are still in it."""


@dataclass(frozen=True)
class Near:
    """For each of n codes: cosine of the nearest pooled attack, and the nearest leader found with its cosine.

    A cosine is −1 where there is none, and the leader then an empty text.
    """

    cosine: Cosines
    leader: list[str]
    leader_cosine: Cosines

    def take(self, rows: Numbers) -> Near:
        """Those of some codes."""
        return Near(self.cosine[rows], [self.leader[row] for row in rows.tolist()], self.leader_cosine[rows])


class Neighbours:
    """The table's embeddings as of one opening.

    Attacks that were forgotten or evicted are among them until a compaction purges their rows: new attacks are held
    against them too, so that a repeated step decides the same after an eviction.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._codes: Codes = _mapped(folder / "codes.i8", np.int8, rows, DIMENSION)
        self._ids: Ids = _mapped(folder / "ids", np.uint64, rows, 2)
        self._leaders: Ids = _mapped(folder / "leaders", np.uint64, rows, 2)
        self._graphs = [_view(path) for path in _graphs(folder)]

    def __len__(self) -> int:
        return self._rows

    def known(self, ids: Sequence[str]) -> Mask:
        """Which of `ids` the table holds."""
        return _isin(to_numbers(ids), self._ids)

    def near(self, codes: Codes) -> Near:
        """The nearest attacks and leaders of `codes`, shape (n, 384)."""
        tail = min(len(self._graphs) * SEGMENT, self._rows)
        best, leader, leader_cosine = self._by_graphs(codes)
        rest = self._codes[tail:]
        _, value = nearest(codes, rest, np.ones(len(rest), dtype=np.bool_))
        row, cosine = nearest(codes, rest, (self._ids[tail:] == self._leaders[tail:]).all(axis=1))
        leader = np.where(cosine > leader_cosine, tail + row, leader)
        names = [to_text(self._ids[row : row + 1])[0] if row >= 0 else "" for row in leader.tolist()]
        return Near(np.maximum(best, value), names, np.maximum(cosine, leader_cosine))

    def _by_graphs(self, codes: Codes) -> tuple[Cosines, Numbers, Cosines]:
        """Best cosine of what the graphs find, and the best of the leaders of what they find (row and cosine)."""
        best, cosine = np.full(len(codes), -1.0, dtype=np.float32), np.full(len(codes), -1.0, dtype=np.float32)
        leader = np.full(len(codes), -1, dtype=np.int64)
        if not self._graphs or not len(codes):
            return best, leader, cosine
        found = np.concatenate([self._asked(number, codes) for number in range(len(self._graphs))], axis=1)
        leaders = self._rows_of(self._leaders[found])
        for number, (rows, theirs) in enumerate(zip(found, leaders, strict=True)):
            code = codes[number : number + 1]
            best[number] = self._best(code, rows)[1]
            leader[number], cosine[number] = self._best(code, theirs[theirs >= 0])
        return best, leader, cosine

    def _asked(self, number: int, codes: Codes) -> Numbers:
        """Rows that a graph finds, shape (n, FOUND)."""
        matches = self._graphs[number].search(codes, FOUND)
        rows: Numbers = matches.keys.reshape(len(codes), -1).astype(np.int64)
        return rows

    def _best(self, code: Codes, rows: Numbers) -> tuple[int, float]:
        """The nearest row of `rows`, compared exactly."""
        rows = np.unique(rows)
        if not len(rows):
            return -1, -1.0
        found = cosines(code, self._codes[rows])[0]
        return int(rows[found.argmax()]), float(found.max())

    def _rows_of(self, ids: Ids) -> Numbers:
        """Rows of attack ids, shape as of `ids` without its last axis; −1 where an id is not there."""
        wanted, inverse = np.unique(ids[..., 0], return_inverse=True)
        rows = np.flatnonzero(np.isin(self._ids[:, 0], wanted))[::-1]  # of repeated rows the first
        found = np.full(len(wanted), -1, dtype=np.int64)
        found[wanted.searchsorted(self._ids[rows, 0])] = rows
        return found[inverse.reshape(ids.shape[:-1])]


def open_neighbours(source: Source, cache: Path) -> Neighbours:
    """The neighbours of a pool by way of `cache`, which is brought up to date first. Raises StoreError and what the
    source raises.
    """
    try:
        with _locked(cache):
            files = _fitting(cache, source.attack_files())
            rows = _take_in(source, cache, files)
            _build(cache, rows)
            return Neighbours(cache, rows)
    except OSError as error:
        raise StoreError(
            f"cannot use the cache {cache}: {error.strerror or error}", hint="name another with SPARRING_WORK"
        ) from error


def to_numbers(ids: Sequence[str]) -> Ids:
    """Attack ids, 32 hexadecimal digits each, as pairs of numbers."""
    found: Ids = np.frombuffer(bytes.fromhex("".join(ids)), dtype=np.uint64).reshape(-1, 2)
    return found


def to_text(ids: Ids) -> list[str]:
    """The reverse of `to_numbers`."""
    return [row.tobytes().hex() for row in ids]


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One process at a time: the others wait, as an update takes seconds."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Files:
    """Files that the cache holds, with their rows, and those that it lacks."""

    held: list[tuple[str, int]]
    missing: list[DataFile]

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.held)


def _fitting(cache: Path, wanted: Sequence[DataFile]) -> _Files:
    """What of the cache can be kept. A file of it that is no more (the table was compacted) makes all of it useless."""
    held = _read_map(cache)
    names = {name for name, _ in held}
    files = _Files(held, [file for file in wanted if file.path not in names])
    lengths = {"codes.i8": DIMENSION, "ids": _ID_BYTES, "leaders": _ID_BYTES}
    fits = names <= {file.path for file in wanted} and all(
        (cache / name).is_file() and (cache / name).stat().st_size >= files.rows * width
        for name, width in lengths.items()
    )
    if fits and held:
        return files
    _clear(cache)  # also without a map: what graphs lie there are of other rows
    return _Files([], list(wanted))


def _read_map(cache: Path) -> list[tuple[str, int]]:
    try:
        found = json.loads((cache / "map.json").read_text())
        if found["version"] == _VERSION:
            return [(str(name), int(rows)) for name, rows in found["files"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # no cache, or one that was cut off: it is made again
    return []


def _clear(cache: Path) -> None:
    for path in cache.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _take_in(source: Source, cache: Path, files: _Files) -> int:
    """Appends the missing files' rows; what an earlier, cut off attempt left behind the last row is overwritten."""
    held = list(files.held)
    for file in files.missing:
        table = source.attack_file(file, COLUMNS)
        rows = sum(rows for _, rows in held)
        _write_at(cache / "codes.i8", rows * DIMENSION, codes_of(table["embedding"]).tobytes())
        _write_at(cache / "ids", rows * _ID_BYTES, to_numbers(table["attack_id"].to_pylist()).tobytes())
        _write_at(cache / "leaders", rows * _ID_BYTES, to_numbers(_leaders(table)).tobytes())
        held.append((file.path, table.num_rows))
    if files.missing or not files.held:
        temporary = cache / "map.new"
        temporary.write_text(json.dumps({"version": _VERSION, "files": held}))
        temporary.replace(cache / "map.json")
    return sum(rows for _, rows in held)


def _leaders(table: pa.Table) -> list[str]:
    """Leaders of a file's attacks; who has none leads its own cluster."""
    leaders: list[str] = pc.coalesce(table["cluster"], table["attack_id"]).to_pylist()
    return leaders


def codes_of(column: pa.ChunkedArray) -> Codes:
    """The embeddings of a column, shape (n, 384)."""
    codes: Codes = pc.list_flatten(column).to_numpy().reshape(-1, DIMENSION)
    return codes


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()


def _build(cache: Path, rows: int) -> None:
    """Builds the next graph when its rows are there."""
    from usearch.index import Index

    number = len(_graphs(cache))
    start = number * SEGMENT
    if start + SEGMENT > rows:
        return
    index = Index(ndim=DIMENSION, metric="cos", dtype="i8", connectivity=16, expansion_add=96, expansion_search=96)
    index.add(
        np.arange(start, start + SEGMENT), _mapped(cache / "codes.i8", np.int8, rows, DIMENSION)[start:][:SEGMENT]
    )
    temporary = cache / "graph.new"
    index.save(str(temporary))
    temporary.replace(cache / f"{number}-{temporary.stat().st_size}.usearch")


def _graphs(cache: Path) -> list[Path]:
    """The graphs, from the first without a gap. Each names its size: one that was cut off must not be mapped."""
    sound: dict[str, Path] = {}
    for path in cache.glob("*-*.usearch"):
        number, _, size = path.stem.partition("-")
        if path.stat().st_size == int(size):
            sound[number] = path
        else:
            path.unlink()
    return [sound[str(number)] for number in range(len(sound)) if str(number) in sound]


def _view(path: Path) -> Any:
    from usearch.index import Index

    return Index.restore(str(path), view=True)


def _mapped(path: Path, kind: Any, rows: int, width: int) -> Any:
    """Rows of a file, not loaded. An empty file cannot be mapped."""
    return np.memmap(path, dtype=kind, mode="r", shape=(rows, width)) if rows else np.zeros((0, width), dtype=kind)


def _isin(ids: Ids, others: Ids) -> Mask:
    """Which rows of `ids` stand in `others`, by their first 64 bits: two of 10⁶ ids agree in them once in 10⁷ pools."""
    found: Mask = np.isin(ids[:, 0], others[:, 0])
    return found
