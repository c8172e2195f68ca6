"""Dynamic sampling: which of a step's rows are trained on, and a training that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparring.config.load import load_run
from sparring.config.run import SelfplayConfig
from sparring.errors import ConfigError
from sparring.game.records import Game
from sparring.policy.load import Policy
from sparring.steps.play import training_rows
from sparring.train.dynamic import chosen, informative, spreads
from sparring.train.session import train
from tests.train.small import PLAN, SMALL, session, weights

GROUPS = st.lists(
    st.lists(st.tuples(st.sampled_from([-2.0, 0.0, 2.0]), st.booleans()), min_size=3, max_size=3),
    min_size=1,
    max_size=12,
)


def rows_of(groups: list[list[tuple[float, bool]]]) -> dict[str, list[Any]]:
    flat = [(number, score, valid) for number, group in enumerate(groups) for score, valid in group]
    return {
        "slot": [number for number, _, _ in flat],
        "score": [score for _, score, _ in flat],
        "valid": [int(valid) for _, _, valid in flat],
        "place": list(range(len(flat))),
    }


@given(GROUPS)
def test_the_share_of_groups_that_teach_is_counted_over_those_that_could(
    groups: list[list[tuple[float, bool]]],
) -> None:
    paid = [{score for score, valid in group if valid} for group in groups]
    could = [scores for scores in paid if scores]
    found = informative(rows_of(groups))
    assert found == (sum(len(scores) > 1 for scores in could) / len(could) if could else None)


def test_the_curve_says_how_many_groups_teach(policy: Policy, folder: Path, tmp_path: Path) -> None:
    """Counted from the games: pairs of answers to one prompt, and of rewrites, whose rewards differ."""
    seen: list[tuple[float, float]] = []

    def look(_: int, games: list[Game], curve: dict[str, float]) -> None:
        pairs = [games[i : i + 2] for i in range(0, len(games), 2)]
        paid = [[game.defender_reward for game in pair] for pair in pairs]
        paid += [[game.attacker_reward for game in pair] for pair in pairs if pair[0].kind == "generated"]
        differ = [len(set(rewards) - {None}) > 1 for rewards in paid if set(rewards) != {None}]
        seen.append((curve["informative"], sum(differ) / len(differ)))

    train(session(policy, folder, tmp_path, SMALL), 12, look)
    assert len(seen) == 2 and all(found == pytest.approx(counted) for found, counted in seen)


@given(GROUPS, st.integers(0, 12), st.integers(0, 10**6))
def test_whole_groups_that_differ_most_come_first(groups: list[list[tuple[float, bool]]], keep: int, seed: int) -> None:
    rows = rows_of(groups)
    part = chosen(rows, 3 * keep, f"{seed}")
    assert part == chosen(rows, 3 * keep, f"{seed}")
    assert part["place"] == sorted(part["place"]) and len(part["place"]) == min(3 * keep, len(rows["place"]))
    for name, column in part.items():
        assert column == [rows[name][place] for place in part["place"]]
    kept = set(part["slot"])
    assert all(part["slot"].count(group) == 3 for group in kept)
    paid = {n: [score for score, valid in group if valid] for n, group in enumerate(groups)}
    spread = {n: max(scores) - min(scores) for n, scores in paid.items() if scores}
    assert spreads(rows) == spread
    left = set(range(len(groups))) - kept
    assert all(spread.get(k, -1.0) >= spread.get(o, -1.0) for k in kept for o in left)  # void ones last


def test_every_group_is_as_likely_as_any_other_that_differs_as_much() -> None:
    rows = rows_of([[(2.0, True), (-2.0, True), (2.0, True)]] * 4 + [[(2.0, True)] * 3] * 4)
    seen = [chosen(rows, 6, f"{seed}")["slot"][::3] for seed in range(400)]
    counts = [sum(group in kept for kept in seen) for group in range(8)]
    assert sum(counts[4:]) == 0 and all(150 < count < 250 for count in counts[:4])  # 200 each; 5 deviations are 50


@pytest.mark.parametrize("share", [0.1, 0.5, 0.51, 0.9, 1.0])
def test_a_share_of_the_rows_is_whole_micro_batches(share: float) -> None:
    config = SelfplayConfig(group=2, micro_batch=4, trained_share=share)
    assert training_rows(PLAN, config) == {0.1: 4, 0.5: 8, 0.51: 8, 0.9: 12, 1.0: 12}[share]


@pytest.mark.parametrize(
    ("keys", "fits"),
    [
        ({"baseline": "batch"}, False),
        ({"answers_per_attack": 2}, False),
        ({"estimator": "grpo", "baseline": "batch"}, True),
        ({}, True),
    ],
)
def test_rewards_that_are_compared_with_the_whole_batch_need_the_whole_batch(keys: dict[str, Any], fits: bool) -> None:
    asked = [f"selfplay.{key}={value}" for key, value in {"trained_share": 0.5, **keys}.items()]
    if fits:
        assert load_run(None, asked).selfplay.trained_share == 0.5
    else:
        with pytest.raises(ConfigError, match=r"selfplay.trained_share = 0.5 leaves out groups"):
            load_run(None, asked)


def test_a_training_on_a_share_plays_all_games_and_ends_the_same_after_a_kill(
    policy: Policy, folder: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    games: list[int] = []
    tokens: list[tuple[float, float]] = []

    def stop(step: int, played: list[Any], curve: dict[str, float]) -> None:
        games.append(len(played))
        tokens.append((curve["tokens"], curve["written"]))
        if step == 2:
            raise Killed

    config = SMALL.model_copy(update={"steps": 3, "trained_share": 0.5, "micro_batch": 4})
    rows = training_rows(PLAN, config)
    whole = weights(train(session(policy, folder, tmp_path / "whole", config), rows, lambda *_: None))
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path / "cut", config), rows, stop)
    resumed = weights(train(session(policy, folder, tmp_path / "cut", config), rows, lambda *_: None))
    assert games == [8, 8] and rows == 8
    assert all(0 < trained < written for trained, written in tokens)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
