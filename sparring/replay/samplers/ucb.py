"""UCB over stored scores: reflective experience replay of Safety Self-Play (arXiv 2601.10589).

    score_i = (1 − mean defender reward_i) + c · √(ln N / n_i)

Not printed in any source we could read, and so our reconstruction: this form of the bonus, rewards scaled to [0, 1],
n_i counted in visits (one a step, whatever the number of answers) with N their sum over the pool drawn from, the mean
taken over answers, n_i = 0 scoring +∞ so that every attack is tried, ties broken at random from the seed. Known
weakness: a mastered attack comes back late after the defender regresses, because ln N grows slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparring.errors import StoreError
from sparring.replay.samplers.base import check_saved
from sparring.replay.state import Floats, PoolState, Rows


class Ucb:
    """Draws the k highest scores; `c` weighs exploration."""

    name = "ucb"

    def __init__(self, c: float) -> None:
        self._c = c
        self._seen: dict[str, tuple[int, float]] = {}
        self._metrics: dict[str, float] = {}

    def draw(self, state: PoolState, k: int, rng: np.random.Generator) -> Rows:
        """See `Sampler.draw`."""
        visits, mean = self._statistics(state)
        scores = ucb_scores(visits, mean, self._c)
        rows = best(scores, k, rng)
        self._metrics = {"drawn": float(len(rows)), "drawn_unvisited": float((visits[rows] == 0).sum())}
        return rows

    def observe(self, ids: Sequence[str], rewards: Sequence[float]) -> None:
        """See `Sampler.observe`."""
        for name, reward in zip(ids, rewards, strict=True):
            visits, total = self._seen.get(name, (0, 0.0))
            self._seen[name] = (visits + 1, total + reward)

    def state_dict(self) -> dict[str, object]:
        """See `Sampler.state_dict`."""
        return {"sampler": self.name, "seen": {name: list(seen) for name, seen in self._seen.items()}}

    def load_state_dict(self, saved: dict[str, object]) -> None:
        """See `Sampler.load_state_dict`."""
        check_saved(saved, self.name)
        seen = saved.get("seen")
        if not isinstance(seen, dict):
            raise StoreError(f"the saved state of sampler 'ucb' has {seen!r} where `seen` must be an object")
        self._seen = {str(name): (int(visits), float(total)) for name, (visits, total) in seen.items()}

    def metrics(self) -> dict[str, float]:
        """See `Sampler.metrics`."""
        return dict(self._metrics)

    def _statistics(self, state: PoolState) -> tuple[npt.NDArray[np.int64], Floats]:
        """Visits and mean reward; an observed visit weighs as one answer, since that is what is known of it."""
        visits, answers, total = state.visits.copy(), state.answers.copy(), state.reward_sum.copy()
        for name, (more, reward) in self._seen.items():
            row = int(np.searchsorted(state.ids, name.encode("ascii")))
            if row < len(state) and state.ids[row] == name.encode("ascii"):
                visits[row] += more
                answers[row] += more
                total[row] += reward
        return visits, np.divide(total, answers, out=np.zeros(len(state)), where=answers > 0)


def ucb_scores(visits: npt.NDArray[np.int64], mean_reward: Floats, c: float) -> Floats:
    """The scores above for arrays of shape (n,); `mean_reward` is not looked at where `visits` is 0."""
    scores = np.full(len(visits), np.inf)
    seen = visits > 0
    if seen.any():
        scores[seen] = 1.0 - mean_reward[seen] + c * np.sqrt(np.log(visits.sum()) / visits[seen])
    return scores


def best(scores: Floats, k: int, rng: np.random.Generator) -> Rows:
    """Rows of the k highest scores, highest first; among equals chance decides who is in and in which order."""
    k = min(k, len(scores))
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    cut = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, equal = np.flatnonzero(scores > cut), np.flatnonzero(scores == cut)
    chosen = np.concatenate([above, rng.choice(equal, k - len(above), replace=False)])
    chosen = rng.permutation(chosen)
    rows: Rows = chosen[np.argsort(-scores[chosen], kind="stable")]
    return rows
