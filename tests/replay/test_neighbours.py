"""The cache of embeddings: exact where it must be, brought up to date, made again when it does not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from sparring.errors import StoreError
from sparring.replay import neighbours
from sparring.replay.files import DataFile
from sparring.replay.neighbours import open_neighbours
from sparring.replay.vectors import Codes, cosines, encode


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def groups(count: int, seed: int, size: int = 20) -> Codes:
    """Codes around `size` directions."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(7).normal(size=(size, 384))
    return encode((middle[rng.integers(0, size, count)] + 0.6 * rng.normal(size=(count, 384))).astype(np.float32))


class Table:
    """An attacks table of some files; attack i leads the cluster of those after it up to the next multiple of 4."""

    def __init__(self, codes: Codes, *sizes: int) -> None:
        self.codes, self.files, self.read, start = codes, {}, list[str](), 0
        for size in sizes:
            self.files[f"{start}+{size}"] = (start, start + size)
            start += size

    def attack_files(self) -> list[DataFile]:
        return [DataFile(path, 0, 0, {}, {}) for path in self.files]

    def attack_file(self, file: DataFile, columns: Sequence[str]) -> pa.Table:
        self.read.append(file.path)
        start, end = self.files[file.path]
        found = pa.FixedSizeListArray.from_arrays(pa.array(self.codes[start:end].ravel()), 384)
        rows = {
            "attack_id": [name(i) for i in range(start, end)],
            "cluster": [name(i - i % 4) for i in range(start, end)],
        }
        return pa.table({**rows, "embedding": found}).select(list(columns))


def brute(table: Table, asked: Codes) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Nearest cosine and nearest leader by all pairs."""
    found = cosines(asked, table.codes)
    leaders = list(range(0, len(table.codes), 4))
    return found.max(axis=1), [name(leaders[i]) for i in found[:, leaders].argmax(axis=1)]


def test_without_a_graph_everything_is_exact(tmp_path: Path) -> None:
    table, asked = Table(groups(300, 1), 100, 0, 200), groups(40, 2)
    cosine, leaders = brute(table, asked)
    near = open_neighbours(table, tmp_path).near(asked)
    assert np.array_equal(near.cosine, cosine)
    assert near.leader == leaders


def test_graphs_and_tail_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SEGMENT", 512)
    table, asked = Table(groups(1500, 3), 900, 600), groups(60, 4)
    asked[:20] = table.codes[::75][:20]
    for _ in range(3):  # one graph is built at each opening
        found = open_neighbours(table, tmp_path)
    assert sorted(path.name[:2] for path in tmp_path.glob("*.usearch")) == ["0-", "1-"]
    cosine, leaders = brute(table, asked)
    near = found.near(asked)
    assert (near.cosine == cosine).mean() > 0.95
    assert (near.cosine[:20] == cosine[:20]).mean() >= 0.9  # threads build the graphs, in any order
    assert (np.array(near.leader) == np.array(leaders)).mean() > 0.8
    rest = [i for i, leader in enumerate(near.leader) if leader]
    exact = cosines(asked, table.codes[[next(k for k in range(1500) if name(k) == near.leader[i]) for i in rest]])
    assert np.array_equal(near.leader_cosine[rest], exact[rest, range(len(rest))])


def test_only_new_files_are_read_and_a_compacted_table_is_read_anew(tmp_path: Path) -> None:
    table = Table(groups(120, 5), 50, 30)
    assert len(open_neighbours(table, tmp_path)) == 80
    table.files["80+40"] = (80, 120)
    assert len(open_neighbours(table, tmp_path)) == 120
    assert table.read == ["0+50", "50+30", "80+40"]
    table.files = {"0+120": (0, 120)}
    found = open_neighbours(table, tmp_path)
    assert len(found) == 120 and table.read[3:] == ["0+120"]
    assert found.known([name(119), name(120), name(0)]).tolist() == [True, False, True]


@pytest.mark.parametrize("damage", ["gone", "cut", "map", "torn", "graph"])
def test_a_damaged_cache_is_made_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SEGMENT", 64)
    table, asked = Table(groups(100, 6), 100), groups(10, 7)
    before = open_neighbours(table, tmp_path).near(asked)
    if damage == "gone":
        (tmp_path / "ids").unlink()
    elif damage == "cut":
        (tmp_path / "codes.i8").write_bytes((tmp_path / "codes.i8").read_bytes()[:-1])
    elif damage == "map":
        (tmp_path / "map.json").write_text(json.dumps({"version": 1, "files": [["0+100", "x"]]}))
    elif damage == "torn":  # killed between the rows and the map
        (tmp_path / "map.json").unlink()
    else:
        (graph,) = tmp_path.glob("0-*.usearch")
        graph.write_bytes(graph.read_bytes()[:2000])
    after = open_neighbours(table, tmp_path).near(asked)
    assert np.array_equal(after.cosine, before.cosine)
    assert after.leader == before.leader


@pytest.mark.parametrize("version", [True, False], ids=["another version", "lost"])
def test_graphs_without_their_map_are_not_taken_for_other_rows(
    version: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files may be read in another order the next time: row numbers in old graphs then mean other attacks."""
    monkeypatch.setattr(neighbours, "SEGMENT", 64)
    table = Table(groups(300, 6), 100, 100, 100)
    for _ in range(5):
        open_neighbours(table, tmp_path)
    if version:
        (tmp_path / "map.json").write_text(json.dumps({"version": 0, "files": [["0+100", 100]]}))
    else:
        (tmp_path / "map.json").unlink()
    table.files = dict(reversed(table.files.items()))
    found = open_neighbours(table, tmp_path)
    assert (found.near(table.codes).cosine > 0.999).mean() > 0.95


def test_an_empty_pool_is_near_to_nothing(tmp_path: Path) -> None:
    found = open_neighbours(Table(groups(0, 0)), tmp_path)
    near = found.near(groups(3, 1))
    assert near.cosine.tolist() == [-1.0] * 3 and near.leader == [""] * 3
    assert found.near(groups(0, 1)).leader == []


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use the cache .*SPARRING_WORK"):
        open_neighbours(Table(groups(3, 0), 3), tmp_path / "file")
