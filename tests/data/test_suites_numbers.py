"""The final number of an answer: GSM8K's rule, and linear time on hostile text."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.data.numbers import canonical, final_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5 + 5 = <<5+5=10>>10\n#### 10", "10"),
        ("#### -1,234.50.", "-1234.5"),
        ("#### $18 and then 3", "18"),
        ("#### nothing here\n7 of 8", "8"),
        ("#### 1\n#### 2", "1"),
        ("It costs $5.", "5"),
        ("between 10-15", "15"),
        ("x = -3", "-3"),
        ("a loss of -$3.", "-3"),
        ("1, 2, 3", "3"),
        ("1,234,567 people", "1234567"),
        ("007", "7"),
        (".50", "0.5"),
        ("no number", None),
        ("....$$--,,", None),
        ("", None),
    ],
)
def test_examples(text: str, number: str | None) -> None:
    assert final_number(text) == number


values = st.decimals(-(10**9), 10**9, places=2, allow_nan=False)


@settings(deadline=None)
@given(
    values,
    st.sampled_from(["so it is {}", "#### {}", "we get {}.", "is ${}!", "({})"]),
    st.text("abc .,\n", max_size=40),
)
def test_a_number_is_found_as_it_was_written(value: Decimal, frame: str, before: str) -> None:
    found = final_number(before + "\n" + frame.format(f"{value:,}"))
    assert found is not None and Decimal(found) == value


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_gives_a_canonical_number_or_none(text: str) -> None:
    found = final_number(text)
    assert found is None or (canonical(found) == found and Decimal(found).is_finite())


@pytest.mark.parametrize("piece", ["9", "9,", "1,111", ",999", "-", "$", ".", "#", "####\n", "0.", "-$", "\u2212$-"])
def test_time_grows_with_the_length_only(piece: str) -> None:
    started = time.process_time()
    final_number(piece * (400_000 // len(piece)))
    assert time.process_time() - started < 5  # a quadratic pattern would take hours
