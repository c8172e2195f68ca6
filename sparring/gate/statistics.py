"""The gate's statistics: paired, clustered, few lines each, with the formula's source beside it.

Everything is a pure function of NumPy arrays and needs `scipy.special` only, so that a decision starts fast.
Differences are oriented by the caller; `clusters` are behaviours, across suites.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FLIP_CELLS = 1 << 15
"""Cells of the grid of `sign_flip`. Totals that do not fall on it are rounded: the test of the rounded totals is
exact under the null as well, it only orders the outcomes a little differently."""

FLIP_CLUSTERS = 400
"""With more discordant clusters than this the t test is exact enough and `sign_flip` is left out."""


@dataclass(frozen=True)
class Mean:
    """A (macro-averaged) mean with its clustered standard error.

    `totals` holds each cluster's weighted sum of values (their sum is `value`); `df` is clusters minus strata.
    """

    value: float
    se: float
    df: int
    n: int
    clusters: int
    totals: Floats

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided t interval."""
        half = t_quantile(0.5 + confidence / 2, self.df) * self.se
        return self.value - half, self.value + half


def clustered_mean(values: Floats, clusters: Ints, strata: Ints | None = None) -> Mean:
    """Mean of the strata's means (one stratum: the plain mean) with a cluster-robust standard error.

    se² = G/(G−1) · Σ_g (Σ_{i∈g} w_i (x_i − x̄_stratum))², w_i = 1/(S·n_stratum): Miller, "Adding error bars to
    evals" (arXiv 2411.00640), section 2.2, with the usual finite-cluster factor and stratum centring. Clusters may
    span strata. With one row a cluster and one stratum it is the ordinary s/√n. With one cluster se is infinite.
    """
    strata = np.zeros(len(values), dtype=np.int64) if strata is None else strata
    counts = np.bincount(strata)
    weights = 1.0 / (counts.size * counts[strata])
    means = np.bincount(strata, weights=values) / counts
    groups = int(clusters.max()) + 1
    sums = np.bincount(clusters, weights=weights * (values - means[strata]), minlength=groups)
    totals = np.bincount(clusters, weights=weights * values, minlength=groups).astype(np.float64)
    df = groups - counts.size
    se = math.sqrt(groups / (groups - 1) * float(sums @ sums)) if df > 0 else math.inf
    return Mean(float(means.mean()), se, df, len(values), groups, totals)


def stratified_mean(values: Floats, strata: Ints | None = None) -> float:
    """The value of `clustered_mean`, without its error."""
    strata = np.zeros(len(values), dtype=np.int64) if strata is None else strata
    return float((np.bincount(strata, weights=values) / np.bincount(strata)).mean())


