"""The 8B settings of Self-RedTeam: as the paper prints them, and run dry on a tiny random Llama."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparring.config.load import load_run
from sparring.config.run import RunConfig
from sparring.game.schedule import composition
from sparring.progress import Progress
from sparring.steps import selfplay
from sparring.steps.play import training_rows
from sparring.steps.selfplay import SelfplayInputs, SelfplayStepConfig
from sparring.train.session import _arguments
from tests.steps.test_model_steps import Line, line
from tests.train.small import session

__all__ = ["line"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    path = tmp_path_factory.mktemp("recipe") / "run.yaml"
    path.write_text("recipe: selfredteam-8b\n")
    return load_run(path)


def test_the_recipe_says_what_the_paper_says(recipe: RunConfig) -> None:
    play, game = recipe.selfplay, recipe.game
    assert (play.games, play.micro_batch, play.steps, play.learning_rate) == (128, 32, 200, 5e-7)
    assert (play.warmup, play.kl, play.clip, play.sft_coef) == (0.03, 0.01, 0.2, 1.0)
    assert (play.estimator, play.baseline, recipe.replay.sampler) == ("reinforce_pp", "batch", "none")
    assert (game.cot, game.temperature, game.reward, recipe.model.precision) == (True, 1.0, "general_sum", "bf16")
    assert (game.generated_share, game.harmful_share) == (0.5, 0.5)


def test_the_optimizer_gets_the_paper_s_settings(recipe: RunConfig, line: Line, tmp_path: Path) -> None:
    from sparring.policy.load import load_policy

    plan = composition(recipe.game, recipe.selfplay, recipe.replay, 0)
    rows = training_rows(plan, recipe.selfplay)
    tiny = replace(session(load_policy(line.model), line.model, tmp_path, recipe.selfplay), bf16=True)
    args: Any = _arguments(tiny, rows)
    assert (plan.vanilla + plan.generated) * recipe.selfplay.group == 128 and plan.generated == plan.vanilla
    assert (args.max_steps, args.learning_rate, args.warmup_steps) == (200, 5e-7, 6)
    assert (args.lr_scheduler_type, args.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr_rate": 0.1})
    assert (args.adam_beta1, args.adam_beta2, args.max_grad_norm, args.weight_decay) == (0.9, 0.95, 1.0, 0.0)
    assert (args.beta, args.epsilon, args.bf16, args.temperature, args.top_p) == (0.01, 0.2, True, 1.0, 1.0)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == rows


@pytest.mark.slow
def test_run_dry_on_a_tiny_random_llama(recipe: RunConfig, line: Line) -> None:
    """All 128 games of a step. Scaled down: one step of 200, tokens a turn, the supervised set; a random model breaks
    the format, so that void games do not stop it."""
    small = {"thought_tokens": 6, "attack_tokens": 6, "answer_tokens": 6, "max_prompt_tokens": 256}
    play = {"steps": 1, "sft_examples": 4, "max_void_share": 1.0}
    config = recipe.model_copy(
        update={
            "game": recipe.game.model_copy(update=small),
            "selfplay": recipe.selfplay.model_copy(update=play),
        }
    )
    prepared = line.prepared.model_copy(update={"round": 80})
    inputs = SelfplayInputs(prepared, 0, line.work)
    result = selfplay.run(SelfplayStepConfig.of(config), line.store, inputs, Progress("selfplay"))
    games = pq.read_table(pa.BufferReader(line.store.get(result.games_key)))
    assert games.num_rows == 128
    assert games["kind"].to_pylist().count("generated") == 64
