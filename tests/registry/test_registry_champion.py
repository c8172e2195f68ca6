"""The champion log: only what was written, in order, by one writer at a time, and only what makes sense."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.errors import ConflictError, CorruptError, StoreError, UsageError
from sparring.registry.champion import FIRST_PREVIOUS, Record, append, read_log, rollback
from sparring.store import Store
from sparring.store.canonical import canonical, sha256
from sparring.store.local import LocalStore

A, B, C = "a" * 64, "b" * 64, "c" * 64


def promote(store: Store, round: int, candidate: str, **more: Any) -> Record:
    arguments: dict[str, Any] = {"expected_head": read_log(store).head, "actor": "gate", "reason": "better"} | more
    return append(store, kind="promotion", round=round, candidate=candidate, decision="PROMOTE", **arguments)


def hold(store: Store, round: int, candidate: str = C) -> Record:
    head = read_log(store).head
    return append(
        store,
        expected_head=head,
        kind="hold",
        actor="gate",
        round=round,
        candidate=candidate,
        decision="REJECT",
        reason="worse",
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A log of five records: A, hold, B, rollback to A, hold."""
    store = LocalStore(tmp_path)
    promote(store, 1, A, details={"p": 0.01, "ü": [1, None]})
    hold(store, 2)
    promote(store, 3, B)
    rollback(store, to=A, actor="ann", reason="complaints")
    hold(store, 4)
    return store


def key(number: int) -> str:
    return f"champion/log/{number:06d}.json"


def rewritten(data: bytes, **changes: object) -> bytes:
    """A record edited by somebody who knows the format and mends its own hash."""
    envelope = json.loads(data)
    envelope["record"] |= changes
    return canonical(envelope | {"sha256": sha256(canonical(envelope["record"]))})


def test_an_empty_log(any_store: Store) -> None:
    log = read_log(any_store)
    assert (log.records, log.head, log.champion, log.champion_round, log.reference) == ((), 0, None, None, None)
    assert log.accepted == frozenset()
    assert log.head_sha256 == FIRST_PREVIOUS


def test_what_a_log_says(any_store: Store) -> None:
    first = promote(any_store, 1, A)
    hold(any_store, 2)
    log = read_log(any_store)
    assert (log.head, log.champion, log.champion_round, log.reference) == (2, A, 1, A)
    promote(any_store, 3, B)
    log = read_log(any_store)
    assert (log.head, log.champion, log.champion_round, log.reference) == (3, B, 3, A)
    rollback(any_store, to=A, actor="ann", reason="complaints")
    log = read_log(any_store)
    assert (log.head, log.champion, log.champion_round, log.reference) == (4, A, 1, A)
    assert log.accepted == {A, B}
    assert log.records[0] == first
    assert [record.number for record in log.records] == [1, 2, 3, 4]
    assert any_store.list("champion/") == [key(number) for number in (1, 2, 3, 4)]


