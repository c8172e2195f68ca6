"""The gate step and the two ends of a round, on a real store with a real champion log."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from sparring.config.run import GateConfig
from sparring.errors import ConfigError, ConflictError, CorruptError, ModelError, NotFoundError, StoreError, UsageError
from sparring.evaluate.tables import write_verdicts
from sparring.gate.policy import load_policy
from sparring.gate.spending import looks, reserve
from sparring.progress import Progress
from sparring.registry.champion import append, read_log, rollback
from sparring.registry.checkpoints import save_checkpoint
from sparring.steps.gate import GateInputs, decision_key, read_record, run
from sparring.steps.promote import PromoteInputs, hold, promote
from sparring.steps.results import GateResult, JudgeResult, PromoteResult, Role
from sparring.store import Store, open_store
from tests.gate.worlds import BASE, JUDGE, REFERENCE, World, with_value

APPROVED = GateConfig(approve_first_run=True)
PROGRESS = Progress("gate")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store")).scope("lines/test")


class Line:
    """A model line in a store: rounds are played by writing the verdict tables that a judge would write."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.round = store, folder, 0

    def checkpoint(self, name: str) -> str:
        """Digest of a saved checkpoint. Its weights do not matter here."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (folder / "config.json").write_text(json.dumps({"name": name}))
        return save_checkpoint(self.store, folder)

    def inputs(self, candidate: World, champion: World, reference: World | None = None) -> GateInputs:
        """Begins a round at the log as it is, with these models' verdicts."""
        self.round += 1
        log = read_log(self.store)
        worlds: dict[Role, World] = {"candidate": candidate, "champion": champion}
        if reference is not None:
            worlds["reference"] = reference
        judged = JudgeResult(
            models={role: world.model for role, world in worlds.items()},
            verdicts={role: self.write(role, world.table()) for role, world in worlds.items()},
            suites="suites",
            decoding="decoding",
            judge=JUDGE,
            rows=1,
            void=0,
        )
        return GateInputs(
            round=self.round,
            first_run=log.champion is None,
            start=log.champion or BASE,
            champion=log.champion,
            reference=log.reference,
            suites="suites",
            log_head=log.head,
            judged=judged,
        )

    def write(self, role: Role, table: pa.Table) -> str:
        key = f"rounds/{self.round:06d}/judge/{role}.parquet"
        write_verdicts(self.store, key, table)
        return key

    def first(self) -> GateInputs:
        """A first round that deserves promotion."""
        candidate = World(self.checkpoint("one"), asr=0.50, lookalike_refused=0.25)
        return self.inputs(candidate, World(BASE, asr=0.93, lookalike_refused=0.02))

    def second(self, **traits: float) -> GateInputs:
        """A later round; by default its candidate deserves promotion."""
        one = World(read_log(self.store).champion or "", asr=0.50, lookalike_refused=0.25)
        two = replace(one, model=self.checkpoint(f"two{self.round}"), **({"asr": 0.25} | traits))
        reference = replace(one, model=read_log(self.store).reference or "")
        return self.inputs(two, one, None if reference.model == one.model else reference)

    def promoted_once(self) -> Line:
        end(self.store, self.first())
        return self


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Line:
    return Line(store, tmp_path)


def ending(inputs: GateInputs, result: GateResult) -> PromoteInputs:
    return PromoteInputs(round=inputs.round, champion=inputs.champion, log_head=inputs.log_head, gate=result)


def end(store: Store, inputs: GateInputs, config: GateConfig = APPROVED) -> PromoteResult:
    """Gate and the branch that the decision takes."""
    result = run(config, store, inputs, PROGRESS)
    branch = promote if result.decision == "PROMOTE" else hold
    return branch(store, ending(inputs, result))


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


# --- promote believes nobody --------------------------------------------------------------------------------------


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
