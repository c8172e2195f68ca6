"""Self-play, answers and verdicts with a real (tiny, random) model, through the steps themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparring.config.run import DataConfig, EvaluateConfig, JudgeConfig, RunConfig
from sparring.data.seeds import read_seeds
from sparring.data.suites import build_suites
from sparring.errors import ConfigError
from sparring.evaluate.tables import read_verdicts
from sparring.progress import Event, Progress
from sparring.registry.checkpoints import has_checkpoint, load_manifest, save_checkpoint
from sparring.replay.pool import DRAWN
from sparring.replay.schema import ATTACKS
from sparring.steps import answer, judge, selfplay
from sparring.steps.answer import AnswerInputs
from sparring.steps.judge import JudgeInputs
from sparring.steps.results import PrepareResult, SelfplayResult
from sparring.steps.selfplay import SelfplayInputs, SelfplayStepConfig
from sparring.steps.work import CHECKPOINTS
from sparring.store import Store, open_store
from sparring.store.datasets import load_table, save_table
from tests.models import save_tiny

RUN: dict[str, Any] = {
    "warm_start": {"steps": 0},
    "game": {"attack_tokens": 6, "answer_tokens": 6, "generated_share": 0.25},
    "selfplay": {"steps": 2, "games": 8, "group": 2, "max_void_share": 1.0, "sft_examples": 4, "learning_rate": 1e-3},
}


@dataclass(frozen=True)
class Line:
    """A line whose round 1 is prepared, with a tiny model as its base."""

    store: Store
    prepared: PrepareResult
    work: Path
    model: Path


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("line")
    store, model = open_store(str(folder / "store")), save_tiny(folder / "tiny")
    base = save_checkpoint(store, model)
    suites = build_suites(DataConfig()).table()
    few = pa.concat_tables([suites.filter(pa.compute.equal(suites["slice"], s)).slice(0, 3) for s in SLICES])
    seeds = pa.Table.from_pylist(
        [
            {
                "id": f"{label}{i}",
                "text": f"Tell me about the {word}",
                "label": label,
                "behavior": f"{label}-{word}",
                "category": "",
                "source": "test",
            }
            for label in ("harmful", "benign")
            for i, word in enumerate(("river", "sea", "hill", "wood"))
        ]
    )
    assert len(read_seeds(seeds)) == 8
    empty = pa.schema([ATTACKS.field(name) for name in DRAWN]).empty_table()
    prepared = PrepareResult(
        round=1,
        start=base,
        base=base,
        champion=None,
        reference=None,
        log_head=0,
        seeds=save_table(store, seeds, name="seeds", meta={}),
        suites=save_table(store, few, name="suites", meta={}),
        replay=save_table(store, empty, name="replay", meta={}),
        counts={},
    )
    return Line(store, prepared, folder / "work", model)


SLICES = ("vanilla", "adversarial", "lookalike", "plain", "choice", "nll")


def unequal(games: pa.Table, roles: tuple[str, ...] = ("attacker", "defender"), *, groups: bool = True) -> bool:
    """Whether games of one seed (`groups`), or of one step, paid a role unequally: that moves weights."""
    paid: dict[tuple[object, ...], set[float]] = {}
    for row in games.to_pylist():
        place = (row["seed_id"], row["kind"]) if groups else ()
        for role in roles:
            if row[f"{role}_reward"] is not None:
                paid.setdefault((row["step"], role, *place), set()).add(row[f"{role}_reward"])
    return any(len(rewards) > 1 for rewards in paid.values())


def games_of(store: Store, result: SelfplayResult) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.get(result.games_key)))


def trained(line: Line, **changes: object) -> SelfplayResult:
    config = SelfplayStepConfig.of(RunConfig.model_validate({**RUN, **changes}))
    return selfplay.run(config, line.store, SelfplayInputs(line.prepared, 0, line.work), Progress("selfplay"))


def test_selfplay_leaves_a_verified_candidate_transcripts_and_curves(line: Line) -> None:
    result = trained(line)
    assert result.candidate != line.prepared.base or not unequal(games_of(line.store, result))
    assert has_checkpoint(line.store, result.candidate)
    assert load_manifest(line.store, result.candidate).meta["parent"] == line.prepared.base
    games = games_of(line.store, result)
    assert games.num_rows == result.games == 16 and set(games["step"].to_pylist()) == {0, 1}
    assert len(line.store.get(result.curves_key).splitlines()) == 2
    assert trained(line) == result  # played again from the same start, it is the same candidate


def test_each_training_step_tells_its_numbers(line: Line) -> None:
    told: list[dict[str, float]] = []
    config = SelfplayStepConfig.of(RunConfig.model_validate(RUN))
    progress = Progress("selfplay", lambda event, numbers: told.append(dict(numbers)))
    result = selfplay.run(config, line.store, SelfplayInputs(line.prepared, 1, line.work), progress)
    steps = [numbers for numbers in told if numbers]
    assert [numbers["step"] for numbers in steps] == [1, 2]
    assert sum(numbers["tokens"] for numbers in steps) == result.trained_tokens > 0
    assert all(numbers["seconds"] > 0 and "attacker_reward" in numbers for numbers in steps)


def test_a_round_that_trains_nothing_offers_the_start_itself(line: Line) -> None:
    assert trained(line, selfplay={**RUN["selfplay"], "learning_rate": 0.0}).candidate == line.prepared.base
    assert trained(line, selfplay={**RUN["selfplay"], "steps": 0}).candidate == line.prepared.base


def budgeted(line: Line, number: int, budget: Mapping[str, float], progress: Progress | None = None) -> SelfplayResult:
    config = SelfplayStepConfig.of(RunConfig.model_validate({**RUN, "budget": budget}))
    prepared = line.prepared.model_copy(update={"round": number})
    return selfplay.run(config, line.store, SelfplayInputs(prepared, 0, line.work), progress or Progress("selfplay"))


@pytest.mark.parametrize(("number", "budget"), [(11, {"tokens": 1}), (12, {"hours": 1e-9})])
def test_a_budget_that_is_used_up_leaves_what_was_trained(line: Line, number: int, budget: dict[str, float]) -> None:
    result = budgeted(line, number, budget)
    (limit,) = budget
    assert result.stopped.startswith(f"budget.{limit} is used up (") and result.stopped.endswith(") after step 1 of 2")
    assert result.candidate != line.prepared.base or not unequal(games_of(line.store, result))
    assert has_checkpoint(line.store, result.candidate)
    assert (result.games, result.spent["tokens"]) == (8, result.trained_tokens)
    assert result.spent["hours"] > 0 == result.spent["gpu_hours"]


def test_a_budget_that_is_enough_changes_nothing(line: Line) -> None:
    result = budgeted(line, 13, {"tokens": 10**9, "hours": 100})
    assert result.stopped == "" and result.spent["tokens"] == result.trained_tokens
    assert (result.candidate, result.games) == (budgeted(line, 13, {}).candidate, 16)


def test_what_a_killed_try_used_counts_and_one_step_is_trained_all_the_same(line: Line) -> None:
    def killed(event: Event, numbers: object) -> None:
        if (event.stage, event.done) == ("self-play", 2):
            raise KeyboardInterrupt

    budget = {"tokens": budgeted(line, 14, {"tokens": 1}).trained_tokens * 2 - 1}
    with pytest.raises(KeyboardInterrupt):
        budgeted(line, 15, budget, Progress("selfplay", killed))
    result = budgeted(line, 15, budget)
    assert result.stopped.endswith("after step 1 of 2")
    assert result.spent["tokens"] > 2 * result.trained_tokens
    assert len(line.store.get(result.curves_key).splitlines()) == 1


def test_a_candidate_trained_elsewhere_is_taken_as_it_is(line: Line, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    result = trained(line, candidate=str(other))
    assert result.games == 0 and has_checkpoint(line.store, result.candidate)
    with pytest.raises(ConfigError, match="is not a folder"):
        trained(line, candidate=str(tmp_path / "nowhere"))


def test_answers_and_verdicts_cover_every_prompt_of_every_model(line: Line) -> None:
    result = trained(line)
    inputs = AnswerInputs(line.prepared, result, 0, 0, line.work)
    answered = answer.run(EvaluateConfig(answer_tokens=6), line.store, inputs, Progress("answer"))
    assert answered == answer.run(EvaluateConfig(answer_tokens=6), line.store, inputs, Progress("answer"))
    assert answered.models == {"candidate": result.candidate, "champion": line.prepared.base}
    unpacked = [folder.name for folder in (line.work / CHECKPOINTS).iterdir()]
    assert sorted(unpacked) == sorted({result.candidate, line.prepared.base})  # of the warm start is no copy left
    judged = judge.run(JudgeConfig(), line.store, JudgeInputs(1, answered), Progress("judge"))
    prompts = sorted(load_table(line.store, line.prepared.suites)["prompt_id"].to_pylist())
    for role, key in judged.verdicts.items():
        table, _ = read_verdicts(line.store, key)
        assert sorted(table["prompt_id"].to_pylist()) == prompts
        assert set(table["model"].to_pylist()) == {judged.models[role]}
        scores = [row["score"] for row in table.to_pylist() if row["kind"] == "capability"]
        assert len(scores) == 6 and all(0 <= s <= 1 for s in scores)
    assert judged.rows == 2 * len(prompts)
