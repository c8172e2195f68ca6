"""What a person may do about a decided round: approve a candidate that waits for it, or promote one against the gate.

Both make the decision again from the recorded tables, both commit by compare-and-swap, and neither goes on when the
champion is no longer the one that the candidate was compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sparring.errors import ConflictError, CorruptError, NotFoundError, UsageError
from sparring.gate.outcome import Decision
from sparring.registry.champion import ChampionLog, append, read_log
from sparring.registry.champion import Record as LogRecord
from sparring.steps.card import write_card
from sparring.steps.gate import GateRecord, approved_key, check_record, decision_key, read_record
from sparring.steps.promote import check_candidate, stale
from sparring.store.base import Store

_ATTEMPTS = 20


def approve(store: Store, round_number: int, *, actor: str, reason: str, verify_key: Path | None = None) -> LogRecord:
    """Records the approval, decides again as approved, and promotes; the promotion's record. Run again: the same.

    Raises UsageError when the round does not wait for approval, ConflictError when the champion changed meanwhile,
    NotFoundError or CorruptError when its decision, tables or checkpoint are not what they were.
    """
    record = _decided(store, round_number, reason)
    if known := _left(read_log(store), round_number, "promotion"):
        return known
    decision = _waiting(store, record)
    candidate = _checked(store, decision, verify_key)
    _append(store, record, "approval", actor, reason, None, decision_key(round_number))
    key = approved_key(round_number)
    approved = record.model_copy(update={"decision": decision})
    store.put_if_absent(key, approved.model_dump_json(indent=1).encode())
    if read_record(store, key).decision != decision:
        raise CorruptError(f"{key} holds another decision about {candidate}", hint="run `sparring verify`")
    promoted = _append(store, record, "promotion", actor, f"approved by {actor}: {decision.reason}", "PROMOTE", key)
    write_card(store, promoted.number)
    return promoted


def override(store: Store, round_number: int, *, actor: str, reason: str, verify_key: Path | None = None) -> LogRecord:
    """Makes a held candidate champion against the gate. Run again: the same record.

    Raises UsageError for INVALID (nothing was measured), for PROMOTE, and for the champion itself; else as `approve`.
    """
    record = _decided(store, round_number, reason)
    if known := _left(read_log(store), round_number, "override"):
        return known
    outcome = record.decision.outcome
    if outcome not in ("REJECT", "INCONCLUSIVE"):
        why = "nothing was measured that could be overruled" if outcome == "INVALID" else "it needs no override"
        raise UsageError(f"round {round_number} decided {outcome}: {why}")
    again = check_record(store, record)
    if again != record.decision:
        raise CorruptError(f"the tables of round {round_number} give {again.outcome}, the record says {outcome}")
    _checked(store, again, verify_key)
    key = decision_key(round_number)
    overridden = _append(store, record, "override", actor, reason, outcome, key)
    write_card(store, overridden.number)
    return overridden


def _decided(store: Store, round_number: int, reason: str) -> GateRecord:
    if not reason.strip():
        raise UsageError("a reason must be given: the champion log keeps it")
    try:
        return read_record(store, decision_key(round_number))
    except NotFoundError:
        raise UsageError(f"round {round_number} in {store.url} has no decision") from None


def _waiting(store: Store, record: GateRecord) -> Decision:
    """The decision as approved. Raises UsageError when an approval is not what is missing."""
    outcome = record.decision.outcome
    if outcome != "INCONCLUSIVE":
        raise UsageError(f"round {record.round} decided {outcome}: it does not wait for approval")
    decision = check_record(store, record, approved=True)
    if decision.outcome != "PROMOTE":
        raise UsageError(f"round {record.round} does not wait for approval: {decision.reason}")
    return decision


def _checked(store: Store, decision: Decision, verify_key: Path | None) -> str:
    """The candidate's digest, every file of its checkpoint verified, and its signature where a key is given."""
    candidate = decision.candidate
    if candidate is None or candidate == decision.champion:
        raise UsageError(f"the candidate is {candidate or 'not known'}, there is nothing to promote")
    check_candidate(store, candidate, verify_key)
    return candidate


def _append(
    store: Store,
    record: GateRecord,
    kind: Literal["approval", "promotion", "override"],
    actor: str,
    reason: str,
    decision: str | None,
    key: str,
) -> LogRecord:
    def once(log: ChampionLog) -> LogRecord:
        return append(
            store,
            expected_head=log.head,
            kind=kind,
            actor=actor,
            round=record.round,
            candidate=record.decision.candidate,
            decision=decision,
            reason=reason,
            details={"decision_key": key, "began_at": record.inputs.log_head, "gate_reason": record.decision.reason},
        )

    return _retried(store, record, kind, once)


def _retried(store: Store, record: GateRecord, kind: str, once: Callable[[ChampionLog], LogRecord]) -> LogRecord:
    for _ in range(_ATTEMPTS):
        log = read_log(store)
        if known := _left(log, record.round, kind):
            return known
        if why := stale(log, record.inputs.champion, record.inputs.log_head):
            raise ConflictError(f"no {kind} of round {record.round}: {why}")
        try:
            return once(log)
        except ConflictError:
            continue
    raise ConflictError(f"the champion log changed {_ATTEMPTS} times under round {record.round}", hint="run it again")


def _left(log: ChampionLog, round_number: int, kind: str) -> LogRecord | None:
    return next((record for record in log.records if record.round == round_number and record.kind == kind), None)
