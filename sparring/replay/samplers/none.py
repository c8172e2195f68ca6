"""No replay: the ablation that the others are measured against."""

from __future__ import annotations

import numpy as np

from sparring.replay.samplers.base import Memoryless
from sparring.replay.state import PoolState, Rows


class NoReplay(Memoryless):
    """Draws nothing."""

    name = "none"

    def draw(self, state: PoolState, k: int, rng: np.random.Generator) -> Rows:
        """See `Sampler.draw`."""
        return np.empty(0, dtype=np.intp)
