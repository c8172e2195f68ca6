"""How far judges agree beyond chance: Cohen's kappa for two, Fleiss' for all.

Cohen, Educational and Psychological Measurement 20 (1960); Fleiss, Psychological Bulletin 76 (1971). Kappa falls with
the rarer label's share even when raters err no more (Feinstein and Cicchetti, J. Clin. Epidemiol. 43, 1990): read it
beside the shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ratings = NDArray[np.float64]
"""(cases, judges): 1 or 0, NaN where a judge gave no verdict."""


def cohen(first: Sequence[float] | Ratings, second: Sequence[float] | Ratings) -> float | None:
    """Cohen's kappa over the cases that both judged; None without any, or when chance alone explains everything."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return None
    a, b = a[both], b[both]
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return _beyond(float((a == b).mean()), chance)


def fleiss(ratings: Ratings) -> float | None:
    """Fleiss' kappa over the cases that all judged; None without any, or when chance alone explains everything."""
    full = ratings[~np.isnan(ratings).any(axis=1)] if ratings.size else ratings
    if len(full) == 0 or full.shape[1] < 2:
        return None
    n = full.shape[1]
    yes = full.sum(axis=1)
    observed = float(((yes * (yes - 1) + (n - yes) * (n - yes - 1)) / (n * (n - 1))).mean())
    share = float(full.mean())
    return _beyond(observed, share**2 + (1 - share) ** 2)


def _beyond(observed: float, chance: float) -> float | None:
    return None if 1 - chance < 1e-12 else (observed - chance) / (1 - chance)
