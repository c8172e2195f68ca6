"""Every case starts from tables that `standard` promotes and changes one thing: none promotes, each says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks._gate_worlds import MODELS, Truth, tables
from sparring.config.run import GateConfig
from sparring.errors import CorruptError, ModelError, NotFoundError
from sparring.evaluate.tables import decode_verdicts, encode_verdicts
from sparring.gate.decision import decide
from sparring.gate.outcome import Decision
from sparring.gate.policy import load_policy
from sparring.registry.champion import append, read_log
from sparring.steps.gate import GateInputs, run
from sparring.steps.promote import promote
from sparring.steps.results import GateResult, PromoteResult
from tests.gate.lines import PROGRESS, Line, ending
from tests.gate.worlds import World, with_column, with_value

STANDARD = load_policy("standard")
PROMOTING = tables(np.random.default_rng(1), Truth(asr_change=-0.12))
FIRST_SCORE = 2800
"""Row of the first capability score: after 1,000 harmful and 1,800 benign prompts."""

Tables = dict[str, pa.Table]


def later(found: Tables, **known: object) -> Decision:
    return decide(
        STANDARD,
        found["candidate"],
        found["champion"],
        found.get("reference"),
        first_run=False,
        expected=MODELS,
        **known,  # type: ignore[arg-type]
    )


def _candidate(change: Callable[[pa.Table], pa.Table]) -> Callable[[Tables], Tables]:
    return lambda found: found | {"candidate": change(found["candidate"])}


def _everywhere(change: Callable[[pa.Table], pa.Table]) -> Callable[[Tables], Tables]:
    return lambda found: {role: change(table) for role, table in found.items()}


def _score(value: float) -> Callable[[Tables], Tables]:
    return _candidate(lambda table: with_value(table, "score", FIRST_SCORE, value))


def _without(kind: str, part: str) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        pairs = zip(table["kind"].to_pylist(), table["slice"].to_pylist(), strict=True)
        return table.filter(pa.array([pair != (kind, part) for pair in pairs]))

    return change


def _first_of_each_kind(table: pa.Table) -> pa.Table:
    return table.take(pa.array([0, 1000, FIRST_SCORE]))


def _frozen(found: Tables) -> Tables:
    """The candidate answers word for word as the champion does: no difference, no variance."""
    return found | {"candidate": with_column(found["champion"], "model", MODELS["candidate"])}


def _one_judgement_in(every: int) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        status = ["void" if i % every == 0 else "ok" for i in range(table.num_rows)]
        return table.set_column(table.column_names.index("status"), table.schema.field("status"), pa.array(status))

    return change


@dataclass(frozen=True)
class Case:
    """One change, the outcome it must have, and words that only its reason has."""

    change: Callable[[Tables], Tables]
    outcome: str
    words: str


def _nulls(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        table.column_names.index(column),
        table.schema.field(column),
        pa.nulls(table.num_rows, table.schema.field(column).type),
    )


def _asked(table: pa.Table, how: str) -> pa.Table:
    return decode_verdicts(encode_verdicts(table, asked=how))


def _text(column: str) -> Callable[[pa.Table], pa.Table]:
    values = pa.array(["1"] * PROMOTING["candidate"].num_rows)
    return lambda table: table.set_column(table.column_names.index(column), column, values)


def _twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


NO_PLAIN = _without("benign", "plain")
CASES: dict[str, Case] = {
    "NaN": Case(_score(math.nan), "INVALID", "`score` is nan"),
    "infinite": Case(_score(math.inf), "INVALID", "`score` is inf"),
    "minus infinite": Case(_score(-math.inf), "INVALID", "`score` is -inf"),
    "above one": Case(_score(1.5), "INVALID", "`score` is 1.5"),
    "duplicate ids": Case(_candidate(_twice), "INVALID", "1 answers stand there twice"),
    "row missing": Case(_candidate(lambda t: t.slice(1)), "INVALID", "candidate has no row for 1 answers"),
    "reference's row missing": Case(
        lambda found: found | {"reference": found["reference"].slice(1)},
        "INVALID",
        "reference has no row for 1 answers",
    ),
    "slice missing from one": Case(_candidate(NO_PLAIN), "INVALID", "candidate has no row for 350 answers"),
    "slice missing from all": Case(_everywhere(NO_PLAIN), "INVALID", "benign slice plain is missing"),
    "no reference": Case(
        lambda found: {role: table for role, table in found.items() if role != "reference"},
        "INVALID",
        "the reference's verdict table is missing",
    ),
    "swapped models": Case(
        lambda found: found | {"candidate": found["champion"], "champion": found["candidate"]},
        "INVALID",
        f"about model {MODELS['champion']}, the round's candidate is {MODELS['candidate']}",
    ),
    "two models in a table": Case(
        _candidate(lambda t: with_value(t, "model", 5, "e" * 64)), "INVALID", "names no single model (and 1 more)"
    ),
    "empty suites": Case(_everywhere(lambda t: t.slice(0, 0)), "INVALID", "names no single model (and 5 more)"),
    "all judgements failed": Case(
        _everywhere(lambda t: with_column(t, "status", "void")), "INVALID", "not judged, the cap is 2.0% (and 20 "
    ),
    "the candidate's harm unjudged": Case(
        _candidate(_nulls("harmful")), "INVALID", "not judged, the cap is 2.0% (and 1 "
    ),
    "three per cent unjudged": Case(_candidate(_one_judgement_in(33)), "INVALID", "15 of 500 answers of the candidate"),
    "zero variance": Case(_frozen, "REJECT", "(+0.0 points, 95 % interval +0.0 to +0.0"),
    "one prompt of each kind": Case(_everywhere(_first_of_each_kind), "INVALID", "harmful slice vanilla has 1 prompts"),
    "one behaviour": Case(
        _everywhere(lambda t: with_column(t, "behavior", "all")), "INVALID", "harmful prompts are of 1 behaviours"
    ),
    "another judge": Case(
        _candidate(lambda t: with_column(t, "judge", "lenient@2")), "INVALID", "were judged by different judges"
    ),
    "another chat template": Case(
        lambda found: {role: _asked(table, f"d/{role == 'candidate'}") for role, table in found.items()},
        "INVALID",
        "asked with another decoding or chat template",
    ),
    "another prompt": Case(
        _candidate(lambda t: with_value(t, "prompt_id", 3, "new")), "INVALID", "champion has no row for 1 answers"
    ),
    "another behaviour": Case(
        _candidate(lambda t: with_value(t, "behavior", 3, "new")), "INVALID", "kind, behaviour and label of 1 answers"
    ),
    "benign called harmful": Case(
        _candidate(lambda t: with_value(t, "label", 1000, "harmful")), "INVALID", "does not agree with the row's kind"
    ),
    "text for numbers": Case(_candidate(_text("score")), "INVALID", "column `score` is string"),
    "column missing": Case(
        _candidate(lambda t: t.drop_columns(["harmful"])), "INVALID", "column `harmful` is there 0 times"
    ),
}


def test_the_tables_are_promoted_as_they_are() -> None:
    assert later(PROMOTING).outcome == "PROMOTE"


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_change_is_not_promoted_and_named(name: str) -> None:
    case = CASES[name]
    decision = later(case.change(PROMOTING))
    assert decision.outcome == case.outcome, decision.reason
    assert case.words in decision.reason
    assert not any(other.words in decision.reason for key, other in CASES.items() if key != name)
    assert "\n" not in decision.reason


# What is about files, logs and stores goes through the real steps.

LATER = GateConfig(policy="standard")


@dataclass(frozen=True)
class Drawn(World):
    """A model whose table is one of PROMOTING."""

    role: str = "champion"

    def table(self) -> pa.Table:
        """The table under the model's digest."""
        return with_column(PROMOTING[self.role], "model", self.model)


