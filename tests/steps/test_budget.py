"""A round's budget: counted over killed tries, stopped between steps, and the round goes on with what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.config.budget import BudgetConfig
from sparring.errors import CorruptError
from sparring.steps.budget import Meter
from sparring.store.local import LocalStore

KEY = "rounds/000001/selfplay/spent.json"
Steps = list[tuple[int, float]]
STEPS = st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 10**5)), max_size=6)


class Clock:
    """Shows what it is set to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@given(tries=st.lists(STEPS, min_size=1, max_size=4), idle=st.floats(0, 10**6), gpus=st.integers(0, 8))
def test_all_tries_count_and_the_time_between_them_does_not(
    tmp_path_factory: pytest.TempPathFactory, tries: list[Steps], idle: float, gpus: int
) -> None:
    store, clock, budget = LocalStore(tmp_path_factory.mktemp("store")), Clock(), BudgetConfig(tokens=10**12)
    for steps in tries:
        meter = Meter(budget, store, KEY, gpus, clock)
        for tokens, seconds in steps:
            clock.now += seconds
            meter.step(tokens)
        clock.now += idle
    spent = Meter(budget, store, KEY, gpus, clock).spent
    hours = sum(seconds for steps in tries for _, seconds in steps) / 3600
    assert spent.tokens == sum(tokens for steps in tries for tokens, _ in steps)
    assert spent.hours == pytest.approx(hours, abs=1e-6)
    assert spent.gpu_hours == pytest.approx(hours * gpus, abs=1e-6)


@pytest.mark.parametrize(
    ("budget", "stop", "said"),
    [
        (BudgetConfig(tokens=250), 3, "budget.tokens is used up (300 of 250)"),
        (BudgetConfig(tokens=300), 3, "budget.tokens is used up (300 of 300)"),
        (BudgetConfig(hours=1.5), 2, "budget.hours is used up (2 of 1.5)"),
        (BudgetConfig(gpu_hours=7.0), 2, "budget.gpu_hours is used up (8 of 7)"),
        (BudgetConfig(tokens=10_000, gpu_hours=4.0), 1, "budget.gpu_hours is used up (4 of 4)"),
    ],
)
def test_the_step_that_reaches_a_limit_is_the_last(tmp_path: Path, budget: BudgetConfig, stop: int, said: str) -> None:
    clock = Clock()
    meter, steps = Meter(budget, LocalStore(tmp_path), KEY, 4, clock), 0
    while not meter.over():
        clock.now += 3600
        meter.step(100)
        steps += 1
    assert (steps, meter.over()) == (stop, said)


def test_without_a_limit_nothing_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    meter = Meter(BudgetConfig(), store, KEY, 1)
    meter.step(10**9)
    assert meter.over() == "" and not store.exists(KEY)


def test_a_raised_limit_goes_on(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    Meter(BudgetConfig(tokens=5), store, KEY, 0).step(5)
    over = [Meter(BudgetConfig(tokens=limit), store, KEY, 0).over() for limit in (5, 6)]
    assert [bool(said) for said in over] == [True, False]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"tokens": -1}', b'{"schema_version": 2}'])
def test_a_broken_count_is_said(tmp_path: Path, data: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put(KEY, data)
    with pytest.raises(CorruptError, match=r"spent\.json"):
        Meter(BudgetConfig(tokens=1), store, KEY, 0)


@pytest.mark.parametrize("name", ["tokens", "gpu_hours", "hours"])
def test_a_limit_is_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match="greater than"):
        BudgetConfig.model_validate({name: 0})
