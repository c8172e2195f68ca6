"""Learnability, our default: attacks that the defender neither always nor never withstands, with shares for the rest.

k failures of g answers, discounted by γ a round, give an attack the posterior p ~ Beta(a, b), a = 1 + k, b = 1 + g − k.
A failure is a harmful answer to a harmful attack or the refusal of a benign one. A group of answers teaches in
proportion to its variance p(1 − p), so that is the priority: its expectation ab / ((a + b)(a + b + 1)), or its value at
a draw from the posterior. Counts fade, so that what was not tried for long becomes uncertain and comes up again.

- Mastered attacks (posterior mean low at the last visit, and that visit clean) are sentinels: they leave the priority
  and are probed at a fixed share, clusters in turn, in each the one not probed for longest: each within
  ⌈clusters · the largest one / probes⌉ rounds, and one of each cluster within ⌈clusters / probes⌉. A failed probe ends
  it.
- Stale: a share for those not visited for longest, as PLR's ρ (arXiv 2010.03934), which draws in proportion to age;
  longest first gives a bound instead: each is visited within ⌈attacks / (share · k)⌉ rounds, as long as a cluster's
  quota is no less than that share.
- All-fail: groups without a clean answer carry no gradient under a group baseline and sink in the priority, yet are
  what beats the defender: a share, longest unvisited first. Over-refused benign attacks: a share, most refused first.
- Cooldown: an attack replayed in the last rounds rests. Quota: no cluster has more than a share of a draw,
  the probes apart: mastered attacks of a cluster must not use up the places of those that beat the defender.

Shares of k are rounded at random so that they hold on average and each draw is within one of them; what a share cannot
use goes to the priority. Where too few attacks remain, the sentinels fill up, then the resting, then the quota is
lifted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sparring.config.run import ReplayConfig
from sparring.replay.samplers.base import Remembering
from sparring.replay.samplers.order import Ranking
from sparring.replay.samplers.posterior import Posterior, expected, rounded
from sparring.replay.state import PoolState, Rows

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
SHARES = ("stale", "all_fail", "over_refused", "sentinel")
PROBES = "sentinel"
"""The share whose rows do not count against their clusters' quota."""


class Learnability(Remembering):
    """Draws by share, then by priority; the rows stand in random order, so that each step gets its part of each."""

    name = "learnability"

    def __init__(self, config: ReplayConfig) -> None:
        super().__init__()
        self._config = config
        self._shares = [getattr(config, f"{name}_share") for name in SHARES]

    def _build(self, state: PoolState) -> None:
        rests, done = resting(state, self._config.cooldown), mastered(state, self._config.mastered_below)
        age = -seen_at(state)
        active = ~rests & ~done
        refused = expected_rate(state)
        self._cluster = state.cluster
        self._orders = {
            "sentinel": _sentinels(state, np.flatnonzero(done & ~rests)),
            "stale": _ranked(active, age),
            "all_fail": _ranked(active & all_failed(state), age),
            "over_refused": _ranked(active & ~state.harmful & (state.last_failures > 0), refused),
            "priority": self._priority(state, np.flatnonzero(active)),
            "resting": _ranked(rests, age),
        }
        self._drawn: Counter[str] = Counter()
        self._totals = {"sentinels": float(done.sum()), "resting": float(rests.sum())}

    def _priority(self, state: PoolState, rows: Rows) -> Ranking | Posterior:
        failures, answers = state.decayed_failures[rows], state.decayed_answers[rows]
        if self._config.priority == "drawn":
            failed = rounded(failures)
            return Posterior(rows, failed, failed + rounded(answers - failures))
        return Ranking(rows, expected(failures, answers))

    def _choose(self, k: int, rng: np.random.Generator) -> Rows:
        draw = _Draw(self._cluster, max(1, math.floor(self._config.cluster_share * k)))
        for name, size in zip(SHARES, split(k, self._shares, rng), strict=True):
            draw.take(name, self._orders[name].stream(rng), size, bound=name != PROBES)
        for lifted in (False, True):
            draw.quota = k if lifted else draw.quota
            for name in ("priority", "sentinel", "resting"):
                draw.take(f"{name}_unbound" if lifted else name, self._orders[name].stream(rng), k - len(draw.rows))
        self._drawn = draw.why
        rows: Rows = rng.permutation(np.array(list(draw.rows), dtype=np.intp))
        return rows

    def _about(self, rows: Rows) -> dict[str, float]:
        return self._totals | {f"drawn_{name}": float(count) for name, count in sorted(self._drawn.items())}


