"""Learnability against a version that a reader can check by eye, and for each of its promises."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.config.run import ReplayConfig
from sparring.replay.samplers import make_sampler
from sparring.replay.samplers.learnability import Learnability, split
from sparring.replay.state import PoolState
from tests.replay.states import Visit, make_state

Chances = npt.NDArray[np.float64]
NO_SHARES = {"sentinel_share": 0.0, "stale_share": 0.0, "all_fail_share": 0.0, "over_refused_share": 0.0}


def config(**changed: object) -> ReplayConfig:
    return ReplayConfig.model_validate({"sampler": "learnability", "cluster_share": 1.0, **changed})


def drawn(config: ReplayConfig, state: PoolState, k: int, seed: int = 0) -> list[int]:
    sampler = make_sampler(config)
    sampler.attach(state)
    return [int(row) for row in sampler.draw(k, np.random.default_rng(seed))]


@st.composite
def visits(draw: st.DrawFn) -> Visit:
    answers = draw(st.integers(1, 8))
    return Visit(draw(st.integers(0, 11)), draw(st.integers(1, 6)), draw(st.integers(0, answers)), answers, 0.5)


histories = st.lists(visits(), max_size=50)
labels = st.lists(st.booleans(), min_size=12, max_size=12)
origins = st.lists(st.integers(0, 3), min_size=12, max_size=12)
clusters = st.lists(st.integers(0, 4), min_size=12, max_size=12)


class Brute:
    """The docstring of the sampler, attack by attack, over lists."""

    def __init__(self, config: ReplayConfig, history: list[Visit], origin: Sequence[int]) -> None:
        self.now = max((visit.round for visit in history), default=0)
        mine = {i: [visit for visit in history if visit.attack == i] for i in range(12)}
        self.last = {i: max((visit.round for visit in seen), default=-1) for i, seen in mine.items()}
        self.latest = {i: [visit for visit in seen if visit.round == self.last[i]] for i, seen in mine.items()}
        self.seen = {i: max(self.last[i], origin[i]) for i in mine}
        self.counts = {i: self._counts(config, seen, self.now) for i, seen in mine.items()}
        self.resting = {i for i in mine if self.last[i] > origin[i] and self.now - self.last[i] < config.cooldown}
        self.mastered = {i for i, seen in mine.items() if self._is_mastered(config, i, seen)}

    def _counts(self, config: ReplayConfig, seen: list[Visit], now: int) -> tuple[float, float]:
        fade = [config.discount ** (now - visit.round) for visit in seen]
        pairs = list(zip(fade, seen, strict=True))
        return sum(f * visit.failures for f, visit in pairs), sum(f * visit.answers for f, visit in pairs)

    def _is_mastered(self, config: ReplayConfig, i: int, seen: list[Visit]) -> bool:
        failures, answers = self._counts(config, seen, self.last[i])
        clean = bool(seen) and not any(visit.failures for visit in self.latest[i])
        return clean and (1 + failures) / (2 + answers) <= config.mastered_below

    def priority(self, i: int) -> float:
        a, b = 1 + self.counts[i][0], 1 + self.counts[i][1] - self.counts[i][0]
        return a * b / ((a + b) * (a + b + 1))

    def all_failed(self, i: int) -> bool:
        failures, answers = (sum(values) for values in zip(*[v[2:4] for v in self.latest[i]], strict=True))
        return bool(failures == answers >= 2)


@settings(max_examples=40, deadline=None)
@given(
    histories, origins, st.integers(0, 3), st.sampled_from([0.0, 0.15, 0.4]), st.integers(0, 14), st.integers(0, 2**32)
)
def test_without_shares_the_best_priorities_come_then_sentinels_then_the_resting(
    history: list[Visit], origin: list[int], cooldown: int, below: float, k: int, seed: int
) -> None:
    rules = config(**NO_SHARES, cooldown=cooldown, mastered_below=below)
    brute = Brute(rules, history, origin)
    rows = drawn(rules, make_state(history, 12, origin=origin), k, seed)
    awake = [i for i in range(12) if i not in brute.resting]
    active = sorted((brute.priority(i) for i in awake if i not in brute.mastered), reverse=True)
    sentinels = [i for i in awake if i in brute.mastered]
    chosen = [i for i in rows if i in awake and i not in brute.mastered]
    assert len(rows) == len(set(rows)) == min(k, 12)
    assert sorted((brute.priority(i) for i in chosen), reverse=True) == pytest.approx(active[: len(rows)])
    assert len([i for i in rows if i in sentinels]) == min(len(rows) - len(chosen), len(sentinels))


@settings(max_examples=40, deadline=None)
@given(histories, origins, labels, st.integers(0, 2), st.integers(1, 12), st.integers(0, 2**32))
def test_each_share_goes_to_those_it_is_for(
    history: list[Visit], origin: list[int], harmful: list[bool], cooldown: int, k: int, seed: int
) -> None:
    """One share at a time takes the whole draw, as far as there are attacks for it."""
    state = make_state(history, 12, origin=origin, harmful=harmful)
    for share in NO_SHARES:
        rules = config(**{**NO_SHARES, share: 1.0}, cooldown=cooldown, mastered_below=0.2)
        brute = Brute(rules, history, origin)
        rows = drawn(rules, state, k, seed)
        awake = {i for i in range(12) if i not in brute.resting}
        active = awake - brute.mastered
        fit: dict[str, dict[int, float]] = {
            "stale_share": {i: -brute.seen[i] for i in active},
            "all_fail_share": {i: -brute.seen[i] for i in active if brute.latest[i] and brute.all_failed(i)},
            "over_refused_share": {
                i: (1 + brute.counts[i][0]) / (2 + brute.counts[i][1])
                for i in active
                if not harmful[i] and any(visit.failures for visit in brute.latest[i])
            },
            "sentinel_share": {i: -brute.seen[i] for i in awake & brute.mastered},
        }
        wanted = sorted(fit[share].values(), reverse=True)[:k]
        if len(wanted) == k or share == "sentinel_share":
            found = sorted((fit[share][i] for i in rows if i in fit[share]), reverse=True)
            assert found[: len(wanted)] == pytest.approx(wanted)


@settings(max_examples=40, deadline=None)
@given(histories, clusters, st.sampled_from([0.1, 0.25, 0.5]), st.integers(1, 12), st.integers(0, 2**32))
def test_a_quota_holds_wherever_enough_attacks_are_left(
    history: list[Visit], cluster: list[int], share: float, k: int, seed: int
) -> None:
    for priority, probes in product(("expected", "drawn"), (0.0, 0.1)):
        rules = config(cluster_share=share, priority=priority, sentinel_share=probes)
        rows = drawn(rules, make_state(history, 12, cluster=cluster), k, seed)
        quota = max(1, math.floor(share * k))
        sizes = Counter(cluster)
        assert len(set(rows)) == k
        found = Counter(cluster[row] for row in rows)
        if sum(min(quota, size) for size in sizes.values()) >= k:
            assert max(found.values()) <= quota + math.ceil(probes * k)  # probes do not count
        else:
            assert all(found[number] >= min(quota, size) for number, size in sizes.items())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 0.25), min_size=4, max_size=4), st.integers(0, 500), st.integers(0, 2**32))
def test_a_split_is_within_one_of_its_shares_and_never_more_than_the_draw(
    shares: list[float], k: int, seed: int
) -> None:
    parts = split(k, shares, np.random.default_rng(seed))
    assert all(abs(part - share * k) < 1 + 1e-9 for part, share in zip(parts, shares, strict=True))
    assert sum(parts) <= k


def test_a_split_is_exact_on_average() -> None:
    parts = [split(6, [0.1, 0.05, 0.3, 0.0], np.random.default_rng(seed)) for seed in range(4000)]
    assert np.allclose(np.mean(parts, axis=0), [0.6, 0.3, 1.8, 0.0], atol=0.04)


def test_what_was_replayed_rests_and_what_was_only_written_does_not() -> None:
    """Rounds 5 and 6 of attacks written in round 5: attack 0 was replayed in round 6, attack 1 never."""
    history = [Visit(0, 5, 1, 4, 0.5), Visit(1, 5, 1, 4, 0.5), Visit(0, 6, 2, 4, 0.5)]
    for cooldown, rested in ((0, set()), (1, {0}), (2, {0})):
        for seed in range(20):
            found = drawn(config(cooldown=cooldown), make_state(history, 2, origin=[5, 5]), 1, seed)
            assert not rested & set(found)
    assert drawn(config(cooldown=1), make_state(history, 2, origin=[5, 5], now=7), 1) == [0]
    assert sorted(drawn(config(cooldown=1), make_state(history, 2, origin=[5, 5]), 2)) == [0, 1]  # rather than none


def play(rules: ReplayConfig, chances: list[Chances], k: int, cluster: list[int]) -> list[set[int]]:
    """The rows drawn in each round; in round r attack i fails its defender with the chance chances[r][i].

    Before that, each attack was visited once in each of ten rounds.
    """
    rng, rounds, size = np.random.default_rng(0), [], len(chances[0])
    history = [_visit(row, number, chances[0], rng) for number in range(1, 11) for row in range(size)]
    for number, chance in enumerate(chances, start=11):
        sampler = make_sampler(rules)
        sampler.attach(make_state(history, size, cluster=cluster, now=number - 1))
        rows = [int(row) for row in sampler.draw(k, rng)]
        history += [_visit(row, number, chance, rng) for row in rows]
        rounds.append(set(rows))
    return rounds


def _visit(row: int, number: int, chance: Chances, rng: np.random.Generator) -> Visit:
    failures = int(rng.binomial(8, chance[row]))
    return Visit(row, number, failures, 8, 1 - failures / 8)


HARD, EASY = 20, 80
"""Attacks that work half the time for ever, and mastered ones."""
BACK = set(range(HARD, HARD + EASY, 7))
"""Mastered attacks that work again after the defender's regression."""


