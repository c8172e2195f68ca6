"""Any history of records verifies and says what a plain model of it says; any edited byte is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.errors import ConflictError, CorruptError, UsageError
from sparring.registry.champion import append, read_log, reanchor, rollback
from sparring.store.local import LocalStore
from tests.registry.test_registry_champion import key, rewritten

DIGESTS = [character * 64 for character in "abcde"]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["promotion", "hold", "approval", "override", "policy_change", "rollback", "reanchor", "nonsense"]
        ),
        st.sampled_from(DIGESTS),
    ),
    min_size=1,
    max_size=12,
)


@dataclass
class Model:
    """What a log should say, kept by hand."""

    champion: str | None = None
    reference: str | None = None
    accepted: set[str] = field(default_factory=set)
    kinds: list[str] = field(default_factory=list)

    def crown(self, digest: str) -> None:
        self.champion = digest
        self.reference = self.reference or digest
        self.accepted.add(digest)


def play(store: LocalStore, model: Model, number: int, kind: str, digest: str) -> None:
    """One act; what the rule forbids must raise and leave nothing."""
    head = read_log(store).head
    known: dict[str, Any] = {"expected_head": head, "actor": "ann", "reason": "ü", "round": number}
    if kind in ("promotion", "override"):
        append(store, kind=kind, candidate=digest, decision="PROMOTE" if kind == "promotion" else "REJECT", **known)  # type: ignore[arg-type]
        model.crown(digest)
    elif kind in ("hold", "approval", "policy_change"):
        append(store, kind=kind, candidate=digest, details={"digest": digest}, **known)  # type: ignore[arg-type]
    elif kind == "nonsense":
        with pytest.raises(UsageError):
            append(store, kind="override", candidate=digest, decision="INVALID", **known)
        return
    else:
        act = rollback if kind == "rollback" else reanchor
        if digest not in model.accepted or digest == (model.champion if kind == "rollback" else model.reference):
            with pytest.raises(UsageError):
                act(store, to=digest, actor="ann", reason="x")
            return
        act(store, to=digest, actor="ann", reason="x")
        model.champion, model.reference = (digest, model.reference) if kind == "rollback" else (model.champion, digest)
    model.kinds.append(kind)


def check(store: LocalStore, model: Model) -> None:
    log = read_log(store)
    assert [record.kind for record in log.records] == model.kinds
    assert (log.champion, log.reference) == (model.champion, model.reference)
    assert set(log.accepted) == model.accepted
    assert log.head == len(model.kinds)


@settings(max_examples=40, deadline=None)
@given(acts=ACTS)
def test_any_history_verifies_and_says_what_happened(acts: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        store, model = LocalStore(Path(folder)), Model()
        for number, (kind, digest) in enumerate(acts, start=1):
            play(store, model, number, kind, digest)
            check(store, model)


@settings(max_examples=40, deadline=None)
@given(acts=ACTS, data=st.data())
def test_any_edited_byte_is_named_as_the_first_broken_link(acts: list[tuple[str, str]], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        store, model = LocalStore(Path(folder)), Model()
        for number, (kind, digest) in enumerate([("promotion", DIGESTS[0]), *acts], start=1):
            play(store, model, number, kind, digest)
        number = data.draw(st.integers(1, len(model.kinds)))
        before = store.get(key(number))
        place = data.draw(st.integers(0, len(before) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda value: value != before[place]))
        store.put(key(number), before[:place] + bytes([byte]) + before[place + 1 :])
        with pytest.raises(CorruptError, match=f"the chain breaks at record {number}: "):
            read_log(store)
        with pytest.raises(CorruptError):
            append(store, expected_head=len(model.kinds), kind="hold", actor="x", reason="x")


@pytest.mark.parametrize(
    ("kind", "candidate", "decision", "why"),
    [
        ("override", None, "REJECT", "a override cannot make"),
        ("reanchor", "f" * 64, None, "never was champion"),
    ],
)
def test_well_formed_lies_of_the_new_kinds_are_found(
    tmp_path: Path, kind: str, candidate: str | None, decision: str | None, why: str
) -> None:
    store = LocalStore(tmp_path)
    promoted(store, 1, DIGESTS[0])
    append(store, expected_head=1, kind="hold", actor="x", round=2, decision="REJECT", reason="x")
    with pytest.raises(UsageError):
        append(store, expected_head=2, kind=kind, actor="x", candidate=candidate, decision=decision, reason="x")  # type: ignore[arg-type]
    store.put(key(2), rewritten(store.get(key(2)), kind=kind, candidate=candidate, decision=decision))
    with pytest.raises(CorruptError, match=f"record 2: .*({why})"):
        read_log(store)


def promoted(store: LocalStore, number: int, digest: str) -> None:
    append(
        store, expected_head=number - 1, kind="promotion", actor="x", round=number, candidate=digest,
        decision="PROMOTE", reason="x",
    )  # fmt: skip


@pytest.mark.parametrize("between", ["hold", "promotion"])
def test_a_rollback_survives_a_hold_and_yields_to_a_promotion(
    between: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody appends between the look and the act: a hold changes nothing, another champion ends the rollback."""
    store = LocalStore(tmp_path)
    done: list[int] = []
    promoted(store, 1, DIGESTS[0])
    promoted(store, 2, DIGESTS[1])

    def interrupted(*args: Any, **named: Any) -> Any:
        if not done:
            done.append(1)
            if between == "promotion":
                promoted(store, 3, DIGESTS[2])
            else:
                append(store, expected_head=2, kind="hold", actor="y", round=3, decision="REJECT", reason="x")
        return append(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr("sparring.registry.champion.append", interrupted)
        if between == "hold":
            assert rollback(store, to=DIGESTS[0], actor="ann", reason="x").number == 4
        else:
            with pytest.raises(ConflictError, match="meanwhile"):
                rollback(store, to=DIGESTS[0], actor="ann", reason="x")
    assert read_log(store).champion == (DIGESTS[0] if between == "hold" else DIGESTS[2])