class _Draw:
    """The rows chosen so far, how many of each cluster, and how many for which reason."""

    def __init__(self, cluster: Ints, quota: int) -> None:
        self.rows: dict[int, None] = {}
        self.why: Counter[str] = Counter()
        self.quota = quota
        self._cluster = cluster
        self._of_cluster: Counter[int] = Counter()

    def take(self, why: str, rows: Iterable[int], size: int, *, bound: bool = True) -> None:
        """Up to `size` more of `rows`, without those chosen before and, if `bound`, those of a cluster that has its
        quota; else they do not count against it.
        """
        if size <= 0:
            return
        left = size
        for row in rows:
            cluster = int(self._cluster[row])
            if row in self.rows or (bound and self._of_cluster[cluster] >= self.quota):
                continue
            self.rows[row] = None
            self._of_cluster[cluster] += bound
            left -= 1
            if not left:
                break
        self.why[why] += size - left


def seen_at(state: PoolState) -> Ints:
    """The round of the last visit; of an attack without one, the round it was written in."""
    rounds: Ints = np.maximum(state.last_round, state.origin_round)
    return rounds


def resting(state: PoolState, cooldown: int) -> Mask:
    """Attacks replayed in the last `cooldown` rounds; the round an attack was written in is no replay."""
    mask: Mask = (state.last_round > state.origin_round) & (state.round - state.last_round < cooldown)
    return mask


def all_failed(state: PoolState) -> Mask:
    """Attacks whose last visit had two answers or more and no clean one: a group without variance."""
    mask: Mask = (state.last_answers >= 2) & (state.last_failures == state.last_answers)
    return mask


def mastered(state: PoolState, below: float) -> Mask:
    """Attacks with a clean last visit and, as of it, a posterior mean failure rate of at most `below`.

    Counts fade at one pace, so the counts as of the last visit are today's over γ^(rounds since).
    """
    clean = (state.last_answers > 0) & (state.last_failures == 0)
    faded = state.discount ** np.maximum(state.round - state.last_round, 0)
    failures = np.divide(state.decayed_failures, faded, out=np.zeros(len(state)), where=faded > 0)
    answers = np.divide(state.decayed_answers, faded, out=np.zeros(len(state)), where=faded > 0)
    mask: Mask = clean & (1.0 + failures <= below * (2.0 + answers))
    return mask


def expected_rate(state: PoolState) -> npt.NDArray[np.float64]:
    """Posterior mean failure rate."""
    rate: npt.NDArray[np.float64] = (1.0 + state.decayed_failures) / (2.0 + state.decayed_answers)
    return rate


def split(k: int, shares: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Whole parts of k by systematic rounding: each is its share · k rounded down or up, and exact on average."""
    ends = np.floor(np.concatenate([[0.0], np.cumsum(shares)]) * k + rng.random())
    return [int(part) for part in np.diff(ends)]


def _ranked(mask: Mask, scores: Ints | npt.NDArray[np.float64]) -> Ranking:
    rows = np.flatnonzero(mask)
    return Ranking(rows, scores[rows])


def _sentinels(state: PoolState, rows: Rows) -> Ranking:
    """Clusters in turn, the one whose last probe is oldest first; of each the attack not visited for longest."""
    at, cluster = seen_at(state)[rows], state.cluster[rows]
    order = np.lexsort((at, cluster))
    rows, at, cluster = rows[order], at[order], cluster[order]
    starts = np.flatnonzero(np.append(True, cluster[1:] != cluster[:-1])[: len(rows)])
    sizes = np.diff(starts, append=len(rows))
    turn = np.arange(len(rows)) - np.repeat(starts, sizes)
    latest = np.repeat(at[starts + sizes - 1], sizes)
    return Ranking(rows, -(turn * (int(at.max(initial=0)) + 2) + latest))
