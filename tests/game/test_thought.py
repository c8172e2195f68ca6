"""The form of a thought: fails closed, in linear time, as a slow reference says."""

from __future__ import annotations

import doctest
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparring.game.thought
from sparring.game.thought import ANSWER, CLOSE, END, OPEN, TAGS, Thought, compose, parse, shown

PIECES = st.lists(st.sampled_from([*TAGS, " ", "\n", "a", "think", "<", "</", "b c", "\u2003"]), max_size=9)
WORDS = st.text(min_size=1, max_size=30).map(str.strip).filter(lambda t: t and not any(tag in t for tag in TAGS))


def reference(text: str) -> Thought | None:
    """The rule letter by letter, by one expression that backtracks as it likes."""
    whole = re.fullmatch(r"(.*)</think>(.*)<answer>(.*)</answer>(.*)", text, re.DOTALL)
    if not whole or any(tag in part for part in whole.groups() for tag in TAGS):
        return None
    thought, between, answer, behind = whole.groups()
    if between.strip() or behind.strip() or not thought.strip() or not answer.strip():
        return None
    return Thought(thought.strip(), answer.strip())


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(sparring.game.thought).failed == 0


@given(PIECES.map("".join))
def test_it_is_the_slow_reference(text: str) -> None:
    assert parse(text) == reference(text)


@given(WORDS, WORDS)
def test_what_is_composed_is_read_back(thought: str, answer: str) -> None:
    assert parse(compose(thought, answer)) == Thought(thought, answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no tags at all",
        f"{CLOSE}{ANSWER}b{END}",
        f"a{CLOSE}{ANSWER} {END}",
        f"a{CLOSE}{ANSWER}b",
        f"a{CLOSE}b{END}",
        f"a{ANSWER}b{END}{CLOSE}",
        f"a{CLOSE} so: {ANSWER}b{END}",
        f"a{CLOSE}{ANSWER}b{END} and more",
        f"a{CLOSE}{CLOSE}{ANSWER}b{END}",
        f"a{CLOSE}{ANSWER}{ANSWER}b{END}",
        f"a{CLOSE}{ANSWER}b{END}{END}",
        f"{OPEN}a{CLOSE}{ANSWER}b{END}",
        f"a{CLOSE}{ANSWER}b{OPEN}{END}",
        f"a{CLOSE}{END}b{ANSWER}",
    ],
)
def test_every_violation_fails_closed(text: str) -> None:
    assert parse(text) is None
    assert list(shown(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 1_000_000,
        f"a{CLOSE}" + "\n" * 1_000_000 + f"{ANSWER}b{END}",
        CLOSE * 125_000,
        f"a{CLOSE}{ANSWER}" + "<" * 1_000_000,
        f"a{CLOSE}{ANSWER}b{END}" + " \n" * 500_000,
    ],
    ids=["new lines", "between", "closings", "openings", "behind"],
)
def test_a_megabyte_takes_linear_time(text: str) -> None:
    began = time.process_time()
    parse(text)
    assert time.process_time() - began < 1


@given(WORDS, WORDS, st.integers(1, 5))
def test_a_stream_shows_the_answer_and_nothing_of_the_thought(thought: str, answer: str, size: int) -> None:
    text = compose(f"SECRET {thought}", answer)
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(shown(chunks)) == answer
    for cut in range(len(chunks)):
        assert list(shown(chunks[:cut])) == []
