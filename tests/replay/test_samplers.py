"""Fold and draw against a version that a reader can check by eye, on random histories."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.config.run import ReplayConfig
from sparring.errors import CorruptError, StoreError
from sparring.replay.samplers import make_sampler
from sparring.replay.samplers.ucb import Ucb, best, ucb_scores
from sparring.replay.schema import ATTACKS, OUTCOMES, part
from sparring.replay.state import ATTACK_COLUMNS, OUTCOME_COLUMNS, PoolState, fold

CHAMPIONS = frozenset({"champion-1", "champion-2"})
DEFENDERS = (*sorted(CHAMPIONS), "rejected")


def name(*parts: object) -> str:
    """An id as the pool makes them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Visit:
    """One outcome: the reward's quarters are out of 4 a judged answer."""

    attack: int
    round: int
    defender: str
    answers: int
    unsafe: int
    refused: int
    quarters: int

    def row(self, number: int) -> dict[str, object]:
        """As the pool stores it; `number` makes its event id."""
        return {
            "event_id": name("event", number),
            "attack_id": name(self.attack),
            "round": self.round,
            "defender": self.defender,
            "unsafe": self.unsafe,
            "answers": self.answers,
            "refused": self.refused,
            "defender_reward": self.quarters / (4 * self.answers) if self.answers else None,
            "status": "ok" if self.answers else "void",
        }


@st.composite
def visits(draw: st.DrawFn) -> Visit:
    answers = draw(st.integers(0, 6))
    count = st.integers(0, answers)
    quarters = draw(st.integers(0, 4 * answers))
    defender = draw(st.sampled_from(DEFENDERS))
    return Visit(
        draw(st.integers(0, 9)), draw(st.integers(1, 9)), defender, answers, draw(count), draw(count), quarters
    )


histories = st.lists(visits(), max_size=40)


def attack_table(count: int) -> pa.Table:
    rows = [
        {
            "attack_id": name(attack),
            "label": "harmful" if attack % 2 else "benign",
            "origin_round": attack,
            "origin_step": 0,
            "attacker": "somebody",
        }
        for attack in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=part(ATTACKS, ATTACK_COLUMNS))


def outcome_table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=part(OUTCOMES, OUTCOME_COLUMNS))


def state_of(history: list[Visit], attacks: int = 8) -> PoolState:
    return fold(attack_table(attacks), outcome_table([visit.row(i) for i, visit in enumerate(history)]), CHAMPIONS)


def brute_scores(history: list[Visit], ids: list[str], c: float) -> dict[str, float]:
    """The formula of the docstring, attack by attack."""
    counted = [visit for visit in history if visit.defender in CHAMPIONS and visit.answers]
    mine = {attack: [visit for visit in counted if name(visit.attack) == attack] for attack in ids}
    total = sum(map(len, mine.values()))
    scores = {}
    for attack, seen in mine.items():
        if seen:
            mean = sum(visit.quarters / 4 for visit in seen) / sum(visit.answers for visit in seen)
            scores[attack] = 1 - mean + c * math.sqrt(math.log(total) / len(seen))
        else:
            scores[attack] = math.inf
    return scores


@settings(max_examples=60, deadline=None)
@given(histories, st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 12), st.integers(0, 2**32))
def test_ucb_is_the_brute_force_version(history: list[Visit], c: float, k: int, seed: int) -> None:
    state = state_of(history)
    drawn = state.names(Ucb(c).draw(state, k, np.random.default_rng(seed)))
    scores = brute_scores(history, state.names(np.arange(len(state))), c)
    assert len(drawn) == len(set(drawn)) == min(k, len(scores))
    assert [scores[attack] for attack in drawn] == pytest.approx(sorted(scores.values(), reverse=True)[:k])
    assert drawn == state.names(Ucb(c).draw(state, k, np.random.default_rng(seed)))


@settings(max_examples=60, deadline=None)
@given(histories)
def test_the_fold_counts_what_accepted_defenders_did(history: list[Visit]) -> None:
    state = state_of(history)
    for row, attack in enumerate(state.names(np.arange(len(state)))):
        seen = [v for v in history if name(v.attack) == attack and v.defender in CHAMPIONS and v.answers]
        assert state.visits[row] == len(seen)
        assert state.answers[row] == sum(visit.answers for visit in seen)
        assert state.failures[row] == sum(v.unsafe if state.harmful[row] else v.refused for v in seen)
        assert state.last_round[row] == max((visit.round for visit in seen), default=-1)
        assert state.reward_sum[row] == pytest.approx(sum(visit.quarters / 4 for visit in seen), abs=1e-5)
        assert np.isnan(state.mean_reward[row]) == (not seen)