@pytest.fixture
def round_two(line: Line) -> GateInputs:
    """The second promotion's round: two champions before, so that champion and reference are not the same model."""
    line.promoted_once()
    line.round += 1
    two = line.checkpoint("two")
    _other_promotion(line, candidate=two, head=1, round_number=line.round)
    first = read_log(line.store).reference or ""
    candidate = Drawn(line.checkpoint("three"), role="candidate")
    return line.inputs(candidate, Drawn(two), Drawn(first, role="reference"))


def _other_promotion(
    line: Line, *, candidate: str, head: int, round_number: int = 77, time: datetime | None = None
) -> None:
    append(
        line.store,
        expected_head=head,
        kind="promotion",
        actor="another",
        round=round_number,
        candidate=candidate,
        decision="PROMOTE",
        reason="test",
        time=time,
    )


def decided(line: Line, inputs: GateInputs) -> GateResult:
    result = run(LATER, line.store, inputs, PROGRESS)
    assert result.decision == "PROMOTE", result.reason
    return result


def _held(line: Line, done: PromoteResult, words: str) -> None:
    log = read_log(line.store)
    assert done.decision == "INCONCLUSIVE"
    assert log.records[-1].kind == "hold" and words in log.records[-1].reason


def test_the_round_is_promoted_as_it_is(line: Line, round_two: GateInputs) -> None:
    done = promote(line.store, ending(round_two, decided(line, round_two)))
    assert (done.decision, done.champion) == ("PROMOTE", round_two.expected["candidate"])


