"""Which rows a step's games make: groups, rewards of written attacks, the pool's k of G."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.config.run import GameConfig, ReplayConfig, SelfplayConfig
from sparring.game.records import Game
from sparring.game.schedule import Composition, composition
from sparring.judge.protocol import Verdict
from sparring.policy.load import load_policy
from sparring.replay.games import outcome_rows, poolable
from sparring.steps.play import training_rows
from sparring.train.roles import ATTACKER, DEFENDER, SharedRoles
from sparring.train.rollout import Played
from sparring.train.rows import attacker_rewards, rollout_rows
from tests.train.small import PLAN, KeywordJudge, player


class Unsure(KeywordJudge):
    """Judges all but every fifth answer."""

    def judge(self, cases: Any) -> list[Verdict]:
        return [Verdict.void("no") if i % 5 == 0 else self._one(case) for i, case in enumerate(cases)]


@pytest.fixture(scope="module", params=[1, 2, 3])
def played(request: pytest.FixtureRequest, folder: Path) -> Played:
    policy = load_policy(folder)
    return player(policy, Unsure(), answers=request.param).play(SharedRoles(policy.model, policy.chat.eos), 0)


def test_groups_never_mix_roles_and_hold_one_prompt_or_one_seed(played: Played) -> None:
    rows, k = rollout_rows(played, trained=[ATTACKER, DEFENDER]), played.answers
    assert len(rows["role"]) == training_rows(PLAN, SelfplayConfig(group=2, trained_share=1, answers_per_attack=k))
    members: dict[int, list[int]] = {}
    for i, number in enumerate(rows["slot"]):
        members.setdefault(number, []).append(i)
    texts = {i: tuple(ids) for i, ids in enumerate(rows["prompt_ids"])}
    for found in members.values():
        assert len({rows["role"][i] for i in found}) == 1
        if rows["role"][found[0]] == DEFENDER and k > 1:
            assert len({texts[i] for i in found}) == 1
    sizes = sorted(len(found) for found in members.values())
    assert sizes == sorted([2] * (PLAN.vanilla + PLAN.generated) + ([2] * PLAN.generated if k == 1 else [k] * 2 * 2))


def test_an_attacker_is_paid_the_mean_over_the_judged_answers_to_its_attack(played: Played) -> None:
    rows = rollout_rows(played, trained=[ATTACKER, DEFENDER])
    attacks = [i for i, role in enumerate(rows["role"]) if role == ATTACKER]
    generated = [g for g in played.games if g.kind == "generated"]
    assert len(attacks) * played.answers == len(generated)
    for n, i in enumerate(attacks):
        games = generated[n * played.answers : (n + 1) * played.answers]
        assert len({g.attack for g in games}) == 1
        judged = [g.attacker_reward for g in games if g.attacker_reward is not None]
        assert bool(rows["valid"][i]) == bool(judged) == any(rows["env_mask"][i])
        assert rows["score"][i] == pytest.approx(sum(judged) / len(judged) if judged else 0.0)
    assert any(not rows["valid"][i] for i in range(len(rows["valid"])))  # the judge left some out


def test_the_pool_reads_k_of_g(played: Played) -> None:
    names = poolable(played.games)
    outcomes = outcome_rows(played.games, set(names), "d" * 64, (-2.0, 2.0)).to_pylist()
    for row in outcomes:
        games = [g for g in played.games if g.kind == "generated" and g.attack_id == row["attack_id"]]
        assert row["answers"] + row["void"] == len(games) and len(games) % played.answers == 0
        assert row["unsafe"] == sum(bool(g.harmful) for g in games if not g.defender_void)


@given(st.lists(st.none() | st.floats(-3, 3), max_size=12), st.integers(1, 4))
def test_rewards_of_attacks_are_means_of_what_there_is(rewards: list[float | None], k: int) -> None:
    games = [paid(r) for r in rewards[: len(rewards) // k * k]]
    means = attacker_rewards(games, k)
    for n, mean in enumerate(means):
        there = [g.attacker_reward for g in games[n * k : (n + 1) * k] if g.attacker_reward is not None]
        assert (mean is None) == (not there)
        assert mean is None or min(there) - 1e-9 <= mean <= max(there) + 1e-9


def paid(reward: float | None) -> Game:
    void = reward is None
    return Game(
        1, 0, 0, "generated", "s", "seed", "harmful", "b", "a", "attack", "answer", True, True, False, False, 1.0, True,
        reward, 1.0, void, False,
    )  # fmt: skip


@settings(max_examples=200)
@given(st.integers(2, 6), st.integers(4, 60), st.integers(1, 6), st.floats(0, 1), st.integers(0, 50))
def test_a_step_has_the_games_that_were_asked_for(g: int, slots: int, k: int, share: float, pooled: int) -> None:
    selfplay = SelfplayConfig(games=g * slots, group=g, trained_share=1, answers_per_attack=k)
    plan = composition(GameConfig(generated_share=share), selfplay, ReplayConfig(), pooled)
    assert plan.vanilla + k * plan.generated + plan.replayed == slots
    assert min(plan.vanilla, plan.generated, plan.replayed) >= 0
    assert training_rows(plan, selfplay) % g == 0
    if k == 1:
        assert plan == Composition(slots - plan.replayed - plan.generated, plan.generated, plan.replayed)
        assert plan.generated == round((slots - plan.replayed) * share)
