"""Every attack alike."""

from __future__ import annotations

import numpy as np

from sparring.replay.samplers.base import Memoryless
from sparring.replay.state import PoolState, Rows


class Uniform(Memoryless):
    """Draws without replacement, each attack with the same chance."""

    name = "uniform"

    def draw(self, state: PoolState, k: int, rng: np.random.Generator) -> Rows:
        """See `Sampler.draw`."""
        self._drawn = min(k, len(state))
        rows: Rows = rng.choice(len(state), self._drawn, replace=False)
        return rows
