"""A round whose training a guard stops: held with the reason, no look paid, nobody asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sparring.cli.main import app
from sparring.registry import rounds
from sparring.steps.gate import check_record
from sparring.steps.results import AnswerResult, JudgeResult, SelfplayResult
from tests.models import save_tiny
from tests.pipelines.real_rounds import Line

WHY = "the policy's entropy"


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("guarded")
    line = Line(folder, save_tiny(folder / "tiny"))
    guards = {"min_entropy": 1000.0, "patience": 1}
    assert line.play(line.config(selfplay={"guards": guards})) == "REJECT"
    return line


@pytest.mark.slow
def test_a_stopped_round_is_held_with_the_reason(held: Line) -> None:
    trained = rounds.load_result(held.store, 1, "selfplay", SelfplayResult)
    assert trained is not None and WHY in trained.guard and trained.stopped == ""
    (record,) = held.log.records
    assert record.kind == "hold" and WHY in record.reason and held.log.champion is None
    assert record.candidate == trained.candidate


@pytest.mark.slow
def test_nobody_was_asked_and_no_alpha_was_spent(held: Line) -> None:
    answered = rounds.load_result(held.store, 1, "answer", AnswerResult)
    judged = rounds.load_result(held.store, 1, "judge", JudgeResult)
    assert answered is not None and answered.answers == {} and judged is not None and judged.rows == 0
    decided = held.record()
    assert decided.look is None and decided.decision.outcome == "REJECT"
    assert check_record(held.store, decided) == decided.decision


@pytest.mark.slow
def test_report_metrics_and_status_say_why(held: Line) -> None:
    page = next(key for key in held.store.list("rounds/000001/report/") if key.endswith(".html"))
    assert WHY in held.store.get(page).decode().replace("&#39;", "'").replace("&#x27;", "'")
    shown = CliRunner().invoke(app, ["status", "--store", str(held.folder / "store")])
    assert shown.exit_code == 0 and "entropy" in shown.output