def test_an_edited_table_is_not_promoted(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    key = round_two.judged.verdicts["champion"]
    data = bytearray(line.store.get(key))
    data[len(data) // 2] ^= 1
    line.store.put(key, bytes(data))
    with pytest.raises(CorruptError, match="champion's verdict table"):
        promote(line.store, ending(round_two, result))
    assert read_log(line.store).head == 2


def test_an_edited_log_is_not_promoted_upon(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    key = "champion/log/000001.json"
    line.store.put(key, line.store.get(key).replace(b'"actor":"', b'"actor":"x'))
    with pytest.raises(CorruptError, match="the chain breaks at record 1"):
        promote(line.store, ending(round_two, result))


def test_a_shortened_log_is_not_promoted_upon(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    line.store.delete("champion/log/000002.json")
    with pytest.raises(CorruptError, match="the round began at 2"):
        promote(line.store, ending(round_two, result))


def test_an_edited_decision_is_not_promoted_by_standard(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    text = line.store.get(result.decision_key).decode()
    line.store.put(result.decision_key, text.replace(round_two.expected["candidate"], "e" * 64).encode())
    with pytest.raises(CorruptError, match="candidate"):
        promote(line.store, ending(round_two, result.model_copy(update={"candidate": "e" * 64})))
    assert read_log(line.store).head == 2


def test_somebody_elses_promotion_stands(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    _other_promotion(line, candidate=line.checkpoint("other"), head=2)
    _held(line, promote(line.store, ending(round_two, result)), "record 3, a promotion")


def test_somebody_elses_promotion_with_the_clock_back_is_still_newer(line: Line, round_two: GateInputs) -> None:
    """Its time is before everything else's: the record's number gives the order."""
    result = decided(line, round_two)
    _other_promotion(line, candidate=line.checkpoint("other"), head=2, time=datetime(1970, 1, 1, tzinfo=UTC))
    _held(line, promote(line.store, ending(round_two, result)), "record 3, a promotion")


class Overtaken:
    """The line's store, but somebody else's promotion arrives between reading the log's end and writing to it."""

    def __init__(self, line: Line, other: str) -> None:
        self._line, self._other, self._done = line, other, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line.store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """The real one, after the other's record."""
        if key.startswith("champion/log/") and not self._done:
            self._done = True
            _other_promotion(self._line, candidate=self._other, head=2)
        return self._line.store.put_if_absent(key, data)


def test_a_stale_end_of_the_log_is_not_overwritten(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    other = line.checkpoint("other")
    _held(line, promote(Overtaken(line, other), ending(round_two, result)), "record 3, a promotion")
    assert read_log(line.store).champion == other


def test_tables_of_other_suites_are_invalid(line: Line, round_two: GateInputs) -> None:
    judged = round_two.judged.model_copy(update={"suites": "other"})
    result = run(LATER, line.store, round_two.model_copy(update={"judged": judged}), PROGRESS)
    assert result.decision == "INVALID" and "the answers are to suites other" in result.reason


def test_a_table_cut_short_is_invalid(line: Line, round_two: GateInputs) -> None:
    key = round_two.judged.verdicts["reference"]
    line.store.put(key, line.store.get(key)[:-100])
    result = run(LATER, line.store, round_two, PROGRESS)
    assert result.decision == "INVALID" and "reference's table" in result.reason


def test_a_table_that_is_gone_stops_the_gate(line: Line, round_two: GateInputs) -> None:
    line.store.delete(round_two.judged.verdicts["reference"])
    with pytest.raises(NotFoundError, match="reference"):
        run(LATER, line.store, round_two, PROGRESS)


def test_a_candidate_that_is_gone_is_not_promoted(line: Line, round_two: GateInputs) -> None:
    result = decided(line, round_two)
    for key in line.store.list("checkpoints/"):
        if round_two.expected["candidate"] in key:
            line.store.delete(key)
    with pytest.raises(ModelError, match="has no checkpoint"):
        promote(line.store, ending(round_two, result))


def test_spent_alpha_is_not_promoted() -> None:
    decision = later(PROMOTING, alpha_spent=STANDARD.alpha)
    assert decision.outcome == "INCONCLUSIVE" and "α is spent" in decision.reason
