"""The gate step and the two ends of a round, on a real store with a real champion log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sparring.config.run import GateConfig
from sparring.errors import ConfigError, ConflictError, CorruptError, NotFoundError, UsageError
from sparring.gate.policy import load_policy
from sparring.gate.spending import looks, reserve
from sparring.registry.champion import read_log
from sparring.steps.gate import GateInputs, decision_key, read_record, run
from sparring.steps.promote import hold, promote
from sparring.store import Store
from tests.gate.lines import APPROVED, PROGRESS, Line, end, ending
from tests.gate.worlds import BASE, REFERENCE, World

# --- both branches ------------------------------------------------------------------------------------------------


def test_three_rounds_on_any_store(any_store: Store, tmp_path: Path) -> None:
    """Promoted, promoted again, a worse one held: champion, reference and log say so, on a folder and on S3."""
    line = Line(any_store.scope("lines/test"), tmp_path)
    one = line.first()
    assert end(line.store, one).champion == one.expected["candidate"]
    two = line.second()
    assert end(line.store, two).champion == two.expected["candidate"]
    log = read_log(line.store)
    three = line.inputs(
        World(line.checkpoint("three"), asr=0.6),
        World(log.champion or "", asr=0.25),
        World(log.reference or "", asr=0.5),
    )
    assert end(line.store, three).champion == two.expected["candidate"]
    log = read_log(line.store)
    assert [record.kind for record in log.records] == ["promotion", "promotion", "hold"]
    assert log.records[2].decision == "REJECT"
    assert "attack success rate is not lower" in log.records[2].reason
    assert log.reference == one.expected["candidate"]


def test_both_branches_are_idempotent(line: Line) -> None:
    for inputs in (line.first(), None):
        inputs = inputs or line.second(asr=0.60)
        results = [end(line.store, inputs) for _ in range(3)]
        assert results[0] == results[1] == results[2]
    assert read_log(line.store).head == 2
    assert len(looks(line.store)) == 2


def test_each_branch_refuses_the_other_decision(line: Line) -> None:
    good = line.first()
    result = run(APPROVED, line.store, good, PROGRESS)
    with pytest.raises(UsageError, match="PROMOTE"):
        hold(line.store, ending(good, result))
    held = result.model_copy(update={"decision": "REJECT"})
    with pytest.raises(UsageError, match="REJECT"):
        promote(line.store, ending(good, held))
    assert read_log(line.store).head == 0


def test_first_run_waits_for_approval(line: Line) -> None:
    result = run(GateConfig(), line.store, line.first(), PROGRESS)
    assert result.decision == "INCONCLUSIVE"
    assert "approve_first_run" in result.reason


def test_approval_of_the_first_run_is_not_one_of_later_rounds(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(load_policy("laptop").model_dump() | {"approval": True}))
    line.promoted_once()
    config = GateConfig(policy=str(path), approve_first_run=True)
    assert run(config, line.store, line.second(), PROGRESS).decision == "INCONCLUSIVE"


# --- the recorded decision ----------------------------------------------------------------------------------------


def test_the_record_holds_everything(line: Line) -> None:
    inputs = line.first()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    record = read_record(line.store, result.decision_key)
    assert record.inputs == inputs
    assert record.policy == load_policy("first-run")
    assert record.look is not None and record.look.alpha == record.policy.alpha_per_look
    assert set(record.tables) == {"candidate", "champion"}
    assert record.decision.outcome == "PROMOTE"
    assert record.code_version


def test_an_identical_rerun_returns_the_recorded_decision(line: Line) -> None:
    """Even when a judge has written other verdicts meanwhile."""
    inputs = line.first()
    before = run(APPROVED, line.store, inputs, PROGRESS)
    line.write("candidate", World(inputs.expected["candidate"], asr=0.99).table())
    assert run(APPROVED, line.store, inputs, PROGRESS) == before


def test_other_inputs_to_a_decided_round_are_refused(line: Line) -> None:
    inputs = line.first()
    run(APPROVED, line.store, inputs, PROGRESS)
    with pytest.raises(ConflictError, match="already decided"):
        run(APPROVED, line.store, inputs.model_copy(update={"start": "f" * 64}), PROGRESS)


def test_a_wrong_policy_pays_nothing(line: Line) -> None:
    with pytest.raises(ConfigError):
        run(GateConfig(first_run="no-such"), line.store, line.first(), PROGRESS)
    assert looks(line.store) == []


# --- α ------------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


def test_a_killed_gate_gets_no_refund_and_pays_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = line.first()

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("sparring.steps.gate._read_tables", die)
        run(APPROVED, line.store, inputs, PROGRESS)
    assert [look.round for look in looks(line.store)] == [1]
    assert not line.store.exists(decision_key(1))
    assert run(APPROVED, line.store, inputs, PROGRESS).decision == "PROMOTE"
    assert [look.spent for look in looks(line.store)] == [0.0]


def test_spent_alpha_holds_until_a_promotion(line: Line) -> None:
    line.promoted_once()
    policy, champion = load_policy("laptop"), read_log(line.store).champion
    for number in range(100, 100 + policy.looks):
        assert reserve(line.store, round=number, champion=champion, policy=policy).alpha == policy.alpha_per_look
    inputs = line.second()
    result = run(APPROVED, line.store, inputs, PROGRESS)
    assert result.decision == "INCONCLUSIVE"
    assert result.reason.startswith("α is spent")
    assert hold(line.store, ending(inputs, result)).champion == champion
    assert reserve(line.store, round=200, champion="other", policy=policy).alpha == policy.alpha_per_look


def test_uses_of_the_suites_are_counted_across_champions_and_said_when_they_are_many(line: Line) -> None:
    line.promoted_once()
    policy = load_policy("laptop")
    for number in range(100, 100 + policy.looks):
        reserve(line.store, round=number, champion=f"champion {number}", policy=policy, suites="suites")
        reserve(line.store, round=number + 100, champion="x", policy=policy, suites="other suites")
    result = run(APPROVED, line.store, line.second(), PROGRESS)
    record = read_record(line.store, result.decision_key)
    assert result.decision == "PROMOTE" and record.look is not None
    assert record.look.suites == "suites" and record.look.earlier == 1 + policy.looks
    assert any(f"look {policy.looks + 2} at the same suites" in said for said in record.decision.warnings)


def test_another_policy_refills_nothing(line: Line) -> None:
    policy = load_policy("laptop")
    for number in range(1, 1 + policy.looks):
        reserve(line.store, round=number, champion="x", policy=policy)
    other = policy.model_copy(update={"looks": 20, "name": "patient"})
    assert reserve(line.store, round=50, champion="x", policy=other).alpha == 0.0


def test_a_policy_changed_after_the_look_is_invalid(line: Line) -> None:
    inputs = line.first()
    reserve(line.store, round=inputs.round, champion=None, policy=load_policy("laptop"))
    result = run(APPROVED, line.store, inputs, PROGRESS)
    assert result.decision == "INVALID"
    assert "was changed after" in result.reason


def test_a_damaged_look_is_a_fault(line: Line) -> None:
    line.store.put("gate/looks/000001.json", b'{"round": 1}')
    with pytest.raises(CorruptError, match="gate/looks/000001"):
        run(APPROVED, line.store, line.first(), PROGRESS)


def test_nothing_changed_pays_nothing(line: Line) -> None:
    line.promoted_once()
    champion = World(read_log(line.store).champion or "")
    result = run(APPROVED, line.store, line.inputs(champion, champion), PROGRESS)
    assert (result.decision, len(looks(line.store))) == ("REJECT", 1)
    assert result.reason.startswith("nothing changed")


def test_a_first_round_that_trains_nothing_is_held(line: Line) -> None:
    base = World(BASE, asr=0.93)
    assert end(line.store, line.inputs(base, base)).decision == "REJECT"


# --- INVALID ------------------------------------------------------------------------------------------------------

Change = Callable[[GateInputs], GateInputs]


def _judged(**changes: object) -> Change:
    return lambda inputs: inputs.model_copy(update={"judged": inputs.judged.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_judged(suites="other"), "suites other"),
        (_judged(models={"candidate": "e" * 64, "champion": BASE}), "e" * 64),
        (_judged(models={"candidate": "", "champion": BASE}), "no digest"),
        (_judged(verdicts={}, models={}), "candidate has no verdict table"),
        (lambda inputs: inputs.model_copy(update={"start": "f" * 64}), "f" * 64),
        (lambda inputs: inputs.model_copy(update={"reference": REFERENCE}), "reference"),
    ],
)
def test_tables_that_are_not_this_rounds_are_invalid_and_held(line: Line, change: Change, words: str) -> None:
    inputs = change(line.first())
    result = run(APPROVED, line.store, inputs, PROGRESS)
    assert result.decision == "INVALID"
    assert words in " ".join(read_record(line.store, result.decision_key).decision.missing)
    assert hold(line.store, ending(inputs, result)).champion is None


def test_unequal_judge_results_of_roles_are_invalid(line: Line) -> None:
    """Swapped verdict keys: each table is about the other model."""
    inputs = line.first()
    verdicts = inputs.judged.verdicts
    swapped = _judged(verdicts={"candidate": verdicts["champion"], "champion": verdicts["candidate"]})(inputs)
    assert run(APPROVED, line.store, swapped, PROGRESS).decision == "INVALID"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet", b"\x00" * 100])
def test_an_unreadable_table_is_invalid(line: Line, data: bytes) -> None:
    inputs = line.first()
    line.store.put(inputs.judged.verdicts["champion"], data)
    result = run(APPROVED, line.store, inputs, PROGRESS)
    assert result.decision == "INVALID"
    assert "champion's table" in result.reason


def test_a_truncated_table_is_invalid(line: Line) -> None:
    inputs = line.first()
    key = inputs.judged.verdicts["candidate"]
    line.store.put(key, line.store.get(key)[:-20])
    assert run(APPROVED, line.store, inputs, PROGRESS).decision == "INVALID"


def test_a_table_that_is_gone_is_a_fault(line: Line) -> None:
    inputs = line.first()
    line.store.delete(inputs.judged.verdicts["candidate"])
    with pytest.raises(NotFoundError):
        run(APPROVED, line.store, inputs, PROGRESS)
    assert not line.store.exists(decision_key(inputs.round))
