"""The two ends of a round: `promote` makes the candidate champion, `hold` records why nothing changed.

Neither believes the orchestrator: `promote` makes the recorded decision again from the tables, and commits only when
the champion is still the one that the round began with. Each leaves one record in the champion log; run again, it
finds that record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sparring.errors import ConflictError, CorruptError, ModelError, NotFoundError, UsageError
from sparring.registry.champion import CHANGES, ChampionLog, append, read_log
from sparring.registry.champion import Record as LogRecord
from sparring.registry.checkpoints import check_checkpoint
from sparring.steps.card import write_card
from sparring.steps.gate import GateRecord, check_record, read_record
from sparring.steps.results import Decision, GateResult, PrepareResult, PromoteResult, Result
from sparring.store.base import Store

_ATTEMPTS = 20
_ACTOR = "pipeline"


class PromoteInputs(Result):
    """The gate's result, and the champion and log head that the round began with."""

    round: int
    champion: str | None
    log_head: int
    gate: GateResult

    @classmethod
    def of(cls, prepared: PrepareResult, gate: GateResult) -> PromoteInputs:
        """From the results of `prepare` and `gate`."""
        return cls(round=prepared.round, champion=prepared.champion, log_head=prepared.log_head, gate=gate)


def promote(store: Store, inputs: PromoteInputs, verify_key: Path | None = None) -> PromoteResult:
    """Appends the promotion to the champion log, or a hold when somebody else changed the champion meanwhile.

    The candidate's every byte is read first; with `verify_key` its signature is held against that public key. The
    model card is written behind the record.

    Raises UsageError when the gate did not decide PROMOTE, CorruptError when the record does not bear it out,
    ModelError when the candidate's checkpoint is not in the store, ConflictError when the log never stands still.
    """
    if inputs.gate.decision != "PROMOTE":
        raise UsageError(f"round {inputs.round} decided {inputs.gate.decision}: only PROMOTE promotes")
    if known := _known(read_log(store), inputs.round):
        return _promoted(store, known) if known.kind == "promotion" else _result(known, "INCONCLUSIVE")
    _recheck(store, inputs)
    check_candidate(store, inputs.gate.candidate, verify_key)
    for _ in range(_ATTEMPTS):
        log = read_log(store)
        if why := stale(log, inputs.champion, inputs.log_head):
            return _hold(store, inputs, "INCONCLUSIVE", why)
        try:
            record = _append(store, inputs, log.head, "promotion", "PROMOTE", inputs.gate.reason)
        except ConflictError:
            continue  # somebody appended: look whether the champion changed
        return _promoted(store, record)
    raise ConflictError(f"the champion log changed {_ATTEMPTS} times under round {inputs.round}", hint="run it again")


def _promoted(store: Store, record: LogRecord) -> PromoteResult:
    write_card(store, record.number)
    return _result(record, "PROMOTE")


def hold(store: Store, inputs: PromoteInputs) -> PromoteResult:
    """Appends a hold with the gate's decision and reason; the champion stays. Raises UsageError for PROMOTE."""
    if inputs.gate.decision == "PROMOTE":
        raise UsageError(f"round {inputs.round} decided PROMOTE: it is not held")
    if known := _known(read_log(store), inputs.round):
        return _result(known, "PROMOTE" if known.kind == "promotion" else inputs.gate.decision)  # approved meanwhile
    return _hold(store, inputs, inputs.gate.decision, inputs.gate.reason)


def _hold(store: Store, inputs: PromoteInputs, decision: Decision, reason: str) -> PromoteResult:
    for _ in range(_ATTEMPTS):
        try:
            return _result(_append(store, inputs, read_log(store).head, "hold", decision, reason), decision)
        except ConflictError:
            continue
    raise ConflictError(f"the champion log changed {_ATTEMPTS} times under round {inputs.round}", hint="run it again")


def _append(
    store: Store, inputs: PromoteInputs, head: int, kind: Literal["promotion", "hold"], decision: Decision, reason: str
) -> LogRecord:
    return append(
        store,
        expected_head=head,
        kind=kind,
        actor=_ACTOR,
        round=inputs.round,
        candidate=inputs.gate.candidate or None,
        decision=decision,
        reason=reason,
        details={"decision_key": inputs.gate.decision_key, "began_at": inputs.log_head},
    )


def _recheck(store: Store, inputs: PromoteInputs) -> None:
    """The recorded decision is about this round and this candidate, and the tables still say PROMOTE."""
    record = read_record(store, inputs.gate.decision_key)
    _agrees(record, inputs)
    again = check_record(store, record)
    if not again.outcome == record.decision.outcome == "PROMOTE":
        raise CorruptError(
            f"{inputs.gate.decision_key} says {record.decision.outcome}, its tables and policy give {again.outcome}:"
            f" {again.reason}",
            hint="the decision was edited, or made by another release: start a new round",
        )


def check_candidate(store: Store, candidate: str, verify_key: Path | None) -> None:
    """Reads a checkpoint whole before it becomes champion, and checks its signature where a key is given.

    Raises ModelError when there is none, CorruptError for a wrong byte or signature.
    """
    try:
        check_checkpoint(store, candidate)
    except NotFoundError as error:
        raise ModelError(f"candidate {candidate} has no checkpoint in {store.url}") from error
    if verify_key is not None:
        from sparring.registry.signing import verify_signature

        verify_signature(store, candidate, verify_key)


def _agrees(record: GateRecord, inputs: PromoteInputs) -> None:
    facts = {
        "round": (record.round, inputs.round),
        "champion": (record.inputs.champion, inputs.champion),
        "log head": (record.inputs.log_head, inputs.log_head),
        "candidate": (record.decision.candidate, inputs.gate.candidate),
    }
    for name, (recorded, given) in facts.items():
        if recorded != given:
            raise CorruptError(f"{inputs.gate.decision_key}: {name} is {recorded}, the round's is {given}")


def stale(log: ChampionLog, champion: str | None, log_head: int) -> str | None:
    """Why the champion is no longer the one that a round, begun at `log_head`, compared its candidate with."""
    if log.head < log_head:
        raise CorruptError(f"the champion log ends at record {log.head}, the round began at {log_head}")
    since = [record for record in log.records if record.number > log_head and record.kind in CHANGES]
    if since:
        first = since[0]
        return f"the champion changed meanwhile (record {first.number}, a {first.kind}): the next round gates again"
    if log.champion != champion:
        return f"the champion is {log.champion}, the round began with {champion}: the next round gates again"
    return None


def _known(log: ChampionLog, round_number: int) -> LogRecord | None:
    """What this round left in the log already."""
    mine = (record for record in log.records if record.round == round_number and record.kind in ("promotion", "hold"))
    return next(mine, None)


def _result(record: LogRecord, decision: Decision) -> PromoteResult:
    return PromoteResult(decision=decision, record=record.number, champion=record.champion)
