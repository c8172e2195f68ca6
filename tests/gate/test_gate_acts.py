"""Approvals, overrides, re-anchoring and policy changes: who may change what, and that nobody overwrites anybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sparring.cli.facts import verified
from sparring.config.run import GateConfig
from sparring.errors import ConflictError, CorruptError, ModelError, StoreError, UsageError
from sparring.gate.policy import load_policy
from sparring.gate.spending import looks
from sparring.registry.champion import Record, append, read_log, reanchor
from sparring.steps import acts
from sparring.steps.gate import GateInputs, approved_key, decision_key, read_record, run
from sparring.steps.promote import hold, promote
from sparring.store import Store
from tests.gate.lines import APPROVED, PROGRESS, Line, end, ending
from tests.gate.worlds import BASE, World

WAITING = GateConfig(require_approval=True, approve_first_run=True)


def kinds(store: Store) -> list[str]:
    return [record.kind for record in read_log(store).records]


def approve(store: Store, number: int) -> Record:
    return acts.approve(store, number, actor="ann", reason="read the answers")


def override(store: Store, number: int) -> Record:
    return acts.override(store, number, actor="ann", reason="the suite is wrong")


def promoted_elsewhere(line: Line) -> Record:
    log = read_log(line.store)
    return append(
        line.store, expected_head=log.head, kind="promotion", actor="another", round=77,
        candidate=line.checkpoint("other"), decision="PROMOTE", reason="test",
    )  # fmt: skip


def waiting(line: Line) -> GateInputs:
    """A later round whose candidate waits for approval, held."""
    line.promoted_once()
    inputs = line.second()
    result = run(GateConfig(require_approval=True), line.store, inputs, PROGRESS)
    assert result.decision == "INCONCLUSIVE" and result.reason.startswith("waits for approval")
    hold(line.store, ending(inputs, result))
    return inputs


# --- approval -----------------------------------------------------------------------------------------------------


def test_approving_decides_again_and_promotes(line: Line) -> None:
    inputs = waiting(line)
    record = approve(line.store, inputs.round)
    assert (record.kind, record.champion, record.decision) == ("promotion", inputs.expected["candidate"], "PROMOTE")
    assert kinds(line.store) == ["promotion", "hold", "approval", "promotion"]
    approval = read_log(line.store).records[2]
    assert (approval.actor, approval.reason) == ("ann", "read the answers")
    assert read_record(line.store, approved_key(inputs.round)).decision.approved
    assert not read_record(line.store, decision_key(inputs.round)).decision.approved
    assert approve(line.store, inputs.round) == record
    assert len(looks(line.store)) == 2
    assert sum("follows from its tables" in text for text in verified(line.store)) == 2


def test_the_first_run_waits_too_and_the_file_alone_does_not_approve(line: Line) -> None:
    inputs = line.first()
    assert end(line.store, inputs, WAITING).decision == "INCONCLUSIVE"
    assert approve(line.store, 1).champion == read_log(line.store).reference == inputs.expected["candidate"]


def test_a_policy_that_asks_for_approval(line: Line, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(load_policy("laptop").model_dump() | {"approval": True}))
    line.promoted_once()
    inputs = line.second()
    assert end(line.store, inputs, GateConfig(policy=str(tmp_path / "policy.yaml"))).decision == "INCONCLUSIVE"
    assert approve(line.store, inputs.round).champion == inputs.expected["candidate"]


def test_an_approval_before_the_hold_ends_the_round_as_promoted(line: Line) -> None:
    inputs = line.first()
    result = run(WAITING, line.store, inputs, PROGRESS)
    approve(line.store, 1)
    ended = hold(line.store, ending(inputs, result))
    assert (ended.decision, ended.champion) == ("PROMOTE", inputs.expected["candidate"])
    assert kinds(line.store) == ["approval", "promotion"]


@pytest.mark.parametrize("asr", [0.60, 0.47])
def test_what_does_not_wait_for_approval_cannot_be_approved(line: Line, asr: float) -> None:
    line.promoted_once()
    inputs = line.second(asr=asr)
    assert end(line.store, inputs).decision in ("REJECT", "INCONCLUSIVE")
    with pytest.raises(UsageError, match="does not wait for approval"):
        approve(line.store, inputs.round)
    assert kinds(line.store) == ["promotion", "hold"]


def test_somebody_promoted_meanwhile_gate_again(line: Line) -> None:
    inputs = waiting(line)
    other = promoted_elsewhere(line)
    for act in (approve, override):
        with pytest.raises(ConflictError, match="the next round gates again"):
            act(line.store, inputs.round)
    assert read_log(line.store).champion == other.champion and kinds(line.store)[-1] == "promotion"


def test_a_promotion_between_approval_and_promotion_is_never_overwritten(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other promotion lands at the worst moment: after the approval, before the decision is written again."""
    inputs = waiting(line)
    done: list[Record] = []

    def interrupted(*arguments: object, **named: object) -> Record:
        if named["kind"] == "promotion" and not done:
            done.append(promoted_elsewhere(line))
        return append(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("sparring.steps.acts.append", interrupted)
    with pytest.raises(ConflictError, match="gates again"):
        approve(line.store, inputs.round)
    assert read_log(line.store).champion == done[0].champion
    assert kinds(line.store)[-2:] == ["approval", "promotion"]


def test_a_killed_approval_is_finished_by_the_next(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = waiting(line)

    class Killed(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(acts, "approved_key", die)
        approve(line.store, inputs.round)
    assert kinds(line.store)[-1] == "approval"
    assert approve(line.store, inputs.round).champion == inputs.expected["candidate"]
    assert kinds(line.store).count("approval") == 1


def test_approvals_raced_by_a_promotion(line: Line) -> None:
    """Four approvals and a promotion at once: one champion, a whole chain, and losers that say so."""
    inputs, barrier, outcomes = waiting(line), threading.Barrier(5), []
    other = line.checkpoint("other")

    def racing(act: Callable[[], Record]) -> None:
        barrier.wait()
        try:
            outcomes.append(act().champion)
        except ConflictError:
            outcomes.append(None)

    def elsewhere() -> Record:
        head = read_log(line.store).head
        return append(
            line.store, expected_head=head, kind="promotion", actor="another", round=77, candidate=other,
            decision="PROMOTE", reason="test",
        )  # fmt: skip

    threads = [threading.Thread(target=racing, args=(lambda: approve(line.store, inputs.round),)) for _ in range(4)]
    threads.append(threading.Thread(target=racing, args=(elsewhere,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = read_log(line.store)
    mine, theirs = inputs.expected["candidate"], other
    since = [record for record in log.records if record.number > inputs.log_head and record.kind == "promotion"]
    assert len(outcomes) == 5 and 1 <= len(since) <= 2
    if since[0].champion == theirs:  # the candidate was compared with a champion that is none any more
        assert log.champion == theirs and mine not in outcomes
    else:
        assert outcomes.count(mine) == 4
    assert sum(record.kind == "approval" for record in log.records) <= 1


@pytest.mark.parametrize("damage", ["table", "checkpoint", "decision"])
def test_nothing_damaged_is_promoted_by_a_person(line: Line, damage: str) -> None:
    inputs = waiting(line)
    candidate = inputs.expected["candidate"]
    if damage == "table":
        line.write("candidate", World(candidate, asr=0.0).table())
    elif damage == "checkpoint":
        line.store.put(f"checkpoints/{candidate}/config.json", b"{}")
    else:
        key = decision_key(inputs.round)
        line.store.put(key, line.store.get(key).replace(b'"INCONCLUSIVE"', b'"REJECT"'))
    before = kinds(line.store)
    for act in (approve, override):
        with pytest.raises((StoreError, UsageError)):
            act(line.store, inputs.round)
    assert kinds(line.store) == before


def test_a_promotion_approved_by_nobody_is_found(line: Line) -> None:
    inputs = waiting(line)
    record = read_record(line.store, decision_key(inputs.round))
    decision = acts._waiting(line.store, record)
    approved = record.model_copy(update={"decision": decision})
    line.store.put(approved_key(inputs.round), approved.model_dump_json().encode())
    append(
        line.store, expected_head=read_log(line.store).head, kind="promotion", actor="eve", round=inputs.round,
        candidate=decision.candidate, decision="PROMOTE", reason="x",
        details={"decision_key": approved_key(inputs.round)},
    )  # fmt: skip
    with pytest.raises(CorruptError, match="approved by nobody"):
        list(verified(line.store))


# --- override -----------------------------------------------------------------------------------------------------


def test_an_override_is_recorded_loudly(line: Line) -> None:
    line.promoted_once()
    inputs = line.second(asr=0.60)
    assert end(line.store, inputs).decision == "REJECT"
    record = override(line.store, inputs.round)
    assert (record.kind, record.decision, record.champion) == ("override", "REJECT", inputs.expected["candidate"])
    assert "attack success rate is not lower" in str(record.details["gate_reason"])
    assert override(line.store, inputs.round) == record
    log = read_log(line.store)
    assert (log.champion, log.champion_round) == (inputs.expected["candidate"], inputs.round)
    assert any("OVERRIDE of round 2's REJECT by ann" in text for text in verified(line.store))


def test_an_override_is_never_possible_for_invalid_or_promote(line: Line) -> None:
    inputs = line.first()
    line.store.put(inputs.judged.verdicts["candidate"], b"no table")
    end(line.store, inputs)
    with pytest.raises(UsageError, match="INVALID: nothing was measured"):
        override(line.store, inputs.round)
    good = line.first()
    end(line.store, good)
    with pytest.raises(UsageError, match="PROMOTE: it needs no override"):
        override(line.store, good.round)
    with pytest.raises(UsageError, match="round 9"):
        override(line.store, 9)
    assert kinds(line.store) == ["hold", "promotion"]


def test_an_override_needs_a_reason_a_checkpoint_and_another_digest(line: Line) -> None:
    gone = line.inputs(World("e" * 64, asr=0.95), World(BASE, asr=0.93))
    end(line.store, gone)
    with pytest.raises(UsageError, match="a reason must be given"):
        acts.override(line.store, gone.round, actor="ann", reason=" ")
    with pytest.raises(ModelError):
        override(line.store, gone.round)
    line.promoted_once()
    champion = World(read_log(line.store).champion or "")
    same = line.inputs(champion, champion)
    end(line.store, same)
    with pytest.raises(UsageError, match="nothing to promote"):
        override(line.store, same.round)


def test_an_override_in_the_first_run_makes_the_reference(line: Line) -> None:
    inputs = line.inputs(World(line.checkpoint("bad"), asr=0.95), World(BASE, asr=0.93))
    end(line.store, inputs)
    override(line.store, inputs.round)
    assert read_log(line.store).reference == inputs.expected["candidate"]
    assert end(line.store, line.second()).decision == "PROMOTE"


def test_an_override_meanwhile_forces_another_gate(line: Line) -> None:
    line.promoted_once()
    bad = line.second(asr=0.60)
    end(line.store, bad)
    inputs = line.second(asr=0.20)
    result = run(APPROVED, line.store, inputs, PROGRESS)
    override(line.store, bad.round)
    assert promote(line.store, ending(inputs, result)).decision == "INCONCLUSIVE"
    assert read_log(line.store).champion == bad.expected["candidate"]


# --- re-anchoring -------------------------------------------------------------------------------------------------


def test_reanchoring_changes_the_reference_and_no_champion(line: Line) -> None:
    line.promoted_once()
    two = line.second()
    end(line.store, two)
    inputs = line.second(asr=0.05)
    result = run(APPROVED, line.store, inputs, PROGRESS)
    first, champion = read_log(line.store).reference, read_log(line.store).champion
    record = reanchor(line.store, to=str(champion)[:8], actor="ann", reason="the suites were replaced")
    assert record.details == {"before": first}
    log = read_log(line.store)
    assert (log.reference, log.champion) == (champion, champion)
    assert promote(line.store, ending(inputs, result)).decision == "PROMOTE"  # no champion changed
    for to, words in (("e" * 64, "does not name one earlier champion"), (str(champion), "the reference already")):
        with pytest.raises(UsageError, match=words):
            reanchor(line.store, to=to, actor="ann", reason="x")


# --- policy changes -----------------------------------------------------------------------------------------------


def _laptop(tmp_path: Path, **changes: object) -> GateConfig:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(load_policy("laptop").model_dump() | changes))
    return GateConfig(policy=str(path), approve_first_run=True)


def test_a_changed_policy_is_recorded_before_the_look(line: Line, tmp_path: Path) -> None:
    line.promoted_once()
    end(line.store, line.second(asr=0.60))
    end(line.store, line.second(asr=0.60))
    assert kinds(line.store) == ["promotion", "hold", "hold"]  # another kind of round, or the same policy: no change
    end(line.store, line.second(asr=0.60), _laptop(tmp_path, looks=20, judge_failure_cap=0.1))
    change, held = read_log(line.store).records[3:]
    assert (change.kind, change.round, held.kind) == ("policy_change", 4, "hold")
    assert change.details["differences"] == ["looks: 10 → 20", "judge_failure_cap: 0.05 → 0.1"]
    assert change.details["before"] == load_policy("laptop").digest != change.details["after"]
    assert "looks: 10 → 20" in change.reason
    end(line.store, line.second(asr=0.60), _laptop(tmp_path, looks=20, judge_failure_cap=0.1))
    assert kinds(line.store).count("policy_change") == 1
    end(line.store, line.second(asr=0.60))
    assert kinds(line.store).count("policy_change") == 2


def test_a_change_killed_before_the_look_is_recorded_once(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.promoted_once()
    end(line.store, line.second(asr=0.60))
    inputs = line.second()

    class Killed(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("sparring.steps.gate.reserve", die)
        run(_laptop(tmp_path, looks=20), line.store, inputs, PROGRESS)
    assert kinds(line.store)[-1] == "policy_change" and len(looks(line.store)) == 2
    run(_laptop(tmp_path, looks=20), line.store, inputs, PROGRESS)
    assert kinds(line.store).count("policy_change") == 1
