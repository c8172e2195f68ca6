"""The way into every step: done work is not done again, every attempt is in the ledger, a round is always closed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.config.run import RunConfig
from sparring.errors import CorruptError, DataError, NotFoundError, UsageError
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.steps.entry import RunRequest, execute, next_step
from sparring.steps.results import GateResult, PromoteResult
from tests.pipelines.planted import BASE, BETTER, Planted, plant


@pytest.fixture
def better(tmp_path: Path) -> Planted:
    return plant(tmp_path, BETTER)


def play(planted: Planted, step: str) -> str:
    return execute(step, planted.request.model_dump_json(), str(planted.number))


def test_a_better_candidate_is_decided_promoted_and_the_round_closed(better: Planted) -> None:
    assert play(better, "gate") == "PROMOTE"
    assert play(better, "promote") == "1"
    end = rounds.load_end(better.store, better.number)
    assert end is not None and end.decision == "PROMOTE"
    assert read_log(better.store).champion == better.candidate


def test_a_worse_candidate_is_held_with_the_reason(tmp_path: Path) -> None:
    worse = plant(tmp_path, replace(BASE, asr=0.95))
    decision = play(worse, "gate")
    assert decision in ("REJECT", "INCONCLUSIVE")
    play(worse, "hold")
    end = rounds.load_end(worse.store, worse.number)
    assert end is not None and end.decision == decision and end.reason
    assert read_log(worse.store).champion is None


@pytest.mark.parametrize("wrong", ["hold", "promote"])
def test_neither_branch_believes_the_orchestrator(wrong: str, tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER if wrong == "hold" else replace(BASE, asr=0.95))
    play(planted, "gate")
    with pytest.raises(UsageError):
        play(planted, wrong)
    assert read_log(planted.store).head == 0
    assert rounds.load_end(planted.store, planted.number) is None


def test_a_step_with_a_result_is_not_played_again(better: Planted) -> None:
    first = play(better, "gate")
    before = {key: better.store.get(key) for key in better.store.list()}
    assert play(better, "gate") == first
    assert {key: better.store.get(key) for key in better.store.list()} == before


def test_a_round_killed_between_promotion_and_its_end_is_closed_by_the_rerun(better: Planted) -> None:
    play(better, "gate")
    play(better, "promote")
    better.store.delete(f"rounds/{better.number:06d}/end.json")
    play(better, "promote")
    end = rounds.load_end(better.store, better.number)
    assert end is not None and end.decision == "PROMOTE"
    assert read_log(better.store).head == 1


def test_a_round_killed_before_the_result_was_saved_leaves_one_record(better: Planted) -> None:
    play(better, "gate")
    play(better, "promote")
    for name in ("end.json", "promote/result.json"):
        better.store.delete(f"rounds/{better.number:06d}/{name}")
    play(better, "promote")
    assert read_log(better.store).head == 1
    assert rounds.load_result(better.store, better.number, "promote", PromoteResult) is not None


def test_attempts_and_metrics_are_in_the_ledger(better: Planted) -> None:
    play(better, "gate")
    play(better, "promote")
    entry = ledger.read(better.store, better.number)["promote"]
    assert entry.status == "ok" and entry.metrics == {"record": 1.0}


def test_a_mistake_is_recorded_with_its_class_and_raised(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"data": {"harmful": [str(tmp_path / "no-such.jsonl")]}})
    request = request_for(tmp_path, config)
    with pytest.raises(DataError):
        execute("prepare", request.model_dump_json())
    (attempt,) = ledger.read(request.open(), 1)["prepare"].attempts
    assert attempt.status == "failed"
    assert attempt.error is not None and attempt.error.startswith("DataError: ") and "no-such.jsonl" in attempt.error


def test_a_step_without_what_comes_before_says_which(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    planted.store.delete(f"rounds/{planted.number:06d}/judge/result.json")
    with pytest.raises(NotFoundError, match="no result of step judge"):
        play(planted, "gate")
    assert ledger.read(planted.store, planted.number)["gate"].status == "failed"


def test_next_step_follows_the_results(better: Planted) -> None:
    assert next_step(better.store, better.number) == "gate"
    play(better, "gate")
    assert next_step(better.store, better.number) == "promote"
    better.store.delete(f"rounds/{better.number:06d}/answer/result.json")
    assert next_step(better.store, better.number) == "answer"


def test_the_report_of_an_open_round_is_written_again_later(better: Planted) -> None:
    assert play(better, "report").endswith("index.html")
    early = better.store.get(f"rounds/{better.number:06d}/report/index.html")
    play(better, "gate")
    play(better, "promote")
    play(better, "report")
    assert better.store.get(f"rounds/{better.number:06d}/report/index.html") != early


def test_a_report_without_a_number_is_of_the_round_that_its_run_played(
    better: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ledger.RUN_VARIABLE, "first")
    play(better, "gate")
    play(better, "promote")
    plant(tmp_path / "next", BASE, url=str(tmp_path / "store"))  # another run's, before our page
    assert "000001" in execute("report", better.request.model_dump_json())
    monkeypatch.setenv(ledger.RUN_VARIABLE, "second")
    assert "000002" in execute("report", better.request.model_dump_json())


def test_a_report_without_a_number_is_of_the_round_last_begun(better: Planted, tmp_path: Path) -> None:
    assert "000001" in execute("report", better.request.model_dump_json())
    assert execute("report", request_for(tmp_path / "empty", RunConfig()).model_dump_json()) == ""


def test_a_result_that_is_damaged_is_named(better: Planted) -> None:
    play(better, "gate")
    better.store.put(f"rounds/{better.number:06d}/gate/result.json", b'{"decision": "PROMOTE"')
    with pytest.raises(CorruptError, match=r"gate/result\.json"):
        play(better, "gate")


@pytest.mark.parametrize("run", ["", "[]", "{}", '{"store": "x", "line": "../up", "config": ""}'])
def test_a_wrong_request_is_one_line(run: str) -> None:
    with pytest.raises(UsageError, match="parameter run"):
        execute("prepare", run)


def test_a_step_in_the_middle_needs_its_number(better: Planted) -> None:
    with pytest.raises(UsageError, match="number"):
        execute("gate", better.request.model_dump_json())


def test_every_result_carries_the_decision_of_the_gate(better: Planted) -> None:
    decision = play(better, "gate")
    found = rounds.load_result(better.store, better.number, "gate", GateResult)
    assert found is not None and found.decision == decision
    assert json.loads(better.store.get(found.decision_key))["decision"]["outcome"] == decision


def request_for(folder: Path, config: RunConfig) -> RunRequest:
    request = RunRequest(store=str(folder / "store"), line="default", config="")
    return request.model_copy(update={"config": rounds.save_config(request.open(), config)})
