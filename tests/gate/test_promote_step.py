"""Promote believes nobody: not the orchestrator, not the record, not the log that it began with."""

from __future__ import annotations

import pytest

from sparring.errors import CorruptError, ModelError, StoreError
from sparring.registry.champion import append, read_log, rollback
from sparring.steps.gate import decision_key, run
from sparring.steps.promote import promote
from tests.gate.lines import APPROVED, PROGRESS, Line, end, ending
from tests.gate.worlds import BASE, World, with_value


def test_an_edited_decision_is_not_promoted(line: Line) -> None:
    inputs = line.inputs(World(line.checkpoint("bad"), asr=0.95), World(BASE, asr=0.93))
    result = run(APPROVED, line.store, inputs, PROGRESS)
    text = line.store.get(result.decision_key).decode().replace('"outcome": "REJECT"', '"outcome": "PROMOTE"')
    line.store.put(result.decision_key, text.encode())
    lied = result.model_copy(update={"decision": "PROMOTE"})
    with pytest.raises(CorruptError, match="REJECT"):
        promote(line.store, ending(inputs, lied))
    assert read_log(line.store).head == 0


def test_a_table_edited_after_the_decision_is_not_promoted(line: Line) -> None:
    inputs = line.first()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    line.write("candidate", with_value(World(inputs.expected["candidate"], asr=0.5).table(), "harmful", 0, True))
    with pytest.raises(CorruptError, match="candidate's verdict table"):
        promote(line.store, ending(inputs, result))


@pytest.mark.parametrize("field", ["candidate", "decision_key", "round", "log_head", "champion"])
def test_a_result_that_does_not_fit_its_record_is_not_promoted(line: Line, field: str) -> None:
    inputs = line.first()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    wrong = {
        "candidate": "e" * 64,
        "decision_key": decision_key(9),
        "round": 9,
        "log_head": 3,
        "champion": BASE,
    }[field]
    given = ending(inputs, result)
    if field in ("candidate", "decision_key"):
        given = given.model_copy(update={"gate": result.model_copy(update={field: wrong})})
    else:
        given = given.model_copy(update={field: wrong})
    with pytest.raises(StoreError):
        promote(line.store, given)
    assert read_log(line.store).head == 0


def test_a_candidate_without_checkpoint_is_not_promoted(line: Line) -> None:
    inputs = line.inputs(World("e" * 64, asr=0.5), World(BASE, asr=0.93, lookalike_refused=0.02))
    result = run(APPROVED, line.store, inputs, PROGRESS)
    assert result.decision == "PROMOTE"
    with pytest.raises(ModelError, match="no checkpoint"):
        promote(line.store, ending(inputs, result))


def test_somebody_else_promoted_meanwhile(line: Line) -> None:
    """The candidate was compared with a champion that is none any more: held, and the other's promotion stands."""
    line.promoted_once()
    inputs = line.second()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    other = append(
        line.store,
        expected_head=1,
        kind="promotion",
        actor="another",
        round=77,
        candidate=line.checkpoint("other"),
        decision="PROMOTE",
        reason="test",
    )
    ends = [promote(line.store, ending(inputs, result)) for _ in range(2)]
    assert ends[0] == ends[1]
    assert (ends[0].decision, ends[0].champion) == ("INCONCLUSIVE", other.champion)
    record = read_log(line.store).records[-1]
    assert record.kind == "hold" and "record 2" in record.reason


def test_a_rollback_and_back_is_a_change_too(line: Line) -> None:
    line.promoted_once()
    end(line.store, line.second())
    inputs = line.second(asr=0.05)
    result = run(APPROVED, line.store, inputs, PROGRESS)
    assert result.decision == "PROMOTE"
    first, second = (record.champion for record in read_log(line.store).records)
    for target in (first, second):
        rollback(line.store, to=target, actor="a person", reason="test")
    assert promote(line.store, ending(inputs, result)).champion == second


def test_an_approval_meanwhile_is_no_change(line: Line) -> None:
    line.promoted_once()
    inputs = line.second()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    append(line.store, expected_head=1, kind="approval", actor="a person", reason="test")
    assert promote(line.store, ending(inputs, result)).champion == inputs.expected["candidate"]


def test_a_log_that_lost_records_is_a_fault(line: Line) -> None:
    line.promoted_once()
    inputs = line.second()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    line.store.delete("champion/log/000001.json")
    with pytest.raises(CorruptError):
        promote(line.store, ending(inputs, result))