@settings(max_examples=30, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing_to_the_last_bit(history: list[Visit], random: object) -> None:
    rows = [visit.row(i) for i, visit in enumerate(history)]
    again = rows + rows[: len(rows) // 2]
    random.shuffle(again)  # type: ignore[attr-defined]
    attacks = attack_table(8)
    one = fold(attacks, outcome_table(rows), CHAMPIONS)
    other = fold(pa.concat_tables([attacks.take(list(range(7, -1, -1))), attacks]), outcome_table(again), CHAMPIONS)
    for column in vars(one):
        assert np.array_equal(getattr(one, column), getattr(other, column)), column


def test_an_outcome_written_twice_with_two_contents_is_corrupt() -> None:
    row = Visit(1, 1, "champion-1", 4, 1, 0, 8).row(0)
    with pytest.raises(CorruptError, match=r"outcome [0-9a-f]{32} stands in the pool with `unsafe`"):
        fold(attack_table(8), outcome_table([row, {**row, "unsafe": 2}]), CHAMPIONS)


@settings(max_examples=30, deadline=None)
@given(histories, st.integers(1, 8), st.integers(0, 2**32))
def test_what_is_observed_weighs_like_a_visit_of_one_answer(history: list[Visit], k: int, seed: int) -> None:
    ours = [visit for visit in history if visit.attack < 8]
    more = [Visit(visit.attack, 3, "champion-1", 1, 0, 0, visit.quarters % 5) for visit in ours[:6]]
    told = Ucb(0.5)
    told.observe([name(visit.attack) for visit in more], [visit.quarters / 4 for visit in more])
    restored = Ucb(0.5)
    restored.load_state_dict(json.loads(json.dumps(told.state_dict())))
    folded, earlier = state_of(ours + more), state_of(ours)
    expected = Ucb(0.5).draw(folded, k, np.random.default_rng(seed)).tolist()
    assert told.draw(earlier, k, np.random.default_rng(seed)).tolist() == expected
    assert restored.draw(earlier, k, np.random.default_rng(seed)).tolist() == expected
    assert earlier.visits.sum() + len(more) == folded.visits.sum()


def test_ties_fall_to_every_attack_alike() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    drawn = [best(scores, 3, np.random.default_rng(seed)).tolist() for seed in range(600)]
    assert {rows[0] for rows in drawn} == {1}
    counts = Counter(row for rows in drawn for row in rows[1:])
    assert set(counts) == {2, 3, 4}
    assert min(counts.values()) > 340  # 400 expected, standard deviation 12


def test_uniform_draws_every_attack_alike_and_none_draws_none() -> None:
    state = state_of([])
    sampler = make_sampler(ReplayConfig(sampler="uniform"))
    counts = Counter(row for seed in range(800) for row in sampler.draw(state, 2, np.random.default_rng(seed)).tolist())
    assert set(counts) == set(range(8))
    assert min(counts.values()) > 140  # 200 expected, standard deviation 13
    assert sampler.metrics() == {"drawn": 2.0}
    assert sorted(sampler.draw(state, 99, np.random.default_rng(0)).tolist()) == list(range(8))
    assert make_sampler(ReplayConfig(sampler="none")).draw(state, 5, np.random.default_rng(0)).tolist() == []


@pytest.mark.parametrize("kind", ["none", "uniform", "ucb"])
def test_a_sampler_takes_up_its_own_state_only(kind: str) -> None:
    sampler = make_sampler(ReplayConfig.model_validate({"sampler": kind}))
    sampler.load_state_dict(sampler.state_dict())
    with pytest.raises(StoreError, match="is of 'other'"):
        sampler.load_state_dict({"sampler": "other"})
    empty = state_of([], attacks=0)
    assert sampler.draw(empty, 5, np.random.default_rng(0)).tolist() == []


def test_a_beaten_defender_brings_an_attack_forward() -> None:
    """Two attacks seen alike: the one that beats the defender is drawn; exploration decides with a large c."""
    visits, mean = np.array([4, 4, 1]), np.array([0.9, 0.1, 0.9])
    assert best(ucb_scores(visits, mean, 0.1), 1, np.random.default_rng(0)).tolist() == [1]
    assert best(ucb_scores(visits, mean, 3.0), 1, np.random.default_rng(0)).tolist() == [2]
