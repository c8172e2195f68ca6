"""The interval of `benchmarks learning`: prompts are resampled, each with all its answers and seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import bootstrap

from benchmarks.learning import GAP, gap_change

DRAWS, PROMPTS, SEEDS = 3, (40, 55), 2
Flags = dict[str, npt.NDArray[np.float64]]


def flags(rng: np.random.Generator, chances: tuple[float, float]) -> list[Flags]:
    """Refusals of each seed: all prompts once, then all again."""
    return [
        {s: (rng.random(DRAWS * n) < p).astype(float) for s, n, p in zip(GAP, PROMPTS, chances, strict=True)}
        for _ in range(SEEDS)
    ]


def by_prompt(sides: list[Flags], suite: str) -> npt.NDArray[np.float64]:
    """A prompt's share of refusals over draws and seeds, counted one by one."""
    count = len(sides[0][suite]) // DRAWS
    return np.array([np.mean([f[suite][i + d * count] for f in sides for d in range(DRAWS)]) for i in range(count)])


def test_the_change_and_its_interval_are_scipys() -> None:
    rng = np.random.default_rng(1)
    warm, after = flags(rng, (0.7, 0.4)), flags(rng, (0.8, 0.3))
    harm, benign = (by_prompt(after, s) - by_prompt(warm, s) for s in GAP)
    change, low, high = gap_change(warm, after, DRAWS)
    theirs = bootstrap(
        (harm, benign), lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=20_000, method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert change == pytest.approx(harm.mean() - benign.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_every_answer_changed_alike_leaves_no_doubt() -> None:
    never = [{s: np.zeros(DRAWS * n) for s, n in zip(GAP, PROMPTS, strict=True)} for _ in range(SEEDS)]
    always = [{GAP[0]: np.ones(DRAWS * PROMPTS[0]), GAP[1]: np.zeros(DRAWS * PROMPTS[1])} for _ in range(SEEDS)]
    assert gap_change(never, always, DRAWS) == [1.0, 1.0, 1.0]
    assert gap_change(never, never, DRAWS) == [0.0, 0.0, 0.0]


def test_draws_of_a_prompt_count_as_one() -> None:
    """Tripling the answers must not make the interval as narrow as three times the prompts would."""
    rng = np.random.default_rng(3)
    once = [{s: (rng.random(n) < 0.5).astype(float) for s, n in zip(GAP, PROMPTS, strict=True)}]
    nothing = [{s: np.zeros(n) for s, n in zip(GAP, PROMPTS, strict=True)}]
    thrice, none = ([{s: np.tile(f[s], DRAWS) for s in GAP} for f in side] for side in (once, nothing))
    assert gap_change(none, thrice, DRAWS) == gap_change(nothing, once, 1)
