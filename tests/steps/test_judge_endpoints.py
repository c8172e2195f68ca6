"""A dead or lying endpoint ends in INVALID, never in a promotion: through the real judge step and the real gate.

The same round with an honest server is promoted, so that each case differs from a promotion by its fault alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparring.config.judges import JudgeConfig
from sparring.evaluate.tables import read_verdicts
from sparring.progress import Progress
from sparring.steps import judge as judge_step
from sparring.steps.gate import GateInputs, read_record
from sparring.steps.gate import run as gate
from sparring.steps.judge import JudgeInputs
from sparring.steps.results import AnswerResult, GateResult, JudgeResult, Role
from sparring.store import Store, open_store
from tests.faults.openai_server import Foreign, Response, said, serving
from tests.gate.lines import APPROVED, PROGRESS, Line
from tests.gate.worlds import BASE, World

REFUSALS = "I'm sorry, I cannot help with that request."
ROWS = 1240
"""Harmful and benign answers of both models."""
HELP = "Sure, here is a plan with several different steps that you can follow today."


def honest(body: dict[str, Any], _: int = 0) -> Response:
    """Qwen3Guard as it would be if it made no mistakes."""
    prompt, answer = (turn["content"] for turn in body["messages"][:2])
    refused = answer.startswith("I'm sorry")
    unsafe = prompt.startswith("harmful") and not refused
    return said(f"Safety: {'Unsafe' if unsafe else 'Safe'}\nCategories: None\nRefusal: {'Yes' if refused else 'No'}")


class Round:
    """A line's first round, answered; whoever judges it honestly finds that it deserves promotion."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(str(folder / "store"))
        line = Line(self.store, folder)
        candidate = World(line.checkpoint("one"), asr=0.50, lookalike_refused=0.25)
        worlds: dict[Role, World] = {"candidate": candidate, "champion": World(BASE, asr=0.93, lookalike_refused=0.02)}
        self.inputs = line.inputs(worlds["candidate"], worlds["champion"])
        self.answered = AnswerResult(
            models={role: world.model for role, world in worlds.items()},
            answers={role: self._answers(role, world.table()) for role, world in worlds.items()},
            suites="suites",
            decoding="decoding",
        )

    def _answers(self, role: str, verdicts: pa.Table) -> str:
        rows = [
            {
                **row,
                "prompt": f"{row['prompt_id']}?",
                "answer": f"{REFUSALS if row['refused'] else HELP} ({row['prompt_id']})",
            }
            for row in verdicts.to_pylist()
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        self.store.put(f"answers/{role}.parquet", sink.getvalue().to_pybytes())
        return f"answers/{role}.parquet"

    def distinct(self) -> int:
        """How many of the answers differ: an answer is judged once, whichever model gave it."""
        tables = [pq.read_table(pa.BufferReader(self.store.get(key))) for key in self.answered.answers.values()]
        rows = [row for table in tables for row in table.to_pylist() if row["kind"] != "capability"]
        return len({(row["prompt"], row["answer"]) for row in rows})

    def judged(self, config: JudgeConfig) -> JudgeResult:
        return judge_step.run(config, self.store, JudgeInputs(1, self.answered), Progress("judge"))

    def decided(self, judged: JudgeResult) -> GateResult:
        inputs: GateInputs = self.inputs.model_copy(update={"judged": judged})
        return gate(APPROVED, self.store, inputs, PROGRESS)


@pytest.fixture
def round_one(tmp_path: Path) -> Round:
    return Round(tmp_path)


def config(foreign: Foreign, gate: str | list[str] = "guard", **changes: Any) -> JudgeConfig:
    guard = {"format": "qwen3guard", "base_url": foreign.url, "model": "guard", "retries": 0, "timeout_s": 5, **changes}
    return JudgeConfig.model_validate({"gate": gate, "endpoints": {"guard": guard}})


def test_an_honest_endpoint_promotes_and_a_rerun_asks_nothing(round_one: Round) -> None:
    with serving(honest) as foreign:
        judged = round_one.judged(config(foreign))
        asked = len(foreign.requests)
        again = round_one.judged(config(foreign))
        assert asked == round_one.distinct() < ROWS and len(foreign.requests) == asked
    assert judged.void == again.void == 0 and again.judge == judged.judge
    assert judged.judges == {"guard": judged.judge} and judged.families["guard"] == "qwen"
    assert judged.usage["guard requests"] == asked and again.usage["guard cached"] == ROWS
    assert judged.warnings == ()
    decided = round_one.decided(judged)
    assert decided.decision == "PROMOTE"


def third(body: dict[str, Any], number: int) -> Response:
    return said("Harmful? Hardly.") if number % 3 == 0 else honest(body)


def flaky(body: dict[str, Any], number: int) -> Response:
    return Response(status=500) if number % 4 == 0 else honest(body)


def cut(body: dict[str, Any], number: int) -> Response:
    whole = honest(body)
    return Response(body=whole.body, cut=40) if number % 4 == 0 else whole


FAULTS: dict[str, Callable[[dict[str, Any], int], Response]] = {
    "nonsense for a third": third,
    "500 for a quarter": flaky,
    "truncated for a quarter": cut,
    "always 500": lambda *_: Response(status=500),
    "stalls": lambda *_: Response(delay=1.0),
    "no choices": lambda *_: Response(body=b'{"choices": []}'),
    "web page": lambda *_: Response(body=b"<html/>", kind="text/html"),
    "huge": lambda *_: Response(body=b" " * (2 << 20)),
    "always says what the parser does not know": lambda *_: said("Safety: Excellent\nRefusal: Yes"),
    "echoes the answer": lambda body, _: said(body["messages"][1]["content"]),
}


ALL_ASKED = (*list(FAULTS)[:3], *list(FAULTS)[-2:])
"""Faults under which every answer is asked for: they take their time."""


@pytest.mark.parametrize("fault", [pytest.param(f, marks=[pytest.mark.slow] * (f in ALL_ASKED)) for f in FAULTS])
def test_a_faulty_endpoint_ends_in_invalid(round_one: Round, fault: str) -> None:
    with serving(FAULTS[fault]) as foreign:
        judged = round_one.judged(config(foreign, timeout_s=0.2 if fault == "stalls" else 5))
    assert judged.void > 0.15 * ROWS
    decided = round_one.decided(judged)
    assert decided.decision == "INVALID"
    missing = " ".join(read_record(round_one.store, decided.decision_key).decision.missing)
    assert "are not judged" in missing
    assert judged.usage["guard failed"] == judged.void


@pytest.mark.slow
def test_an_endpoint_that_dies_half_way_ends_in_invalid(round_one: Round) -> None:
    with serving(lambda body, number: honest(body) if number < 600 else Response(status=502)) as foreign:
        judged = round_one.judged(config(foreign))
    assert judged.usage["guard requests"] < 700 and judged.void > 0.15 * ROWS
    assert round_one.decided(judged).decision == "INVALID"


def test_a_panel_with_a_dead_member_is_void_where_it_matters(round_one: Round) -> None:
    with serving(lambda *_: Response(status=500)) as foreign:
        judged = round_one.judged(config(foreign, ["guard", "string-match"]))
    assert round_one.decided(judged).decision == "INVALID"
    assert judged.judge.startswith("majority(guard+string-match)@")


@pytest.mark.slow
def test_a_panel_that_agrees_promotes_and_reports_its_kappa(round_one: Round) -> None:
    with serving(honest) as foreign:
        judged = round_one.judged(config(foreign, ["guard", "string-match"]))
    assert judged.void == 0 and judged.agreement["refused fleiss"] == 1.0
    assert round_one.decided(judged).decision == "PROMOTE"
    table, _ = read_verdicts(round_one.store, judged.verdicts["candidate"])
    assert {row["judge"] for row in table.to_pylist() if row["kind"] != "capability"} == {judged.judge}


@pytest.mark.slow
def test_little_agreement_and_one_family_are_warned_of(round_one: Round) -> None:
    def contrary(body: dict[str, Any], number: int) -> Response:
        return honest({"messages": [body["messages"][0], {"content": REFUSALS if number % 2 else HELP}]})

    with serving(contrary) as foreign:
        judged = round_one.judged(config(foreign, ["guard", "string-match"], family="minilm"))
    little, family = sorted(judged.warnings, key=lambda text: "family" in text)
    assert "agree little on `refused`: kappa" in little
    assert "reward judge embedded-reward and gate judge guard are of one family (minilm)" in family


def test_the_embedded_judges_are_of_one_family_and_old_results_still_read() -> None:
    warned = judge_step._family_warnings(JudgeConfig())
    assert len(warned) == 1 and "embedded-gate are of one family (minilm)" in warned[0]
    old = {"models": {}, "verdicts": {}, "suites": "s", "decoding": "d", "judge": "j", "rows": 1, "void": 0}
    assert JudgeResult.model_validate(old).warnings == ()
