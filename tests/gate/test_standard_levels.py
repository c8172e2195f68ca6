"""`standard` in known worlds, in seconds: wide bands around what `python -m benchmarks gate` measures."""

from __future__ import annotations

import pytest

from benchmarks.gate import MARGINS, POWER, WEEKS, creep, look, year


def test_the_same_model_is_hardly_promoted_in_a_year() -> None:
    """Four years at P(any) <= .05: two or more have a chance below .015 (the seeds are fixed)."""
    years = [year(number) for number in range(4)]
    assert sum(run["promoted"] > 0 for run in years) <= 1
    assert all(run["naive"]["lower wins, re-evaluated"] > 10 and run["calls"] == WEEKS for run in years)


@pytest.mark.parametrize("name", sorted(MARGINS))
def test_worse_by_exactly_a_margin_is_promoted_no_more_often_than_alpha(name: str) -> None:
    """40 looks at P <= .05: more than six has a chance below .005."""
    promoted = sum(look(f"margin {name}", number, MARGINS[name][0])["outcome"] == "PROMOTE" for number in range(40))
    assert promoted <= 6


def test_a_true_improvement_is_mostly_promoted() -> None:
    """24 looks at a power of about .91: fewer than 17 has a chance below .005."""
    assert sum(look("power", number, POWER["power"])["outcome"] == "PROMOTE" for number in range(24)) >= 17


def test_creep_stops_at_the_margin_against_the_reference() -> None:
    assert creep(0, champion_alone=False)["drift"] <= 2.8
    assert creep(0, champion_alone=True)["drift"] > 10.0
