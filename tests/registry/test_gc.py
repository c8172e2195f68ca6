"""gc: what is named or young stays, whatever happens meanwhile; the rest goes, and only the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.errors import CorruptError, StoreError, UsageError
from sparring.registry import serving
from sparring.registry.champion import append, read_log, rollback
from sparring.registry.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from sparring.registry.gc import plan, store_time, sweep
from sparring.registry.marks import Retention
from sparring.store import Store
from sparring.store.base import Entry
from sparring.store.local import LocalStore
from tests.pipelines.planted import plant_model

DAY = 86_400.0
NOTHING_YOUNG = Retention(keep_rounds=0, grace=0.0)


def digest(number: int) -> str:
    return f"{number:064x}"


def age(folder: Path, seconds: float, *prefixes: str) -> None:
    """Makes objects of a folder store older, as time would."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix().startswith(prefixes or ("",)):
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


@dataclass
class World:
    """A small independent model of a line: who named what, kept as plain sets while the history is written."""

    store: Store
    old: set[str] = field(default_factory=set)  # checkpoints and datasets whose objects are old
    all: set[str] = field(default_factory=set)
    datasets: set[str] = field(default_factory=set)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    champions: list[str] = field(default_factory=list)  # by log record, promotions and rollbacks
    waiting: set[str] = field(default_factory=set)
    base: str | None = None

    def thing(self, number: int, top: str, *, is_old: bool, whole: bool = True) -> str:
        name = digest(number)
        head = "manifest.json" if top == "checkpoints" else "card.json"
        self.store.put(f"{top}/{name}/blob", b"12345")
        if whole:
            self.store.put(f"{top}/{name}/{head}", b"{}")
        self.all.add(name)
        if top == "datasets":
            self.datasets.add(name)
        if is_old:
            self.old.add(name)
        return name

    def expected(self, keep_rounds: int, keep_champions: int | None) -> set[str]:
        """Checkpoints and datasets that must be there after a sweep with a grace period of one day."""
        kept = [r for i, r in enumerate(self.rounds) if r["open"] or i >= len(self.rounds) - keep_rounds]
        distinct = list(dict.fromkeys(reversed(self.champions)))
        names = {*distinct[:keep_champions], *self.waiting, *self.champions[:1], *self.champions[-1:], self.base}
        for one in kept:
            names |= {one["candidate"], one["start"], one["seeds"]} | ({one["warm"]} if one["open"] else set())
        names |= {one["seeds"] for one in self.rounds if one["promoted"]}
        return {name for name in self.all if name in names or name not in self.old}


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["reject", "promote", "rollback", "approval", "orphan", "dataset", "checkpoint"]),
        st.booleans(),
        st.integers(0, 3),
    ),
    max_size=9,
)


def play(world: World, operations: list[tuple[str, bool, int]], last_open: bool) -> None:
    """Writes a history into the store and into the model, by two different ways."""
    store, fresh = world.store, iter(range(1, 10_000))
    world.base = world.thing(next(fresh), "checkpoints", is_old=True)
    store.put("base.json", json.dumps({"schema_version": 1, "source": "x", "digest": world.base}).encode())
    for index, (kind, is_old, pick) in enumerate(operations):
        head = read_log(store).head
        if kind in ("reject", "promote"):
            is_last = last_open and index == len(operations) - 1
            play_round(world, fresh, kind, is_old, is_last)
        elif kind == "rollback" and world.champions:
            target = world.champions[pick % len(world.champions)]
            if target != world.champions[-1]:
                rollback(store, to=target, actor="a", reason="x")
                world.champions.append(target)
        elif kind == "approval":
            name = world.thing(next(fresh), "checkpoints", is_old=is_old)
            append(store, expected_head=head, kind="approval", actor="a", candidate=name, reason="x")
            world.waiting.add(name)
        else:
            top = "datasets" if kind == "dataset" else "checkpoints"
            world.thing(next(fresh), top, is_old=is_old, whole=kind != "orphan")


