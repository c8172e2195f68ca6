"""Guards: on lines of a curve, in a training that goes wrong, and in one whose loss is not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparring.config.run import SelfplayConfig
from sparring.config.training import GuardConfig
from sparring.errors import TrainingStopped
from sparring.game.records import BROKEN_ANSWER, Game
from sparring.policy.load import Policy, load_policy
from sparring.train.curves import step_curve
from sparring.train.guards import too_void, tripped
from sparring.train.session import train
from sparring.train.states import newest_state
from tests.train.small import SMALL, VoidJudge, session, weights

NUMBERS = {"kl": 5.0, "entropy": 0.001, "looping": 0.95, "judge_disagreement": 0.9}
KEYS = {"kl": "max_kl", "entropy": "min_entropy", "looping": "max_degenerate",
        "judge_disagreement": "max_judge_disagreement"}  # fmt: skip
CALM = {"loss": 0.1, "grad_norm": 1.0, "kl": 0.2, "entropy": 1.5, "looping": 0.1, "judge_disagreement": 0.1,
        "attacker_spread": 1.0, "defender_spread": 1.0}  # fmt: skip


def lines(*changes: dict[str, float]) -> list[dict[str, float]]:
    return [{**CALM, "step": i + 1.0, **change} for i, change in enumerate(changes)]


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_past_its_limit_stops_after_its_patience(key: str) -> None:
    config, bad = SelfplayConfig(), {key: NUMBERS[key]}
    assert tripped(lines({}, bad), config) == ""
    assert tripped(lines(bad, {}, bad), config) == ""
    why = tripped(lines({}, bad, bad), config)
    assert why.startswith("step 3: ") and f"selfplay.guards.{KEYS[key]}" in why and "for 2 steps" in why
    off = SelfplayConfig(guards=GuardConfig.model_validate({KEYS[key]: None}))
    assert tripped(lines({}, bad, bad), off) == ""


@given(st.lists(st.sampled_from([{}, {"kl": 9.0}]), max_size=9), st.integers(1, 4))
def test_only_the_last_steps_in_a_row_count(changes: list[dict[str, float]], patience: int) -> None:
    config = SelfplayConfig(guards=GuardConfig(patience=patience))
    run = 0
    for change in reversed(changes):
        if not change:
            break
        run += 1
    assert bool(tripped(lines(*changes), config)) == (run >= patience)


def test_what_is_not_measured_trips_nothing() -> None:
    assert tripped([{"step": float(i)} for i in range(40)], SelfplayConfig()) == ""
    assert tripped([], SelfplayConfig()) == ""


@pytest.mark.parametrize("role", ["attacker", "defender"])
def test_equal_rewards_stop_a_role_that_learns(role: str) -> None:
    flat = lines(*[{f"{role}_spread": 0.0}] * 5)
    guards = GuardConfig(flat_steps=5)
    assert f"all rewards of the {role} were equal for 5 steps" in tripped(flat, SelfplayConfig(guards=guards))
    assert tripped(flat[:4], SelfplayConfig(guards=guards)) == ""
    frozen = SelfplayConfig.model_validate({f"train_{role}": False, "guards": guards})
    assert tripped(flat, frozen) == ""


def test_groups_that_are_all_paid_alike_teach_nothing() -> None:
    flat, guards = lines(*[{"informative": 0.0}] * 5), GuardConfig(flat_steps=5)
    assert "within every group rewards were equal for 5 steps" in tripped(flat, SelfplayConfig(guards=guards))
    assert "within every group" in tripped(flat, SelfplayConfig(guards=guards, estimator="grpo", baseline="batch"))
    assert tripped(flat[:4], SelfplayConfig(guards=guards)) == ""
    assert tripped([*flat[:4], *lines({"informative": 0.01})], SelfplayConfig(guards=guards)) == ""
    assert tripped(flat, SelfplayConfig(guards=guards, baseline="batch", trained_share=1.0)) == ""


def test_what_broke_the_form_has_no_text_that_could_loop() -> None:
    """Chain of thought: at first hardly any answer keeps the form, and being paid for it is how it is learnt."""
    broken = replace(game(BROKEN_ANSWER), answer="", attacker_reward=1.0, defender_reward=-1.0)
    assert step_curve(1, [broken] * 9, {}, 1.0, 1).get("looping") is None
    fair = replace(game(""), answer="Put it into boiling water for seven minutes.")
    assert step_curve(1, [broken] * 9 + [fair], {}, 1.0, 1)["looping"] == 0.0
    assert step_curve(1, [replace(fair, answer="")], {}, 1.0, 1)["looping"] == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_at_once(value: float) -> None:
    assert tripped(lines({}, {"loss": value}), SelfplayConfig()).startswith("step 2: the loss or its gradient")


@given(st.integers(0, 10), st.floats(0, 1))
def test_void_games_are_counted(void: int, most: float) -> None:
    games = [game("" if i >= void else f"reason {i}") for i in range(10)]
    why = too_void(3, games, most)
    assert bool(why) == (void > most * 10)
    assert not why or f"{void} of 10 games are void" in why


def test_a_broken_format_is_paid_for_and_so_not_void() -> None:
    broken = replace(game("the answer broke the format"), defender_reward=-1.0)
    assert too_void(0, [broken] * 10, 0.0) == ""


def game(reason: str) -> Game:
    return Game(
        1, 0, 0, "vanilla", "s", "seed", "harmful", "b", "a", "attack", "answer", True, True, False, False, 1.0, True,
        None, None if reason else 1.0, False, bool(reason), reason,
    )  # fmt: skip


def test_a_training_past_a_limit_is_stopped_with_its_model(policy: Policy, folder: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"steps": 4, "guards": GuardConfig(min_entropy=100.0)})
    steps: list[int] = []
    words = r"step 2: the policy's entropy .* is under selfplay.guards.min_entropy 100"
    with pytest.raises(TrainingStopped, match=words) as stopped:
        train(session(policy, folder, tmp_path, config), 12, lambda step, *_: steps.append(step))
    assert steps == [1, 2]
    two = train(session(policy, folder, tmp_path / "two", config.model_copy(update={"guards": GuardConfig()})), 12,
                lambda step, *_: None)  # fmt: skip
    assert weights(stopped.value.model).keys() == weights(two).keys()
    assert all(torch.isfinite(p).all() for p in weights(stopped.value.model).values())


def test_a_resumed_training_trips_where_an_uninterrupted_one_does(policy: Policy, folder: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"steps": 5, "guards": GuardConfig(min_entropy=100.0, patience=4)})
    seen: list[dict[str, float]] = []

    def killed(step: int, games: Any, curve: dict[str, float]) -> None:
        seen.append(curve)
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(session(policy, folder, tmp_path, config), 12, killed)
    again = replace(session(policy, folder, tmp_path, config), history=seen)
    with pytest.raises(TrainingStopped, match=r"step 4: .* for 4 steps"):
        train(again, 12, lambda *_: None)


def test_what_tripped_at_the_last_step_trips_again_when_its_state_is_taken_up(
    policy: Policy, folder: Path, tmp_path: Path
) -> None:
    """Killed before its candidate was stored, the training must not end well the second time."""
    config = SMALL.model_copy(update={"guards": GuardConfig(min_entropy=100.0)})
    assert config.steps == 2
    seen: list[dict[str, float]] = []
    with pytest.raises(TrainingStopped, match=r"step 2: .*min_entropy"):
        train(session(policy, folder, tmp_path, config), 12, lambda _step, _games, curve: seen.append(curve))
    assert newest_state(session(policy, folder, tmp_path, config).work) is not None
    again = replace(session(policy, folder, tmp_path, config), history=seen)
    with pytest.raises(TrainingStopped, match=r"step 2: .*min_entropy"):
        train(again, 12, lambda *_: None)


def test_too_many_void_games_leave_the_model_as_it_was(policy: Policy, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"8 of 8 games are void.*the endpoint is down") as stopped:
        train(session(policy, folder, tmp_path, judge=VoidJudge()), 12, lambda *_: None)
    before = weights(load_policy(folder).model)
    assert all(torch.equal(p, before[name]) for name, p in weights(stopped.value.model).items())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(policy: Policy, folder: Path, tmp_path: Path) -> None:
    """The supervised term is weighed beyond the largest float: neither its loss nor its gradient is a number."""
    config = SMALL.model_copy(update={"sft_coef": 1e38})
    with pytest.raises(TrainingStopped, match=r"step 1: the loss or its gradient is not finite") as stopped:
        train(session(policy, folder, tmp_path, config), 12, lambda *_: None)
    before = weights(load_policy(folder).model)
    assert all(torch.equal(p, before[name]) for name, p in weights(stopped.value.model).items())
