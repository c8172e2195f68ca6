"""The pool in a folder and in a real S3 bucket: appends, draws, racing writers, damaged tables."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sparring.config.run import ReplayConfig
from sparring.errors import CorruptError, DataError, NotFoundError, SparringError, StoreError
from sparring.replay import pool as pools
from sparring.replay.draw import draw_for_round
from sparring.replay.pool import DRAWN, Pool
from sparring.replay.schema import SCHEMA_VERSION
from sparring.store import Store, open_store
from tests.replay.rows import CHAMPION, attack_rows, name, outcome_rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store")).scope("lines/default")


def filled(store: Store, count: int = 6) -> Pool:
    pool = Pool(store)
    pool.append(attack_rows(range(count)), outcome_rows(range(count)))
    return pool


def rows_of(store: Store, table: str) -> int:
    uri, options = store.delta(f"pool/{table}")
    return int(DeltaTable(uri, storage_options=options).to_pyarrow_table().num_rows)


def test_append_state_and_draw_in_any_store(any_store: Store) -> None:
    store = any_store.scope("lines/default")
    pool = Pool(store)
    assert len(pool.state(CHAMPION)) == 0
    assert list(pool.contents.attack_tables(["embedding"])) == []
    assert draw_for_round(ReplayConfig(), pool, CHAMPION, 4, 0).num_rows == 0
    assert pool.append(attack_rows(range(6)), outcome_rows(range(4))) == (6, 0, 4)
    assert pool.append(attack_rows(range(4, 8)), outcome_rows(range(6))) == (2, 2, 2)
    assert pool.append(attack_rows(range(8)), outcome_rows(range(6))) == (0, 8, 0)
    assert (rows_of(store, "attacks"), rows_of(store, "outcomes")) == (8, 6)
    state = Pool(store).state(CHAMPION)
    assert state.visits.sum() == 6
    assert state.answers.sum() == 24
    drawn = draw_for_round(ReplayConfig(sampler="ucb"), pool, CHAMPION, 4, 0)
    assert drawn.column_names == list(DRAWN)
    assert drawn["label"].to_pylist() == ["harmful", "benign"] * 2
    assert set(drawn["attack_id"].to_pylist()) >= {name(6), name(7)}  # never visited: drawn first
    order = np.array([name(i) for i in range(8)])
    parts = [_codes(table) for table in pool.contents.attack_tables(["embedding"])]
    assert np.array_equal(np.sort(np.concatenate(parts), axis=0), np.sort(_codes(attack_rows(range(8))), axis=0))
    assert pool.attacks(order.tolist())["text"].to_pylist() == [f"attack {i}" for i in range(8)]


def _codes(table: pa.Table) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.array(table["embedding"].to_pylist(), dtype=np.int8)


def test_a_rejected_candidate_moves_nothing_until_it_is_accepted(store: Store) -> None:
    pool = filled(store)
    before = pool.state(CHAMPION)
    pool.append(attack_rows([]), outcome_rows(range(6), step=1, defender="rejected", reward=0.0))
    after = pool.state(CHAMPION)
    for column in vars(before):
        assert np.array_equal(getattr(before, column), getattr(after, column)), column
    config = ReplayConfig()
    assert draw_for_round(config, pool, CHAMPION, 3, 7) == draw_for_round(config, pool, CHAMPION, 3, 7)
    assert pool.state(CHAMPION | {"rejected"}).visits.tolist() == [2] * 6
    assert pool.state(frozenset()).visits.tolist() == [0] * 6


def test_a_draw_follows_the_rewards_and_the_quota(store: Store) -> None:
    pool = Pool(store)
    pool.append(attack_rows(range(9)), outcome_rows([1, 3, 0, 2], reward=0.9))
    pool.append(attack_rows([]), outcome_rows([5, 7, 4, 6, 8], reward=0.1))
    config = ReplayConfig(sampler="ucb", ucb_c=0.01)

    def drawn(k: int, **more: Any) -> list[int]:
        table = draw_for_round(config, pool, CHAMPION, k, 3, **more)
        return [int(text.removeprefix("attack ")) for text in table["text"].to_pylist()]

    assert set(drawn(4)) < {5, 7, 4, 6, 8}
    assert [number % 2 for number in drawn(5)] == [1, 0, 1, 0, 1]
    assert sorted(drawn(99)) == list(range(9))
    assert sorted(drawn(7, exclude=[name(5), name(7)])) == [0, 1, 2, 3, 4, 6, 8]
    assert [number % 2 for number in drawn(7)].count(1) == 4  # four harmful there: all of them, then benign ones
    assert draw_for_round(ReplayConfig(sampler="none"), pool, CHAMPION, 4, 0).num_rows == 0
    uniform = ReplayConfig(sampler="uniform")
    assert draw_for_round(uniform, pool, CHAMPION, 4, 1) == draw_for_round(uniform, pool, CHAMPION, 4, 1)
    with pytest.raises(NotFoundError, match=f"attack {name('never')} is not in the pool"):
        pool.attacks([name(0), name("never")])


def test_of_racing_rows_of_one_attack_the_earliest_stands(store: Store) -> None:
    """Two writers that looked before either wrote both append; the table then holds the attack twice."""
    pool = filled(store, 2)
    uri, options = store.delta("pool/attacks")
    write_deltalake(uri, attack_rows([0], text="ATTACK 0", origin_round=0), mode="append", storage_options=options)
    assert len(pool.state(CHAMPION)) == 2
    assert pool.attacks([name(0)])["text"].to_pylist() == ["ATTACK 0"]
    assert pool.origins().num_rows == 2


def test_racing_writers_all_land(any_store_url: str) -> None:
    """From an empty store, so that they also race to create the tables."""
    writers = 4
    barrier = threading.Barrier(writers)

    def write(writer: int) -> None:
        pool = Pool(open_store(any_store_url))
        barrier.wait(60)
        for turn in range(3):
            mine = [100 * writer + turn, 7]  # attack 7 is everybody's
            pool.append(attack_rows(mine), outcome_rows(mine, step=turn))

    with ThreadPoolExecutor(writers) as workers:
        list(workers.map(write, range(writers)))
    pool = Pool(open_store(any_store_url))
    expected = {name(100 * writer + turn) for writer in range(writers) for turn in range(3)} | {name(7)}
    assert pool.ids() == expected
    state = pool.state(CHAMPION)
    visits = dict(zip(state.names(np.arange(len(state))), state.visits.tolist(), strict=True))
    assert visits == {one: 3 if one == name(7) else 1 for one in expected}


class _Killed(Exception):
    pass


class _Dying:
    """An append that ends the process' work at its first, or second, call."""

    def __init__(self, survive: int) -> None:
        self.calls, self.survive = 0, survive

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.calls += 1
        if self.calls > self.survive:
            raise _Killed
        write_deltalake(*arguments, **options)