def regression(before: int, after: int) -> list[Chances]:
    mastered = np.array([0.5] * HARD + [0.0] * EASY)
    regressed = mastered.copy()
    regressed[list(BACK)] = 0.9
    return [mastered] * before + [regressed] * after


def test_a_mastered_attack_comes_back_within_r_rounds_of_a_regression_and_ucb_misses_it() -> None:
    """R = ⌈mastered / probes a round⌉: each was probed, failed and is active; then it is drawn again. UCB sees none."""
    k = 20
    within = math.ceil(EASY / (0.2 * k))
    singles = list(range(HARD + EASY))
    ours = play(config(sentinel_share=0.2), regression(20, within), k, singles)[20:]
    assert set().union(*ours) >= BACK
    assert all(sum(row in rows for rows in ours) >= 2 for row in BACK & set().union(*ours[: within // 2]))
    ucb = play(config(sampler="ucb"), regression(20, 2 * within), k, singles)[20:]
    assert not BACK & set().union(*ucb)


def test_clusters_are_probed_in_turn() -> None:
    """80 mastered attacks in eight clusters, four probes a round: any two rounds see every cluster."""
    cluster = list(range(100, 100 + HARD)) + [i % 8 for i in range(EASY)]
    rounds = play(config(sentinel_share=0.2), regression(30, 0), 20, cluster)
    for one, other in pairwise(rounds[2:]):
        assert {cluster[row] for row in one | other if row >= HARD} == set(range(8))


def test_uneven_clusters_are_probed_within_their_bound() -> None:
    """Ten single mastered attacks and a cluster of thirty, four probes a round: turns of 11, 30 turns at most."""
    cluster = [*range(100, 100 + HARD), *range(10), *([10] * 30)]
    chances = [np.array([0.5] * HARD + [0.0] * 40)] * (math.ceil(11 * 30 / 4) + 2)
    rounds = play(config(sentinel_share=0.2), chances, 20, cluster)
    assert set().union(*rounds[2:]) >= set(range(HARD, HARD + 40))


def test_mastered_attacks_of_a_cluster_do_not_starve_those_that_beat_the_defender() -> None:
    """The default quota: a cluster of 30 mastered and 20 all-failing attacks beside many small ones."""
    small = [1 + i // 2 for i in range(60)]
    chances = [np.array([0.0] * 30 + [1.0] * 20 + [0.5] * 60)] * 40
    rules = ReplayConfig(sampler="learnability")
    rounds = play(rules, chances, 32, [0] * 50 + small)
    within = math.ceil(80 / math.floor(rules.stale_share * 32))
    assert set().union(*rounds[2 : 2 + within]) >= set(range(30, 110))


def test_nobody_starves() -> None:
    """What is not mastered is visited within ⌈attacks / stale a round⌉ rounds, however dull its priority."""
    k = 20
    chances = [np.array([0.5] * 60 + [0.97] * 40)] * 60
    rounds = play(config(stale_share=0.2), chances, k, list(range(100)))
    within = math.ceil(100 / (0.2 * k))
    for start in range(60 - within):
        assert set().union(*rounds[start : start + within]) == set(range(100))


def test_what_a_draw_was_made_of_is_told() -> None:
    history = [Visit(i, 1, 0, 40, 1.0) for i in range(10)] + [Visit(i, 1, 4, 4, 0.0) for i in range(10, 20)]
    sampler = Learnability(config(sentinel_share=0.2, all_fail_share=0.3, stale_share=0.0, cooldown=0))
    sampler.attach(make_state(history, 40))
    assert len(sampler.draw(10, np.random.default_rng(3))) == 10
    told = {"drawn": 10, "drawn_sentinel": 2, "drawn_all_fail": 3, "drawn_priority": 5, "sentinels": 10, "resting": 0}
    assert {key: value for key, value in sampler.metrics().items() if key in told} == told
