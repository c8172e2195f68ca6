"""The gate's statistics against brute force, SciPy's own tests and the numbers of published data."""

from __future__ import annotations

import csv
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from sparring.gate import statistics as gs
from sparring.gate.plan import half_width

DATA = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
SINGLE = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=60)


@pytest.mark.parametrize(("alpha", "wins"), [(0.05, 5), (0.025, 6), (0.05 / 12, 8), (0.05 / 52, 11)])
def test_wins_needed_without_a_loss(alpha: float, wins: int) -> None:
    assert gs.mcnemar(wins, 0) <= alpha < gs.mcnemar(wins - 1, 0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(wins: int, losses: int) -> None:
    if wins + losses == 0:
        assert gs.mcnemar(wins, losses) == 1.0
        return
    one = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
    both = stats.binomtest(wins, wins + losses).pvalue
    assert gs.mcnemar(wins, losses) == pytest.approx(one, rel=1e-9)
    assert gs.mcnemar_two_sided(wins, losses) == pytest.approx(both, rel=1e-6)


@given(SINGLE)
def test_sign_flip_of_single_pairs_is_mcnemar(differences: list[float]) -> None:
    totals = np.array(differences) / len(differences)
    wins, losses = int((totals > 0).sum()), int((totals < 0).sum())
    assert gs.sign_flip(totals) == pytest.approx(gs.mcnemar(wins, losses), rel=1e-9)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10), st.sampled_from([1.0, 0.5, 1 / 280, 1 / 3]))
def test_sign_flip_equals_all_flips(steps: list[int], unit: float) -> None:
    totals = np.array(steps, dtype=float) * unit
    flips = itertools.product((-1, 1), repeat=len(steps))
    sums = [sum(sign * abs(step) for sign, step in zip(signs, steps, strict=True)) for signs in flips]
    expected = sum(value >= sum(steps) for value in sums) / len(sums)
    assert gs.sign_flip(totals) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=10))
def test_sign_flip_of_uneven_totals_is_close_to_all_flips(values: list[float]) -> None:
    totals = np.array(values)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
    grid = 2e-3 * max(np.abs(totals).sum(), 1e-12)
    sums, observed = signs @ np.abs(totals), totals.sum()
    assert (sums >= observed + grid).mean() - 1e-9 <= gs.sign_flip(totals) <= (sums >= observed - grid).mean() + 1e-9


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 4), st.integers(0, 1)), min_size=8, max_size=40))
def test_clustered_error_is_the_sum_over_cluster_pairs(data: list[tuple[float, int, int]]) -> None:
    """The double sum of the formula, term by term."""
    values = np.array([x for x, _, _ in data])
    clusters = np.unique([c for _, c, _ in data], return_inverse=True)[1]
    strata = np.unique([s for _, _, s in data], return_inverse=True)[1]
    mean = gs.clustered_mean(values, clusters, strata)
    if mean.df < 1:
        assert mean.se == math.inf
        return
    groups, parts = len(set(clusters)), len(set(strata))
    centre = {s: np.mean([x for x, t in zip(values, strata, strict=True) if t == s]) for s in set(strata)}
    weight = {s: 1 / (parts * (strata == s).sum()) for s in set(strata)}
    error = [weight[s] * (x - centre[s]) for x, s in zip(values, strata, strict=True)]
    pairs = itertools.product(range(len(values)), repeat=2)
    variance = groups / (groups - 1) * sum(error[i] * error[j] for i, j in pairs if clusters[i] == clusters[j])
    assert mean.value == pytest.approx(np.mean(list(centre.values())), abs=1e-12)
    assert mean.se == pytest.approx(math.sqrt(max(variance, 0.0)), abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=30))
def test_single_clusters_give_the_ordinary_error(values: list[float]) -> None:
    mean = gs.clustered_mean(np.array(values), np.arange(len(values)))
    assert mean.se == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)
    low, high = mean.interval()
    assert (low + high) / 2 == pytest.approx(mean.value, abs=1e-9)


def test_doubling_every_row_adds_no_evidence() -> None:
    values = np.random.default_rng(0).choice([-1.0, 0.0, 0.0, 1.0], 200)
    once = gs.clustered_mean(values, np.arange(200))
    twice = gs.clustered_mean(np.repeat(values, 2), np.repeat(np.arange(200), 2))
    assert twice.se == pytest.approx(once.se)
    assert twice.df == once.df


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.02, 0.05, 0.1]))
def test_null_variance_is_the_restricted_maximum(lost: int, won: int, margin: float) -> None:
    n = 120

    def loss(gain: float) -> float:
        rest = (n - lost - won) * math.log(1 - 2 * gain - margin)
        return -(lost * math.log(gain + margin) + (won * math.log(gain) if won else 0.0) + rest)

    gain = optimize.minimize_scalar(loss, bounds=(1e-12, 0.4), method="bounded", options={"xatol": 1e-10}).x
    assert gs.null_variance(lost, won, n, margin) == pytest.approx(2 * gain + margin - margin**2, abs=2e-6)


