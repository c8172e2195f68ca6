"""UCB over stored scores: reflective experience replay of Safety Self-Play (arXiv 2601.10589).

    score_i = (1 − mean defender reward_i) + c · √(ln N / n_i)

Not printed in any source we could read, and so our reconstruction: this form of the bonus, rewards scaled to [0, 1],
n_i counted in visits (one a step, whatever the number of answers) with N their sum over the pool drawn from, the mean
taken over answers, n_i = 0 scoring +∞ so that every attack is tried, ties broken at random from the seed. Known
weakness: a mastered attack comes back late after the defender regresses, because ln N grows slowly.

The bonus depends on n_i alone. Attacks of one visit count are therefore sorted by mean reward once, with their scores,
and a draw looks at the first k of each count: its cost depends on k and on the number of different counts, not on the
pool's size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparring.replay.samplers.base import Remembering
from sparring.replay.samplers.order import changes
from sparring.replay.state import Floats, PoolState, Rows

Counts = npt.NDArray[np.int64]


class Ucb(Remembering):
    """Draws the k highest scores, highest first; `c` weighs exploration."""

    name = "ucb"

    def __init__(self, c: float) -> None:
        super().__init__()
        self._c = c

    def _build(self, state: PoolState) -> None:
        """Sorts rows by count, then mean; a run is a stretch of equals, a class the runs of one count."""
        self._visits = state.visits
        mean = np.divide(state.reward_sum, state.answers, out=np.zeros(len(state)), where=state.visits > 0)
        self._rows: Rows = np.lexsort((mean, state.visits))
        visits, mean = state.visits[self._rows], mean[self._rows]
        self._runs = changes(visits, mean)
        self._sizes = np.diff(self._runs, append=len(state))
        run_visits = visits[self._runs]
        self._scores = ucb_scores(run_visits, mean[self._runs], self._c, int(state.visits.sum()))
        self._classes = changes(run_visits)
        self._lengths = np.diff(self._classes, append=len(self._runs))

    def _choose(self, k: int, rng: np.random.Generator) -> Rows:
        """The first k runs of each class hold the k best rows, since a run has at least one."""
        runs = _heads(self._classes, np.minimum(self._lengths, k))
        scores = self._scores[runs]
        if len(runs) > k:
            kept = scores >= np.partition(scores, len(runs) - k)[len(runs) - k]
            runs, scores = runs[kept], scores[kept]
        order = np.argsort(-scores, kind="stable")
        return self._fill(runs[order], scores[order], k, rng)

    def _fill(self, runs: Rows, scores: Floats, k: int, rng: np.random.Generator) -> Rows:
        """k rows of runs that stand best first; where runs of one score exceed the rest of k, chance decides."""
        sizes = self._sizes[runs]
        cut = scores[np.searchsorted(np.cumsum(sizes), k)]
        above, equal = scores > cut, scores == cut
        sure = _heads(self._runs[runs[above]], sizes[above])
        ends = np.cumsum(sizes[equal])
        picks = rng.choice(ends[-1], k - len(sure), replace=False)
        run = np.searchsorted(ends, picks, side="right")
        lucky = self._runs[runs[equal]][run] + picks - (ends - sizes[equal])[run]
        chosen = self._rows[np.concatenate([sure, lucky])]
        keys = np.concatenate([np.repeat(scores[above], sizes[above]), np.full(len(lucky), cut)])
        shuffled = rng.permutation(k)
        rows: Rows = chosen[shuffled][np.argsort(-keys[shuffled], kind="stable")]
        return rows

    def _about(self, rows: Rows) -> dict[str, float]:
        return {"drawn_unvisited": float((self._visits[rows] == 0).sum())}


def ucb_scores(visits: Counts, mean_reward: Floats, c: float, total: int) -> Floats:
    """The scores above for arrays of shape (n,), N = `total`; `mean_reward` is not looked at where `visits` is 0."""
    seen = visits > 0
    ratio = np.divide(np.log(max(total, 1)), visits, out=np.zeros(len(visits)), where=seen)
    scores: Floats = np.where(seen, 1.0 - mean_reward + c * np.sqrt(ratio), np.inf)
    return scores


def _heads(starts: Rows, lengths: Rows) -> Rows:
    """starts[0], starts[0] + 1, … (lengths[0] of them), then the same for starts[1], and so on."""
    offsets = np.cumsum(lengths) - lengths
    heads: Rows = np.repeat(starts - offsets, lengths) + np.arange(int(lengths.sum()))
    return heads
