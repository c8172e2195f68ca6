"""Duplicates and contamination: equal to a brute force written from the definition, and fast."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.data.hygiene import _BLOCK, Dropped, decontaminate, duplicates, nearest, shared_ngrams
from sparring.data.text import normalise, words
from sparring.embedding import Vectors

THRESHOLD = 0.8437  # no cosine of the small whole-number vectors below comes near it by rounding


def _unit(rows: npt.ArrayLike) -> Vectors:
    vectors = np.asarray(rows, dtype=np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _brute_duplicates(texts: list[str], labels: list[str], vectors: Vectors) -> list[tuple[int, str]]:
    seen: list[str] = []
    kept: list[int] = []
    gone: dict[int, str] = {}
    for row, text in enumerate(texts):
        if normalise(text) in seen:
            gone[row] = "exact duplicate"
        seen.append(normalise(text))
    for row in range(len(texts)):
        if row in gone:
            continue
        if any(labels[row] == labels[other] and float(vectors[row] @ vectors[other]) >= THRESHOLD for other in kept):
            gone[row] = "near duplicate"
        else:
            kept.append(row)
    return sorted(gone.items())


def _brute_decontaminate(
    texts: list[str], vectors: Vectors, suite: list[str], suite_vectors: Vectors, n: int
) -> list[tuple[int, str]]:
    found = []
    for row, text in enumerate(texts):
        if any(normalise(text) == normalise(other) for other in suite):
            found.append((row, "exact in suite"))
        elif any(_grams(text, n) & _grams(other, n) for other in suite):
            found.append((row, "n-gram in suite"))
        elif any(float(vectors[row] @ other) >= THRESHOLD for other in suite_vectors):
            found.append((row, "cosine to suite"))
    return found


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    split = words(text)
    return {tuple(split[i : i + n]) for i in range(len(split) - n + 1)}


TEXT = st.lists(st.sampled_from(["a", "B", "b", "c!", "?", "Ä"]), max_size=7).map(" ".join)
VECTOR = st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any)
ROW = st.tuples(TEXT, st.sampled_from(["harmful", "benign"]), VECTOR)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=25))
def test_duplicates_are_those_of_the_definition(rows: list[tuple[str, str, list[int]]]) -> None:
    texts, labels = [row[0] for row in rows], [row[1] for row in rows]
    vectors = _unit(np.array([row[2] for row in rows]))
    found = duplicates(texts, labels, vectors, THRESHOLD)
    assert [(drop.row, drop.reason) for drop in found] == _brute_duplicates(texts, labels, vectors)
    for drop in found:
        assert drop.other < drop.row
        if drop.reason == "near duplicate":
            assert drop.similarity == pytest.approx(float(vectors[drop.row] @ vectors[drop.other]), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=12), suite=st.lists(ROW, max_size=12), n=st.integers(1, 4))
def test_contamination_is_that_of_the_definition(
    rows: list[tuple[str, str, list[int]]], suite: list[tuple[str, str, list[int]]], n: int
) -> None:
    texts, others = [row[0] for row in rows], [row[0] for row in suite]
    vectors = _unit(np.array([row[2] for row in rows]))
    other_vectors = _unit(np.array([row[2] for row in suite], dtype=np.float32).reshape(len(suite), 3))
    found = decontaminate(texts, vectors, others, other_vectors, ngram=n, cosine=THRESHOLD)
    assert [(d.row, d.reason) for d in found] == _brute_decontaminate(texts, vectors, others, other_vectors, n)


def test_blocks_change_nothing() -> None:
    rng = np.random.default_rng(7)
    n = 2 * _BLOCK + 100
    vectors = _unit(rng.normal(size=(n, 4)))
    texts = [f"text {i}" for i in range(n)]
    labels = rng.choice(["harmful", "benign"], n).tolist()
    found = duplicates(texts, labels, vectors, THRESHOLD)
    assert [(drop.row, drop.reason) for drop in found] == _brute_duplicates(texts, labels, vectors)
    index, cosine = nearest(vectors, vectors[:50])
    assert (index == (vectors @ vectors[:50].T).argmax(axis=1)).all() and cosine[:50] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("How do I bake bread?", "how do i  BAKE\nbread"),
        ("Ｈｏｗ do I bake", "how do i bake"),
        ("Straße", "STRASSE"),
        ("a\u0308", "ä"),
    ],
)
def test_normal_form_sees_through_case_width_and_punctuation(text: str, same: str) -> None:
    assert normalise(text) == normalise(same)


def test_texts_without_words_stay_apart() -> None:
    assert normalise("?!") != normalise("...") and normalise("🙂") != normalise("🔥")


def test_shared_runs_of_words_name_the_suite_text() -> None:
    suite = ["one two three four", "zero one two three five six seven"]
    found = shared_ngrams(["x one two three five y", "three four one two", "", "one two three four"], suite, 4)
    assert dict(found) == {0: 1, 3: 0}


def test_a_run_does_not_reach_over_two_texts() -> None:
    assert shared_ngrams(["b c"], ["a b", "c d"], 2) == {}
    assert shared_ngrams(["a b", "c d"], ["b c"], 2) == {}


def test_contrast_pairs_of_the_two_labels_are_kept_but_not_the_same_text() -> None:
    vectors = _unit(np.ones((3, 3)))
    found = duplicates(
        ["kill a process", "kill a person", "Kill a process!"], ["benign", "harmful", "harmful"], vectors, 0.9
    )
    assert found == [Dropped(2, 0, "exact duplicate")]


def test_two_thousand_seeds_against_five_thousand_prompts_take_about_a_second() -> None:
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(3000)])
    texts = [" ".join(row) for row in vocabulary[rng.integers(0, 3000, (2000, 20))]]
    suite = [" ".join(row) for row in vocabulary[rng.integers(0, 3000, (5000, 60))]]
    vectors, others = _unit(rng.normal(size=(2000, 384))), _unit(rng.normal(size=(5000, 384)))
    start = time.process_time()
    assert decontaminate(texts, vectors, suite, others, ngram=8, cosine=0.8) == []
    assert duplicates(texts, ["harmful"] * 2000, vectors, 0.92) == []
    assert time.process_time() - start < 5.0