def play_round(world: World, fresh: Iterator[int], kind: str, is_old: bool, is_open: bool) -> None:
    store, number = world.store, len(world.rounds) + 1
    candidate, warm = (world.thing(next(fresh), "checkpoints", is_old=is_old) for _ in range(2))
    seeds = world.thing(next(fresh), "datasets", is_old=is_old)
    start = world.champions[-1] if world.champions else str(world.base)
    folder = f"rounds/{number:06d}"
    store.put(f"{folder}/claim.json", b"{}")
    store.put(f"{folder}/prepare/result.json", json.dumps({"start": start, "seeds": seeds}).encode())
    store.put(f"{folder}/selfplay/warm.json", json.dumps({"digest": warm}).encode())
    store.put(f"{folder}/selfplay/result.json", json.dumps({"candidate": candidate, "warm": warm}).encode())
    promoted = kind == "promote" and not is_open
    if not is_open:
        record: Literal["promotion", "hold"] = "promotion" if promoted else "hold"
        decision = "PROMOTE" if promoted else "REJECT"
        append(
            store, expected_head=read_log(store).head, kind=record, actor="a", round=number, candidate=candidate,
            decision=decision, reason="x",
        )  # fmt: skip
        store.put(f"{folder}/end.json", b"{}")
    if promoted:
        world.champions.append(candidate)
    world.rounds.append(
        {"candidate": candidate, "warm": warm, "start": start, "seeds": seeds, "open": is_open, "promoted": promoted}
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    operations=OPERATIONS,
    last_open=st.booleans(),
    keep_rounds=st.integers(0, 3),
    keep_champions=st.sampled_from([None, 1, 2]),
)
def test_what_stays_is_what_an_independent_model_says(
    operations: list[tuple[str, bool, int]],
    last_open: bool,
    keep_rounds: int,
    keep_champions: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("history")
    world = World(LocalStore(folder))
    play(world, operations, last_open)
    for name in world.old:
        age(folder, 2 * DAY, f"checkpoints/{name}", f"datasets/{name}")
    apart = {key for key in world.store.list() if not key.startswith(("checkpoints/", "datasets/"))}
    retention = Retention(keep_rounds=keep_rounds, keep_champions=keep_champions, grace=DAY)
    planned = plan(world.store, retention)
    before = sum(entry.size for entry in world.store.entries())
    swept = sweep(world.store, retention, batch=2)
    expected = world.expected(keep_rounds, keep_champions)
    left = {key.split("/")[1] for key in world.store.list() if key.startswith(("checkpoints/", "datasets/"))}
    assert left == expected
    assert {item.name for item in swept.items} == world.all - expected == {item.name for item in planned.items}
    assert {key for key in world.store.list() if not key.startswith(("checkpoints/", "datasets/"))} == apart
    assert swept.size == planned.size == before - sum(entry.size for entry in world.store.entries())
    assert not sweep(world.store, retention).items


@pytest.fixture
def model(tmp_path: Path) -> Callable[[Store, float], str]:
    return lambda store, value: plant_model(store, tmp_path / f"m{value}", value)


def rejected(store: Store, candidate: str, number: int = 1) -> None:
    """A closed round that held `candidate`."""
    folder = f"rounds/{number:06d}"
    store.put(f"{folder}/claim.json", b"{}")
    store.put(f"{folder}/prepare/result.json", b"{}")
    store.put(f"{folder}/selfplay/result.json", json.dumps({"candidate": candidate}).encode())
    store.put(f"{folder}/end.json", b"{}")


def test_a_plan_deletes_nothing_and_a_sweep_does(any_store: Store, model: Callable[[Store, float], str]) -> None:
    lost = model(any_store, 1.0)
    rejected(any_store, lost)
    any_store.put(f"checkpoints/{digest(7)}/model.safetensors", b"orphan")
    any_store.put("checks/left", b"x")
    before = any_store.list()
    planned = plan(any_store, NOTHING_YOUNG)
    assert any_store.list() == before
    assert {(item.kind, item.name) for item in planned.items} == {
        *(("checkpoint", lost), ("orphan", digest(7)), ("leftover", "checks/left")),
    }
    swept = sweep(any_store, NOTHING_YOUNG)
    assert (swept.size, swept.spared) == (planned.size, ())
    assert [key for key in any_store.list() if not key.startswith("rounds/")] == []


def test_young_things_stay(any_store: Store, model: Callable[[Store, float], str]) -> None:
    rejected(any_store, model(any_store, 1.0))
    any_store.put(f"datasets/{digest(7)}/seeds.parquet", b"an upload in progress")
    before = any_store.list()
    swept = sweep(any_store, Retention(keep_rounds=0, grace=60.0))
    assert (swept.items, swept.young) == ((), 2) and any_store.list() == before


@pytest.mark.parametrize("offset", [-365 * DAY, 365 * DAY])
def test_age_is_the_stores_and_not_this_machines(
    offset: float, tmp_path: Path, model: Callable[[Store, float], str]
) -> None:
    """A store whose clock is a year behind or ahead of ours ages its objects all the same."""

    class Elsewhere(LocalStore):
        def entries(self, prefix: str = "") -> list[Entry]:
            return [replace(entry, written=entry.written + offset) for entry in super().entries(prefix)]

    store = Elsewhere(tmp_path / "store")
    rejected(store, model(store, 1.0))
    assert not plan(store, Retention(keep_rounds=0, grace=DAY)).items
    age(tmp_path / "store", 2 * DAY)
    assert len(plan(store, Retention(keep_rounds=0, grace=DAY)).items) == 1


def test_answers_of_old_rounds_go_when_asked(any_store: Store) -> None:
    for number in (1, 2):
        rejected(any_store, digest(1), number)
        any_store.put(f"rounds/{number:06d}/answer/abc.parquet", b"12345678")
        any_store.put(f"rounds/{number:06d}/answer/result.json", b"{}")
        any_store.put(f"rounds/{number:06d}/judge/candidate.parquet", b"verdicts")
    keep = Retention(keep_rounds=1, grace=0.0)
    assert not plan(any_store, keep).items
    swept = sweep(any_store, Retention(keep_rounds=1, grace=0.0, answers=True))
    assert [(item.kind, item.name) for item in swept.items] == [("answers", "round 1")] and swept.size == 8
    assert "rounds/000001/answer/result.json" in any_store.list()
    assert "rounds/000002/answer/abc.parquet" in any_store.list()
    assert "rounds/000001/judge/candidate.parquet" in any_store.list()


def test_datasets_wait_for_an_open_round_to_name_them(any_store: Store) -> None:
    """`prepare` may have found an old dataset and not yet said so."""
    for name in (digest(1), digest(2)):
        any_store.put(f"datasets/{name}/seeds.parquet", b"rows")
        any_store.put(f"datasets/{name}/card.json", json.dumps({"meta": {"from": digest(3)}}).encode())
    any_store.put(f"datasets/{digest(3)}/card.json", b"{}")
    any_store.put("rounds/000001/claim.json", b"{}")
    assert not plan(any_store, NOTHING_YOUNG).items
    any_store.put("rounds/000001/prepare/result.json", json.dumps({"seeds": digest(1)}).encode())
    assert [item.name for item in plan(any_store, NOTHING_YOUNG).items] == [digest(2)]


class Between(LocalStore):
    """A store in which somebody acts just before the first deletion of a manifest, and just after it."""

    def __init__(self, root: Path, *, before: Callable[[], object] | None, after: Callable[[], object] | None) -> None:
        super().__init__(root)
        self.before, self.after = before, after

    def delete(self, key: str) -> None:
        is_manifest = key.endswith("manifest.json")
        if is_manifest and self.before:
            before, self.before = self.before, None
            before()
        super().delete(key)
        if is_manifest and self.after:
            after, self.after = self.after, None
            after()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_promotion_during_gc_keeps_its_checkpoint(
    moment: str, tmp_path: Path, model: Callable[[Store, float], str]
) -> None:
    store = LocalStore(tmp_path / "store")
    candidate, other = model(store, 1.0), model(store, 2.0)
    rejected(store, candidate)

    def promote() -> None:
        append(
            store, expected_head=0, kind="promotion", actor="a", round=1, candidate=candidate, decision="PROMOTE",
            reason="x",
        )  # fmt: skip

    racing = Between(tmp_path / "store", **{"before": None, "after": None, moment: promote})
    swept = sweep(racing, NOTHING_YOUNG)
    assert [item.name for item in swept.spared] == [candidate] and [item.name for item in swept.items] == [other]
    assert load_checkpoint(store, candidate, tmp_path / "cache").is_dir() and not has_checkpoint(store, other)


def test_an_upload_during_gc_is_whole_afterwards(tmp_path: Path, model: Callable[[Store, float], str]) -> None:
    """Somebody stores the very same checkpoint again while it is being swept away."""
    folder = tmp_path / "store"
    store = LocalStore(folder)
    candidate = model(store, 1.0)
    rejected(store, candidate)
    age(folder, 2 * DAY)
    files = tmp_path / "m1.0" / "model-1.0"
    racing = Between(folder, before=None, after=lambda: save_checkpoint(store, files))
    swept = sweep(racing, Retention(keep_rounds=0, grace=DAY))
    assert [item.name for item in swept.spared] == [candidate]
    assert load_checkpoint(store, candidate, tmp_path / "cache").is_dir()


def test_a_save_of_what_is_there_makes_it_young(any_store: Store, tmp_path: Path) -> None:
    first = plant_model(any_store, tmp_path, 1.0)
    before = {entry.key: entry.written for entry in any_store.entries("checkpoints/")}
    while store_time(any_store) <= max(before.values()) + 1:
        pass
    assert save_checkpoint(any_store, tmp_path / "model-1.0") == first
    key = f"checkpoints/{first}/manifest.json"
    assert any_store.entries(key)[0].written > before[key]


def test_what_cannot_be_read_stops_everything(any_store: Store, model: Callable[[Store, float], str]) -> None:
    rejected(any_store, model(any_store, 1.0))
    any_store.put("champion/log/000001.json", b"{}")
    with pytest.raises(CorruptError, match="record 1"):
        sweep(any_store, NOTHING_YOUNG)
    any_store.delete("champion/log/000001.json")
    any_store.put("rounds/000001/selfplay/result.json", b"[")
    with pytest.raises(CorruptError, match="selfplay result of round 1"):
        sweep(any_store, Retention(keep_rounds=1, grace=0.0))
    assert len(any_store.list("checkpoints/")) == 3


def test_what_is_served_stays_though_it_is_champion_no_more(tmp_path: Path) -> None:
    """Turned back: the service reads the first champion; after the third it reads that one."""
    store = LocalStore(tmp_path / "line")
    first, second, third = (plant_model(store, tmp_path, float(number)) for number in (1, 2, 3))
    only_one = Retention(keep_rounds=0, keep_champions=1, grace=0.0)
    at: Any = {"service": "models.champion", "reason": ""}
    for number, one in enumerate((first, second, third), 1):
        append(
            store, expected_head=number - 1, kind="promotion", actor="pipeline", round=None, candidate=one,
            decision="PROMOTE", reason="",
        )  # fmt: skip
        uri = f"s3://m/checkpoints/{one}"
        serving.append(store, state="switching", digest=one, uri=uri, record=number, before=None, **at)
        back = one if number == 1 else second
        state: Any = "serving" if number == 1 else "reverted"
        serving.append(store, state=state, digest=None, uri=f"s3://m/checkpoints/{back}", record=number, **at)
    assert {item.name for item in plan(store, only_one).items} == set()
    serving.append(store, state="serving", digest=third, uri="s3://m/x", record=3, **at)
    assert {item.name for item in plan(store, only_one).items} == {second}


@pytest.mark.parametrize(
    "wrong", [{"keep_rounds": -1}, {"keep_champions": 0}, {"grace": -1.0}, {"grace": float("nan")}]
)
def test_a_retention_that_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Retention(**wrong)  # type: ignore[arg-type]


def test_nothing_outside_its_folders_is_ever_deleted() -> None:
    from sparring.registry.gc import _delete

    store = LocalStore(Path("/nonexistent"))
    apart = (
        "champion/log/000001.json",
        "pool/attacks/a.parquet",
        "base.json",
        "gate/looks/000001.json",
        "ledger/1.json",
    )
    in_rounds = (
        "rounds/000001/judge/a.parquet",
        "rounds/000001/answer/result.json",
        "rounds/000001/gate/decision.json",
    )
    for key in (*apart, *in_rounds, "checkpoints/x", "prepare/x.json"):
        with pytest.raises(StoreError, match="must not delete"):
            _delete(store, key)