@pytest.mark.parametrize("survive", [0, 1])
def test_killed_between_the_tables_the_same_call_finishes(
    store: Store, monkeypatch: pytest.MonkeyPatch, survive: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sparring.replay.tables.write_deltalake", _Dying(survive))
        with pytest.raises(_Killed):
            filled(store)
    assert filled(store).state(CHAMPION).visits.tolist() == [1] * 6
    assert (rows_of(store, "attacks"), rows_of(store, "outcomes")) == (6, 6)


def as_bytes(rows: pa.Table) -> pa.Table:
    """The texts as another program may hand them over."""
    return rows.set_column(1, "text", rows["text"].cast(pa.binary()))


def latin_1(rows: pa.Table) -> pa.Table:
    """Texts that claim to be UTF-8 and are not."""
    text = pa.array(["caf\xe9".encode("latin-1")] * rows.num_rows)
    return rows.set_column(1, "text", pa.StringArray.from_buffers(len(text), text.buffers()[1], text.buffers()[2]))


@pytest.mark.parametrize(
    ("attacks", "outcomes", "message"),
    [
        (attack_rows([9], label="odd"), outcome_rows([]), "row 0: `label` is 'odd'; it must be one of harmful, benign"),
        (attack_rows([9], attack_id="9"), outcome_rows([]), "`attack_id` is '9'; it must be 32 hexadecimal digits"),
        (attack_rows([9], text="x" * 1_000_001), outcome_rows([]), "is 1,000,001 characters long; it is too long"),
        (attack_rows([9], text="x" * 10_000_000), outcome_rows([]), "row 0: `text` is 10,000,000 characters long"),
        (latin_1(attack_rows([9])), outcome_rows([]), "column `text` does not fit string .*(?i:utf-?8)"),
        (as_bytes(attack_rows([9])), outcome_rows([]), "column `text` is binary, it must be string"),
        (attack_rows([9]).drop_columns("text"), outcome_rows([]), "column `text` is there 0 times"),
        (attack_rows([9]), outcome_rows([9], reward=1.5), "`defender_reward` is 1.5; it must be 0 to 1"),
        (attack_rows([9]), outcome_rows([9], reward=float("nan")), "`defender_reward` is nan"),
        (attack_rows([9]), outcome_rows([99]), f"attack {name(99)} is not in the pool"),
    ],
)
def test_unfit_rows_are_named_and_leave_the_pool_alone(
    store: Store, attacks: pa.Table, outcomes: pa.Table, message: str
) -> None:
    pool = filled(store)
    with pytest.raises(DataError, match=message) as caught:
        pool.append(attacks, outcomes)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert (rows_of(store, "attacks"), rows_of(store, "outcomes")) == (6, 6)


def _parquet(folder: Path) -> Path:
    return next(folder.glob("*.parquet"))


def _rewrite(folder: Path, table: pa.Table) -> None:
    """Puts another table into the pool's file, with a log that agrees about its size."""
    path = _parquet(folder)
    size = path.stat().st_size
    pq.write_table(table, path)
    log = folder / "_delta_log" / "00000000000000000001.json"
    log.write_text(log.read_text().replace(f'"size":{size}', f'"size":{path.stat().st_size}'))


def _flip(folder: Path) -> None:
    data = bytearray(_parquet(folder).read_bytes())
    data[-200:-100] = b"\xff" * 100
    _parquet(folder).write_bytes(bytes(data))


def _cut(folder: Path) -> None:
    path = _parquet(folder)
    path.write_bytes(path.read_bytes()[:-9])


def _scribble(folder: Path) -> None:
    path = _parquet(folder)
    path.write_bytes(b"x" * path.stat().st_size)


def _first_commit(folder: Path) -> Path:
    return folder / "_delta_log" / f"{0:020}.json"


def _future(folder: Path) -> None:
    _rewrite(folder, attack_rows(range(6), schema_version=SCHEMA_VERSION + 1))


def _numbered_labels(folder: Path) -> None:
    _rewrite(folder, attack_rows([1]).set_column(4, "label", pa.array([1])))


DAMAGE: dict[str, tuple[Callable[[Path], object], type[StoreError], str]] = {
    "cut": (_cut, CorruptError, "bytes, the Delta log says"),
    "emptied": (lambda f: _parquet(f).write_bytes(b""), CorruptError, "has 0 bytes, the Delta log says"),
    "flipped": (_flip, CorruptError, r"\.parquet: "),
    "gone": (lambda f: _parquet(f).unlink(), CorruptError, "is in the Delta log but not in the store"),
    "no parquet": (_scribble, CorruptError, r"\.parquet: "),
    "binary log": (lambda f: _first_commit(f).write_bytes(b"\x00\xff"), CorruptError, "Delta log of"),
    "no first commit": (lambda f: _first_commit(f).unlink(), CorruptError, "Delta log of"),
    "future rows": (
        _future,
        StoreError,
        "newer release: schema version 3, .* up to 2; upgrade sparring",
    ),
    "wrong type": (_numbered_labels, CorruptError, "column `label` is int64, it must be string"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_one_clear_line_and_stays_as_it_is(store: Store, damage: str) -> None:
    pool = filled(store)
    folder = Path(store.delta("pool/attacks")[0])
    hurt, kind, message = DAMAGE[damage]
    hurt(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    config = ReplayConfig()
    for use in (lambda: pool.state(CHAMPION), lambda: draw_for_round(config, pool, CHAMPION, 2, 0)):
        with pytest.raises(kind, match=f"pool/attacks.*{message}|{message}.*pool/attacks") as caught:
            use()
        assert "\n" not in str(caught.value)
    if damage != "wrong type":  # an append does not read the labels
        with pytest.raises(kind, match=message):
            pool.append(attack_rows([50]), outcome_rows([50]))
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_embedding_of_another_length_is_corrupt(store: Store) -> None:
    pool = filled(store)
    short = pa.array([[1, 2]], pa.list_(pa.int8()))
    _rewrite(Path(store.delta("pool/attacks")[0]), attack_rows([1]).set_column(12, "embedding", short))
    with pytest.raises(CorruptError, match="column `embedding` does not fit"):
        list(pool.contents.attack_tables(["embedding"]))


def test_another_programs_table_is_refused_and_left_alone(store: Store) -> None:
    uri, _ = store.delta("pool/attacks")
    write_deltalake(uri, pa.table({"name": ["theirs"]}))
    for use in (lambda: Pool(store).state(CHAMPION), lambda: filled(store)):
        with pytest.raises(CorruptError, match="another program's Delta table"):
            use()
    assert DeltaTable(uri).to_pyarrow_table().to_pylist() == [{"name": "theirs"}]


def test_a_table_that_needs_a_newer_delta_reader_is_refused(store: Store) -> None:
    pool = filled(store)
    log = Path(store.delta("pool/outcomes")[0]) / "_delta_log" / f"{0:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            line["protocol"]["minReaderVersion"] = 2
    log.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(StoreError, match="needs Delta reader version 2, this release reads 1"):
        pool.state(CHAMPION)


def test_rows_cannot_be_deleted_by_other_delta_programs(store: Store) -> None:
    filled(store)
    table = DeltaTable(store.delta("pool/attacks")[0])
    with pytest.raises(Exception, match=r"(?i)append"):
        table.delete("label = 'harmful'")
    assert rows_of(store, "attacks") == 6


def test_a_store_without_permission_is_an_error_and_no_empty_pool(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(SparringError):
        filled(store)
    assert pools.Pool(open_store(str(tmp_path / "other"))).ids() == set()
    assert not (tmp_path / "other").exists()


def test_compaction_by_any_delta_program_changes_nothing(store: Store) -> None:
    pool = filled(store)
    pool.append(attack_rows(range(6, 9)), outcome_rows(range(9), step=1))
    before = pool.state(CHAMPION)
    DeltaTable(store.delta("pool/attacks")[0]).optimize.compact()
    DeltaTable(store.delta("pool/outcomes")[0]).optimize.compact()
    after = pool.state(CHAMPION)
    for column in vars(before):
        assert np.array_equal(getattr(before, column), getattr(after, column)), column


def test_the_pool_moves_with_its_folder(store: Store, tmp_path: Path) -> None:
    filled(store)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    assert len(Pool(open_store(str(tmp_path / "copy")).scope("lines/default")).state(CHAMPION)) == 6
