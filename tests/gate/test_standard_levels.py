"""`standard` in known worlds, in seconds: wide bands around what `python -m benchmarks gate` measures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._gate_worlds import harmful
from benchmarks.gate import MARGINS, POWER, SAME, SEED, STANDARD, at_margin, creep, look, year
from benchmarks.gate import _decided as decided
from benchmarks.gate import _may_be_better as may_be_better


def test_the_same_model_is_hardly_promoted_in_a_year() -> None:
    """40 years at P(any) <= .05: more than six has a chance below .005."""
    years = [year(number, in_full=False) for number in range(40)]
    assert sum(run["promoted"] > 0 for run in years) <= 6
    assert all(run["naive"]["lower wins, re-evaluated"] > 10 for run in years)


def test_the_test_computed_first_decides_as_decide_does() -> None:
    for week in range(12):
        harm = harmful(np.random.default_rng([SEED, 0, week, 0]), SAME)
        decision = decided(np.random.default_rng([SEED, 0, week, 1]), harm, 0.0)
        if not may_be_better(harm, STANDARD.alpha_per_look):
            assert decision.endpoints[0].status != "pass" and decision.outcome != "PROMOTE"


@pytest.mark.parametrize("name", sorted(MARGINS))
def test_worse_by_exactly_a_margin_is_promoted_no_more_often_than_alpha(name: str) -> None:
    """60 looks at P <= .05, after those that call `decide` whatever comes: more than eight has a chance below .01."""
    promoted = sum(at_margin(name, number)["outcome"] == "PROMOTE" for number in range(40, 100))
    assert promoted <= 8


def test_a_true_improvement_is_mostly_promoted() -> None:
    """24 looks at a power of about .91: fewer than 17 has a chance below .005."""
    assert sum(look("power", number, POWER["power"])["outcome"] == "PROMOTE" for number in range(24)) >= 17


def test_creep_stops_at_the_margin_against_the_reference() -> None:
    assert creep(0, champion_alone=False)["drift"] <= 2.8
    assert creep(0, champion_alone=True)["drift"] > 10.0