def test_the_chain_is_sha256_of_canonical_json(store: LocalStore) -> None:
    """Against the format as documented, computed here without the package's own reader."""
    previous = "0" * 64
    for number in range(1, 6):
        envelope = json.loads(store.get(key(number)))
        body = json.dumps(envelope["record"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert envelope["record"]["previous"] == previous
        assert envelope["record"]["number"] == number
        assert envelope["schema_version"] == 1
        previous = envelope["sha256"]
        assert previous == sha256(body)
    assert read_log(store).head_sha256 == previous


def test_somebody_else_was_first(store: LocalStore) -> None:
    began = read_log(store).head
    promote(store, 5, B)
    with pytest.raises(ConflictError, match=r"is at record 6, this promotion began at 5"):
        promote(store, 6, C, expected_head=began)
    with pytest.raises(ConflictError, match="began at 9"):
        promote(store, 6, C, expected_head=9)
    assert read_log(store).champion == B


def test_a_round_writes_each_kind_once(store: LocalStore) -> None:
    first = promote(store, 5, C)
    hold(store, 6)
    assert promote(store, 5, C) == first
    assert promote(store, 5, C, expected_head=5) == first
    assert read_log(store).head == 7
    with pytest.raises(ConflictError, match="round 5 left record 6"):
        promote(store, 5, B)


def test_records_without_a_round_are_each_their_own(store: LocalStore) -> None:
    for head in (5, 6):
        append(store, expected_head=head, kind="policy_change", actor="ann", reason="α", details={"policy": "x"})
    assert read_log(store).head == 7


@pytest.mark.parametrize(
    ("kind", "candidate", "decision"),
    [
        ("promotion", None, "PROMOTE"),
        ("promotion", C, "REJECT"),
        ("promotion", C, None),
        ("hold", C, "PROMOTE"),
        ("approval", C, "PROMOTE"),
        ("rollback", C, None),
        ("rollback", None, None),
    ],
)
def test_records_that_make_no_sense_are_not_written(
    store: LocalStore, kind: Any, candidate: str | None, decision: str | None
) -> None:
    with pytest.raises(UsageError):
        append(
            store, expected_head=5, kind=kind, actor="x", round=9, candidate=candidate, decision=decision, reason="x"
        )
    assert read_log(store).head == 5


@pytest.mark.parametrize("details", [{"p": float("nan")}, {"p": float("inf")}, {"p": {1, 2}}, {"p": object()}])
def test_details_that_json_cannot_carry_are_refused(store: LocalStore, details: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="details of a champion record cannot be stored as JSON"):
        promote(store, 9, C, details=details)
    assert read_log(store).head == 5


def test_rollback_goes_only_to_what_was_champion(store: LocalStore) -> None:
    with pytest.raises(UsageError, match="does not name one earlier champion; there are: aaaaaaaaaaaa, bbbbbbbbbbbb"):
        rollback(store, to=C, actor="ann", reason="x")
    with pytest.raises(UsageError, match="does not name one"):
        rollback(store, to="b", actor="ann", reason="x")
    with pytest.raises(UsageError, match="is the champion already"):
        rollback(store, to=A, actor="ann", reason="x")
    assert rollback(store, to=B[:8], actor="ann", reason="x").champion == B
    log = read_log(store)
    assert (log.champion, log.champion_round, log.reference) == (B, 3, A)


def test_rollback_without_a_target_walks_back_and_ends(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(UsageError, match="no earlier champion"):
        rollback(store, to=None, actor="ann", reason="x")
    for round, digest in enumerate((A, B, C), start=1):
        promote(store, round, digest)
        hold(store, round + 10)
    assert rollback(store, to=None, actor="ann", reason="x").champion == B
    assert rollback(store, to=None, actor="ann", reason="x").champion == A
    with pytest.raises(UsageError, match="no earlier champion"):
        rollback(store, to=None, actor="ann", reason="x")
    promote(store, 4, C)
    assert rollback(store, to=None, actor="ann", reason="x").champion == A


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    now = datetime(2030, 1, 1, tzinfo=UTC)
    for round, digest in enumerate((A, B, C), start=1):
        promote(store, round, digest, time=now - timedelta(days=400 * round))
    log = read_log(store)
    assert [record.champion for record in log.records] == [A, B, C]
    assert log.champion == C


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.replace(b'"reason":"', b'"reason":"x'),
        lambda data: data.replace(b'{"record"', b'{ "record"'),
        lambda data: data + b"\n",
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"\xff\xfe",
        lambda data: b"[]",
        lambda data: data.replace(b'"schema_version":1', b'"schema_version":2'),
    ],
)
def test_an_edited_record_is_named(store: LocalStore, number: int, edit: Any) -> None:
    data = store.get(key(number))
    assert edit(data) != data
    store.put(key(number), edit(data))
    with pytest.raises(CorruptError, match=f"the chain breaks at record {number}: "):
        read_log(store)
    with pytest.raises(CorruptError, match=f"the chain breaks at record {number}: "):
        promote(store, 9, C, expected_head=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_bit_is_noticed(data: st.DataObject, store: LocalStore) -> None:
    number = data.draw(st.integers(1, 5))
    bytes_before = store.get(key(number))
    place = data.draw(st.integers(0, len(bytes_before) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    store.put(key(number), bytes_before[:place] + bytes([bytes_before[place] ^ bit]) + bytes_before[place + 1 :])
    try:
        with pytest.raises(CorruptError, match=f"record {number}"):
            read_log(store)
    finally:
        store.put(key(number), bytes_before)


def test_a_record_edited_with_its_own_hash_breaks_the_next_link(store: LocalStore) -> None:
    store.put(key(2), rewritten(store.get(key(2)), reason="better"))
    with pytest.raises(CorruptError, match="the chain breaks at record 3: its `previous`"):
        read_log(store)


def test_of_several_broken_links_the_first_is_named(store: LocalStore) -> None:
    for number in (4, 2):
        store.put(key(number), rewritten(store.get(key(number)), actor="eve"))
    with pytest.raises(CorruptError, match="the chain breaks at record 3"):
        read_log(store)


def test_a_missing_record_is_named(store: LocalStore) -> None:
    store.delete(key(3))
    with pytest.raises(CorruptError, match=r"record 3 is missing, 'champion/log/000004\.json' is there"):
        read_log(store)
    store.delete(key(1))
    with pytest.raises(CorruptError, match="record 1 is missing"):
        read_log(store)


def test_strangers_in_the_log_are_named(store: LocalStore) -> None:
    for name in ("champion/log/x.json", "champion/log/000006.json.bak", "champion/log/6.json", "champion/log/0/1.json"):
        store.put(name, b"{}")
        with pytest.raises(CorruptError, match=f"'{name}' is not the name of a record"):
            read_log(store)
        store.delete(name)
    assert read_log(store).head == 5


def test_swapped_records_are_noticed(store: LocalStore) -> None:
    two, three = store.get(key(2)), store.get(key(3))
    store.put(key(2), three)
    store.put(key(3), two)
    with pytest.raises(CorruptError, match="record 2: it says that it is record 3"):
        read_log(store)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"champion": C}, "a hold cannot make"),
        ({"champion": None}, "a hold cannot make"),
        ({"kind": "promotion"}, "a promotion cannot make"),
        ({"kind": "rollback", "champion": C}, "a rollback cannot make"),
        ({"kind": "coronation"}, "kind"),
        ({"time": "2030-01-01T00:00:00"}, "time"),
        ({"stranger": 1}, "stranger"),
    ],
)
def test_a_well_formed_last_record_must_make_sense(store: LocalStore, changes: dict[str, object], why: str) -> None:
    store.put(key(5), rewritten(store.get(key(5)), **changes))
    with pytest.raises(CorruptError, match=f"the chain breaks at record 5: {why}"):
        read_log(store)
