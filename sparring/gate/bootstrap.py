"""Cluster bootstrap of a (macro-averaged) mean difference: a check beside the t interval, which decides nothing.

Clusters are resampled whole, with replacement, by multinomial counts: a resample is a vector of how often each cluster
was drawn, and a stratum's mean is (counts · sums) / (counts · sizes). Efron & Tibshirani, "An Introduction to the
Bootstrap" (1993), section 8.3 (clusters as the units) and 14.3 (BCa, with the acceleration of the cluster jackknife).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sparring.gate.statistics import Floats, Ints

RESAMPLES = 10_000
_MANY = 200
"""Clusters from which those that look alike are drawn together."""
_CHUNK_CELLS = 1 << 21
"""Counts held at a time: 16 MiB, whatever the number of resamples and clusters."""


@dataclass(frozen=True)
class Bootstrap:
    """What the bootstrap says of a mean; bounds are in the values' unit.

    `percentile` and `bca` are two-sided intervals. `dropped` counts resamples in which a stratum had no row at all:
    their mean is undefined and they are left out. Intervals are infinite when fewer than half of them are left or
    there are fewer than two clusters.
    """

    value: float
    se: float
    percentile: tuple[float, float]
    bca: tuple[float, float]
    confidence: float
    resamples: int
    dropped: int
    clusters: int
    seed: int


def bootstrap_mean(
    values: Floats,
    clusters: Ints,
    strata: Ints | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Bootstrap:
    """Bootstrap of the mean of the strata's means, resampling clusters.

    `values` (n,), `clusters` (n,) and `strata` (n,) as for `statistics.clustered_mean`: codes from 0 without gaps;
    clusters may span strata. The same seed gives the same numbers. Raises ValueError for what is not finite.
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("values must be finite, and at least one")
    sums, sizes = _by_cluster(values, clusters, strata)
    value, groups = float(_means(sums.sum(axis=0), sizes.sum(axis=0))), len(sums)
    drawn = np.concatenate(list(_resampled(sums, sizes, resamples, np.random.default_rng(seed))))
    kept = drawn[np.isfinite(drawn)]
    unknown = (-np.inf, np.inf)
    enough = groups > 1 and 2 * kept.size >= resamples
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    return Bootstrap(
        value=value,
        se=float(kept.std(ddof=1)) if enough else np.inf,
        percentile=_between(kept, tails) if enough else unknown,
        bca=_between(kept, _corrected(kept, value, _jackknife(sums, sizes), tails)) if enough else unknown,
        confidence=confidence,
        resamples=resamples,
        dropped=int(drawn.size - kept.size),
        clusters=groups,
        seed=seed,
    )


def _by_cluster(values: Floats, clusters: Ints, strata: Ints | None) -> tuple[Floats, Floats]:
    """Sums of values and numbers of rows, (clusters, strata)."""
    strata = np.zeros(len(values), dtype=np.int64) if strata is None else strata
    shape = int(clusters.max()) + 1, int(strata.max()) + 1
    cell, cells = clusters * shape[1] + strata, shape[0] * shape[1]
    sums = np.bincount(cell, weights=values, minlength=cells).astype(np.float64)
    return sums.reshape(shape), np.bincount(cell, minlength=cells).astype(np.float64).reshape(shape)


def _means(sums: Floats, sizes: Floats) -> Floats:
    """Mean over the last axis of sums/sizes; NaN where a size is 0."""
    ratios = np.full(sums.shape, np.nan)
    np.divide(sums, sizes, out=ratios, where=sizes > 0)
    means: Floats = ratios.mean(axis=-1)
    return means


def _resampled(sums: Floats, sizes: Floats, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Means of resamples, in chunks of bounded memory. The chunks' size is a matter of the clusters alone.

    Clusters that look alike are drawn together: how often any of them is drawn is multinomial too, with a chance for
    each of their kinds. Yes-or-no answers have a few dozen kinds, so that thousands of clusters cost no more.
    """
    groups = len(sums)
    kinds, first, alike = np.unique(np.hstack([sums, sizes]), axis=0, return_index=True, return_counts=True)
    together = groups >= _MANY and 4 * len(kinds) <= groups
    if together:
        sums, sizes = sums[first], sizes[first]
    step = max(1, _CHUNK_CELLS // len(sums))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.multinomial(groups, alike / groups, rows).astype(np.float64) if together else None
        counts = _counts(rows, groups, rng) if drawn is None else drawn
        yield _means(counts @ sums, counts @ sizes)


def _counts(resamples: int, groups: int, rng: np.random.Generator) -> Floats:
    """How often each cluster is drawn, (resamples, groups): multinomial counts, by counting uniform draws."""
    drawn = rng.integers(0, groups, (resamples, groups))
    drawn += groups * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * groups)
    return counts.reshape(resamples, groups).astype(np.float64)


def _jackknife(sums: Floats, sizes: Floats) -> Floats:
    """The mean without each cluster; those without which a stratum would be empty are left out."""
    without = _means(sums.sum(axis=0) - sums, sizes.sum(axis=0) - sizes)
    return without[np.isfinite(without)]


def _corrected(drawn: Floats, value: float, jackknife: Floats, tails: NDArray[np.float64]) -> NDArray[np.float64]:
    """BCa's quantiles: Φ(z₀ + (z₀ + z)/(1 − a(z₀ + z))), z₀ from the share of resamples below the estimate."""
    below = float(((drawn < value).sum() + 0.5 * (drawn == value).sum()) / drawn.size)
    if not 0.0 < below < 1.0 or not np.ptp(drawn) > 0.0:
        return tails
    bias, centred = special.ndtri(below), jackknife.mean() - jackknife
    spread = float((centred**2).sum())
    acceleration = float((centred**3).sum()) / (6.0 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + special.ndtri(tails)
    levels: NDArray[np.float64] = special.ndtr(bias + shifted / (1.0 - acceleration * shifted))
    return levels


def _between(drawn: Floats, levels: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)