def t_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t with `df` degrees of freedom."""
    return float(special.stdtrit(df, probability)) if df > 0 else math.inf


def t_tail(statistic: float, df: int) -> float:
    """P(T ≥ statistic)."""
    return float(special.stdtr(df, -statistic)) if df > 0 else 1.0


def superiority(mean: Mean) -> float:
    """One-sided p value of "the mean difference is below 0" (lower is better).

    The larger of two: the clustered t test with the variance under the null (uncentred cluster totals, the score
    form: McNemar's z where clusters are single, never zero unless nothing differs), and the exact `sign_flip` while
    there are few discordant clusters, where the t test is too bold.
    """
    spread = math.sqrt(mean.clusters / max(mean.clusters - 1, 1) * float(mean.totals @ mean.totals))
    if spread == 0.0 or mean.value >= 0.0:
        return 1.0
    return max(t_tail(-mean.value / spread, mean.df), sign_flip(-mean.totals))


def sign_flip(totals: Floats) -> float:
    """P(Σ ±|t_g| ≥ Σ t_g) over all equally likely signs: the exact sign-flip (permutation) test of cluster totals.

    With one binary pair a cluster this *is* the one-sided exact McNemar test. Computed by convolution on a grid;
    returns 0.0 ("does not bind") with more than FLIP_CLUSTERS non-zero totals.
    """
    totals = totals[totals != 0.0]
    if totals.size == 0:
        return 1.0
    if totals.size > FLIP_CLUSTERS:
        return 0.0
    steps = _grid(totals)
    reach = int(np.abs(steps).sum())
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in np.abs(steps):
        chances = 0.5 * (_shift(chances, int(step)) + _shift(chances, -int(step)))
    return float(min(1.0, chances[max(0, reach + int(steps.sum())) :].sum()))


def _grid(totals: Floats) -> Ints:
    """Totals as whole numbers of steps: without rounding where they are multiples of the smallest one or its half."""
    smallest, whole = float(np.abs(totals).min()), float(np.abs(totals).sum())
    for unit in (smallest, smallest / 2):
        if whole > _FLIP_CELLS * unit:
            break
        steps = totals / unit
        if np.allclose(steps, np.rint(steps), rtol=0.0, atol=1e-6):
            return np.rint(steps).astype(np.int64)
    return np.rint(totals / whole * _FLIP_CELLS).astype(np.int64)


def _shift(values: Floats, by: int) -> Floats:
    out = np.zeros_like(values)
    if by >= 0:
        out[by:] = values[: values.size - by]
    else:
        out[:by] = values[-by:]
    return out


def mcnemar(wins: int, losses: int) -> float:
    """One-sided exact McNemar p value: P(Binomial(wins + losses, 1/2) ≥ wins)."""
    if wins + losses == 0:
        return 1.0
    return float(special.bdtr(losses, wins + losses, 0.5))


def mcnemar_two_sided(wins: int, losses: int) -> float:
    """Two-sided exact McNemar p value: twice the smaller tail, at most 1."""
    return min(1.0, 2.0 * min(mcnemar(wins, losses), mcnemar(losses, wins)))


def null_variance(lost: float, won: float, n: int, margin: float) -> float:
    """Variance of one pair's difference when the true difference is −margin, given the discordant counts.

    The restricted maximum-likelihood estimate of Tango (Statistics in Medicine 17, 1998, eq. 6-8). The ordinary
    variance is too small when few pairs differ: with none it is 0 and any margin would be "shown".
    `lost` and `won` may be fractional (several answers a prompt), which overstates the variance.
    """
    a = 2.0 * n
    b = -won - lost + (2.0 * n - lost + won) * margin
    c = -won * margin * (1.0 - margin)
    gained = max(0.0, (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a))
    return 2.0 * gained + margin - margin * margin


def extra_variance(values: Floats, clusters: Ints, margin: float) -> float:
    """What the variance of one stratum's mean difference gains under "the true difference is −margin".

    Tango's restricted variance minus the unrestricted one (not below 0), times the largest possible design effect
    Σ n_g²/n, as if the missing losses came by whole clusters. Only for binary outcomes. Zero when the estimate is
    at or below −margin.
    """
    n = len(values)
    value = float(values.mean())
    if value <= -margin:
        return 0.0
    lost, won = float(np.maximum(-values, 0).sum()), float(np.maximum(values, 0).sum())
    plain = (lost + won) / n - value * value
    sizes = np.bincount(clusters)
    effect = float(sizes @ sizes) / n
    return max(0.0, null_variance(lost, won, n, margin) - plain) * effect / n


def wilson(rate: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval for a rate at n (effective) rows; z is the normal quantile."""
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, rate * (1 - rate)) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate_interval(values: Floats, clusters: Ints, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a single rate in [0, 1]: Wilson at the effective size n/deff (deff ≥ 1, from the clustered error).

    Effective sizes as in Korn & Graubard (Survey Methodology 24, 1998); t instead of the normal quantile.
    """
    mean = clustered_mean(values, clusters)
    if mean.df < 1:
        return 0.0, 1.0
    simple = mean.value * (1 - mean.value) / mean.n
    effect = max(1.0, mean.se**2 / simple) if simple > 0 else 1.0
    sizes = np.bincount(clusters)
    effective = mean.n / max(effect, float(sizes @ sizes) / mean.n if simple == 0 else 1.0)
    return wilson(mean.value, effective, t_quantile(0.5 + confidence / 2, mean.df))


def holm(p_values: list[float], alpha: float) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects at family-wise level alpha."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def both_exceed(z: float, correlation: float) -> float:
    """P(X < z and Y < z) of standard normals with that correlation: Φ(z) − 2·T(z, √((1−ρ)/(1+ρ))) (Owen 1956)."""
    return float(special.ndtr(z) - 2.0 * special.owens_t(z, math.sqrt((1 - correlation) / (1 + correlation))))