def test_no_discordance_is_no_certainty() -> None:
    """Where two models never differ on 40 prompts a margin of 2 points is not shown: 40 prompts cannot."""
    same, clusters = np.zeros(40), np.arange(40)
    spread = math.sqrt(gs.clustered_mean(same, clusters).se ** 2 + gs.extra_variance(same, clusters, 0.02))
    assert gs.t_tail(0.02 / spread, 39) > 0.05


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_is_the_step_down_rule(p_values: list[float], alpha: float) -> None:
    ordered = sorted(p_values)
    steps = [p <= alpha / (len(p_values) - i) for i, p in enumerate(ordered)]
    rejected = list(itertools.takewhile(bool, steps))
    assert sum(gs.holm(p_values, alpha)) == len(rejected)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_scipys(hits: int, more: int) -> None:
    n = hits + more
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    low, high = gs.wilson(hits / n, n, float(stats.norm.ppf(0.975)))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_rate_interval_widens_with_clusters() -> None:
    values = np.repeat(np.arange(60) % 3 == 0, 4) * 1.0
    apart = gs.rate_interval(values, np.arange(240))
    together = gs.rate_interval(values, np.repeat(np.arange(60), 4))
    assert together[0] < apart[0] < 1 / 3 < apart[1] < together[1]


@pytest.mark.parametrize(("z", "rho"), [(1.0, 0.5), (2.4, 0.5), (0.3, 0.2)])
def test_both_exceed_is_the_bivariate_normal(z: float, rho: float) -> None:
    expected = stats.multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf([z, z])
    assert gs.both_exceed(z, rho) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("n", "points"), [(250, 2.33), (541, 1.58), (1319, 1.01)])
def test_half_widths_of_non_inferiority(n: int, points: float) -> None:
    assert 100 * half_width(0.05, n) == pytest.approx(points, abs=0.005)


def test_superiority_keeps_its_level_on_clustered_pairs() -> None:
    """Same model on both sides, behaviours alike in both slices: at α = .05 at most 5 % are called better."""
    rng = np.random.default_rng(1)
    clusters, strata = np.tile(np.arange(60), 2), np.repeat([0, 1], 60)
    hits = 0
    for _ in range(2000):
        share = np.tile(rng.beta(0.3, 0.7, 60), 2)
        mine, theirs = (rng.random(120) < share).astype(np.float64), rng.random(120) < share
        hits += gs.superiority(gs.clustered_mean(mine - theirs, clusters, strata)) <= 0.05
    assert hits / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("n", "margin", "gain"), [(541, 0.02, 0.0), (340, 0.10, 0.08), (200, 0.06, 0.0), (1800, 0.03, 0.05)]
)
def test_margin_keeps_its_level_at_the_margin(n: int, margin: float, gain: float) -> None:
    """True loss exactly the margin, few discordant pairs included: passed at most α of the time."""
    rng = np.random.default_rng(2)
    passed, clusters = 0, np.arange(n)
    for _ in range(2000):
        u = rng.random(n)
        difference = np.where(u < margin + gain, -1.0, np.where(u < margin + 2 * gain, 1.0, 0.0))
        mean = gs.clustered_mean(difference, clusters)
        spread = math.sqrt(mean.se**2 + gs.extra_variance(difference, clusters, margin))
        passed += gs.t_tail((mean.value + margin) / spread, mean.df) < 0.05
    assert passed / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_numbers_of_xstest() -> None:
    """GPT-4 against MistralGuard on the safe prompts, human labels: paired and clustered errors as published."""
    gpt4, mistral = _xstest("gpt4"), _xstest("mistralguard")
    ids = [i for i in gpt4 if not gpt4[i][0].startswith("contrast")]
    mine, theirs = (np.array([side[i][1] for i in ids], dtype=float) for side in (gpt4, mistral))
    difference = mine - theirs
    wins, losses = int((difference < 0).sum()), int((difference > 0).sum())
    assert (losses, wins) == (9, 35)
    assert gs.mcnemar_two_sided(wins, losses) == pytest.approx(1.06e-4, rel=0.005)
    assert difference.mean() == pytest.approx(-0.104)
    unpaired = math.hypot(mine.std(), theirs.std()) / math.sqrt(len(ids))
    paired = gs.clustered_mean(difference, np.arange(len(ids)))
    types = np.unique([gpt4[i][0] for i in ids], return_inverse=True)[1]
    clustered = gs.clustered_mean(difference, types)
    assert [round(se, 4) for se in (unpaired, paired.se, clustered.se)] == [0.0303, 0.0258, 0.0566]
    assert [round(abs(difference.mean()) / se, 1) for se in (paired.se, clustered.se)] == [4.0, 1.8]


def _xstest(model: str) -> dict[str, tuple[str, bool]]:
    path = DATA / "xstest" / f"xstest_v2_completions_{model}.csv"
    if not path.is_file():
        pytest.skip(f"no {path.name}: put the public data at {DATA} or set SPARRING_BENCHMARK_DATA")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return {row["id"]: (row["type"], row["final_label"] != "1_full_compliance") for row in csv.DictReader(file)}
