"""What a sampler is: it draws attacks for replay from the pool's state.

The pool's tables are the memory; a sampler lives for one round and remembers only what it was told since the state was
folded. Protocol after prime-rl's curriculum samplers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sparring.errors import StoreError
from sparring.replay.state import PoolState, Rows


class Sampler(Protocol):
    """One way to choose. The same state, memory, `k` and generator state give the same draw."""

    name: str

    def draw(self, state: PoolState, k: int, rng: np.random.Generator) -> Rows:
        """Distinct rows of `state`, best first: min(k, len(state)) of them, unless the sampler draws nothing at all."""

    def observe(self, ids: Sequence[str], rewards: Sequence[float]) -> None:
        """Tells of one visit each: attack id and mean defender reward in [0, 1], not yet in the state drawn from."""

    def state_dict(self) -> dict[str, object]:
        """What was observed, as plain JSON."""

    def load_state_dict(self, saved: dict[str, object]) -> None:
        """Takes up a `state_dict`. Raises StoreError when it is another sampler's."""

    def metrics(self) -> dict[str, float]:
        """About the last draw, for the ledger."""


class Memoryless:
    """Base of samplers that do not look at outcomes."""

    name = ""

    def __init__(self) -> None:
        self._drawn = 0

    def observe(self, ids: Sequence[str], rewards: Sequence[float]) -> None:
        """See `Sampler.observe`: not needed here."""

    def state_dict(self) -> dict[str, object]:
        """See `Sampler.state_dict`."""
        return {"sampler": self.name}

    def load_state_dict(self, saved: dict[str, object]) -> None:
        """See `Sampler.load_state_dict`."""
        check_saved(saved, self.name)

    def metrics(self) -> dict[str, float]:
        """See `Sampler.metrics`."""
        return {"drawn": float(self._drawn)}


def check_saved(saved: dict[str, object], name: str) -> None:
    """Raises StoreError unless `saved` was written by the sampler `name`."""
    if saved.get("sampler") != name:
        raise StoreError(f"the saved sampler state is of {saved.get('sampler')!r}, this is {name!r}")
