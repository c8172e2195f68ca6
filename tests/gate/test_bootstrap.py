"""The cluster bootstrap against a plain loop, SciPy, and the t interval."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparring.gate import bootstrap
from sparring.gate.bootstrap import bootstrap_mean
from sparring.gate.statistics import clustered_mean

ROWS = st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5), st.integers(0, 1)), min_size=6, max_size=30)


@settings(max_examples=40)
@given(ROWS)
def test_resamples_equal_a_plain_loop(data: list[tuple[float, int, int]]) -> None:
    """The same draws, rows copied cluster by cluster and averaged by hand."""
    values = np.array([x for x, _, _ in data])
    clusters = np.unique([c for _, c, _ in data], return_inverse=True)[1]
    strata = np.unique([s for _, _, s in data], return_inverse=True)[1]
    groups, parts = int(clusters.max()) + 1, int(strata.max()) + 1
    draws = np.random.default_rng(3).integers(0, groups, (200, groups))
    means = []
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(clusters == g) for g in draw])
        slices = [values[rows][strata[rows] == s] for s in range(parts)]
        if all(len(part) for part in slices):
            means.append(np.mean([part.mean() for part in slices]))
    found = bootstrap_mean(values, clusters, strata, resamples=200, seed=3)
    assert found.dropped == 200 - len(means)
    if groups > 1 and len(means) >= 100:
        assert found.percentile == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-12)
        assert found.se == pytest.approx(np.std(means, ddof=1), abs=1e-12)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_intervals_agree_with_scipy(method: str) -> None:
    """Single clusters, a skewed sample; different draws, so that 20,000 resamples agree to a few per cent."""
    values = np.random.default_rng(1).exponential(1.0, 60)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(2))
    ours = bootstrap_mean(values, np.arange(60), resamples=20_000, seed=5)
    interval = ours.bca if method == "BCa" else ours.percentile
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert interval == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


def test_clusters_agree_with_scipy() -> None:
    """Equal clusters: resampling cluster means is the same bootstrap."""
    rng = np.random.default_rng(4)
    values = (rng.normal(0, 1, 50)[:, None] + rng.normal(0, 0.5, (50, 4))).ravel()
    theirs = stats.bootstrap((values.reshape(50, 4).mean(axis=1),), np.mean, n_resamples=20_000, rng=rng)
    ours = bootstrap_mean(values, np.repeat(np.arange(50), 4), resamples=20_000)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.bca == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


def test_close_to_the_t_interval_of_the_gate() -> None:
    rng = np.random.default_rng(6)
    clusters, strata = np.tile(np.arange(300), 2), np.repeat([0, 1], 300)
    values = rng.integers(-1, 2, 600) * (rng.random(600) < 0.3) + 0.1 * rng.normal(0, 1, 300)[clusters]
    mean, found = clustered_mean(values, clusters, strata), bootstrap_mean(values, clusters, strata)
    assert found.value == pytest.approx(mean.value)
    assert found.se == pytest.approx(mean.se, rel=0.03)
    assert found.percentile == pytest.approx(mean.interval(), abs=0.1 * mean.se)
    assert found.bca == pytest.approx(mean.interval(), abs=0.15 * mean.se)


def test_the_seed_is_exact_and_chunks_only_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(0, 1, 40)
    one = bootstrap_mean(values, np.arange(40), resamples=500, seed=9)
    assert bootstrap_mean(values, np.arange(40), resamples=500, seed=9) == one
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 130)
    assert bootstrap_mean(values, np.arange(40), resamples=500, seed=9).percentile == pytest.approx(one.percentile)
    assert bootstrap_mean(values, np.arange(40), resamples=500, seed=10) != one


def test_what_cannot_be_resampled_has_no_interval() -> None:
    one = bootstrap_mean(np.array([0.0, 1.0]), np.array([0, 0]), resamples=100)
    assert one.percentile == one.bca == (-np.inf, np.inf) and one.se == np.inf
    same = bootstrap_mean(np.full(10, 0.25), np.arange(10), resamples=100)
    assert same.percentile == same.bca == (0.25, 0.25)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(np.array([0.0, np.nan]), np.arange(2))


def test_ten_thousand_resamples_of_many_clusters_stay_small() -> None:
    values, clusters = np.random.default_rng(0).normal(0, 1, 2000), np.arange(2000)
    tracemalloc.start()
    bootstrap_mean(values, clusters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6


def test_clusters_that_look_alike_are_drawn_together_with_the_same_result() -> None:
    """2,000 clusters of yes-or-no differences: nine kinds. Against drawing every cluster by itself."""
    rng = np.random.default_rng(3)
    values, clusters = rng.integers(-1, 2, 4000).astype(np.float64), np.arange(4000) % 2000
    strata = np.arange(4000) // 2000
    found = bootstrap_mean(values, clusters, strata, resamples=20_000)
    draws = rng.integers(0, 2000, (4000, 2000))
    totals = (values[:2000] + values[2000:]) / 2.0
    means = totals[draws].mean(axis=1)
    assert found.se == pytest.approx(means.std(), rel=0.05)
    assert found.percentile == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.1 * found.se)
