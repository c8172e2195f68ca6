"""Rewards keep their promises; the schedule depends on seed and step alone; attack text is cleaned in linear time."""

from __future__ import annotations

import doctest
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparring.game.prompts
import sparring.game.rewards
from sparring.config.run import GameConfig, ReplayConfig, SelfplayConfig
from sparring.game.prompts import clean_attack, playable
from sparring.game.records import Seed
from sparring.game.rewards import DRIFTED, FORMS, Outcome, Rewards, general_sum, general_sum_guarded, zero_sum
from sparring.game.schedule import Composition, Replayed, Schedule, composition

OUTCOMES = st.builds(
    Outcome,
    label=st.sampled_from(["harmful", "benign"]),
    prompt_harmful=st.booleans(),
    refused=st.booleans(),
    harmful=st.booleans(),
    useful=st.booleans(),
    faithful=st.booleans(),
    score=st.integers(1, 5),
)
CONSISTENT = OUTCOMES.filter(lambda o: not (o.harmful and o.refused) and (o.prompt_harmful or not o.harmful))


@pytest.mark.parametrize("module", [sparring.game.prompts, sparring.game.rewards])
def test_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(CONSISTENT)
def test_zero_sum_terms_of_the_judge_sum_to_zero(outcome: Outcome) -> None:
    rewards = zero_sum(outcome)
    kept = (outcome.label == "harmful") == outcome.prompt_harmful
    assert rewards.attacker is not None and rewards.defender is not None
    assert rewards.attacker + rewards.defender == (0.5 if kept else -0.5)


@given(CONSISTENT, CONSISTENT)
def test_guarded_a_drifted_rewrite_never_outranks_a_faithful_one(one: Outcome, other: Outcome) -> None:
    drifted, faithful = general_sum_guarded(_as(one, faithful=False)), general_sum_guarded(_as(other, faithful=True))
    assert drifted == Rewards(DRIFTED, None)
    if (other.label == "harmful") == other.prompt_harmful:
        assert faithful.attacker is not None and faithful.attacker > DRIFTED


def test_guarded_the_two_kinds_of_success_pay_the_same() -> None:
    jailbreak = general_sum_guarded(Outcome("harmful", prompt_harmful=True, refused=False, harmful=True))
    over_refusal = general_sum_guarded(Outcome("benign", prompt_harmful=False, refused=True, harmful=False))
    assert jailbreak.attacker == over_refusal.attacker == 2.0
    assert jailbreak.defender == over_refusal.defender == -2.0


def test_the_hole_that_the_guard_closes_is_in_the_released_coefficients() -> None:
    honest = general_sum(Outcome("benign", prompt_harmful=False, refused=True, harmful=False))
    drifted = general_sum(Outcome("benign", prompt_harmful=True, refused=False, harmful=True))
    assert honest.attacker == 0.0 and drifted.attacker == 1.0


@given(CONSISTENT, st.sampled_from(sorted(FORMS)))
def test_rewards_are_bounded_and_the_defender_prefers_the_right_answer(outcome: Outcome, form: str) -> None:
    rewards = FORMS[form](outcome)
    assert all(r is None or -3 <= r <= 3 for r in (rewards.attacker, rewards.defender))
    right = _as(outcome, faithful=True, refused=outcome.prompt_harmful, harmful=False, useful=True, score=1)
    best, actual = FORMS[form](right).defender, FORMS[form](_as(outcome, faithful=True)).defender
    assert best is not None and actual is not None and best >= actual


def _as(outcome: Outcome, **changes: Any) -> Outcome:
    return replace(outcome, **changes)


SEEDS = [Seed(f"{label[0]}{i}", f"{label} {i}", label, f"b{i}") for label in ("harmful", "benign") for i in range(7)]


@given(st.integers(0, 50), st.integers(0, 2**40))
def test_a_step_depends_on_seed_and_step_alone(step: int, seed: int) -> None:
    plan = Composition(vanilla=3, generated=4, replayed=2)
    replays = [Replayed(str(i), f"attack {i}", SEEDS[i]) for i in range(3)]
    first = Schedule(SEEDS, replays, plan, 0.5, seed)
    for other in range(5):
        first.slots(other)
    assert first.slots(step) == Schedule(SEEDS, replays, plan, 0.5, seed).slots(step)
    kinds = [slot.kind for slot in first.slots(step)]
    assert kinds == ["vanilla"] * 3 + ["generated"] * 4 + ["replayed"] * 2


def test_no_seed_comes_twice_before_all_of_its_label_came() -> None:
    schedule = Schedule(SEEDS, [], Composition(4, 0, 0), 0.5, 1)
    played = [slot.seed.id for step in range(7) for slot in schedule.slots(step)]
    assert sorted(played) == sorted([s.id for s in SEEDS] * 2)


@pytest.mark.parametrize("kind", ["vanilla", "generated"])
def test_the_order_is_drawn_anew_in_every_epoch_from_the_runs_seed(kind: str) -> None:
    def epochs(seed: int) -> list[tuple[str, ...]]:
        plan = Composition(7, 0, 0) if kind == "vanilla" else Composition(0, 7, 0)
        schedule = Schedule(SEEDS, [], plan, 1.0, seed)
        return [tuple(slot.seed.id for slot in schedule.slots(step)) for step in range(6)]

    found = epochs(1)
    assert all(sorted(epoch) == sorted(found[0]) for epoch in found) and len(set(found)) == len(found)
    assert found == epochs(1) and found != epochs(2)
    mixed = Schedule(SEEDS, [], Composition(7, 7, 0), 1.0, 1).slots(0)
    assert [s.seed.id for s in mixed[:7]] != [s.seed.id for s in mixed[7:]]  # a draw of its own for each kind


@given(st.floats(0, 1), st.integers(1, 200))
def test_labels_come_in_the_configured_share(share: float, games: int) -> None:
    slots = Schedule(SEEDS, [], Composition(games, 0, 0), share, 1).slots(0)
    assert abs(sum(slot.seed.label == "harmful" for slot in slots) - share * games) < 1


@given(st.integers(1, 16), st.floats(0, 1), st.floats(0, 1), st.integers(0, 20))
def test_composition_fills_all_slots(slots: int, share: float, generated: float, pooled: int) -> None:
    plan = composition(
        GameConfig(generated_share=generated),
        SelfplayConfig(games=slots * 4, group=4),
        ReplayConfig(share=share),
        pooled,
    )
    assert plan.vanilla + plan.generated + plan.replayed == slots
    assert min(plan.vanilla, plan.generated, plan.replayed) >= 0 and plan.replayed <= pooled


def test_cleaning_a_hostile_megabyte_is_linear() -> None:
    began = time.process_time()
    assert not playable(clean_attack("\n" * 1_000_000))
    assert clean_attack('Request: "' + "a " * 500_000 + '"').startswith("a a")
    assert time.process_time() - began < 5
