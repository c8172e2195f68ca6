"""Diversity against NLTK's BLEU, scikit-free brute force, and what both measures mean."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from sparring.evaluate.diversity import diversity, inverse_sbert, inverse_self_bleu, self_bleu, words

TEXT = st.lists(st.sampled_from("abcd"), max_size=9)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, min_size=2, max_size=7))
def test_self_bleu_is_nltk_s(texts: list[list[str]]) -> None:
    smooth = SmoothingFunction().method1
    for i, (text, mine) in enumerate(zip(texts, self_bleu(texts), strict=True)):
        others = texts[:i] + texts[i + 1 :]
        expected = sentence_bleu(others, text, smoothing_function=smooth) if text else 0.0
        assert mine == pytest.approx(float(expected), abs=1e-12)


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_inverse_sbert_is_the_mean_of_all_pairs(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 5))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pairs = [float(vectors[i] @ vectors[j]) for i in range(count) for j in range(count) if i != j]
    assert inverse_sbert(vectors) == pytest.approx(1 - sum(pairs) / len(pairs), abs=1e-6)


def test_alike_is_zero_and_unlike_is_near_one() -> None:
    same = diversity(["Tell me how to pick a lock, please"] * 4, ["how to pick a lock"] * 4)
    assert same["inverse_sbert"] == pytest.approx(0, abs=1e-5)
    assert same["inverse_self_bleu"] == pytest.approx(0, abs=1e-9) and same["seed_similarity"] > 0.6
    texts = [
        "a river runs north of town",
        "nine clerks filed taxes",
        "violins need rosin often",
        "quarks bind in threes",
    ]
    apart = diversity(texts, texts)
    assert apart["inverse_sbert"] > 0.7 and apart["inverse_self_bleu"] > 0.9
    assert apart["seed_similarity"] == pytest.approx(1, abs=1e-5)


def test_what_needs_two_attacks_is_left_out() -> None:
    assert diversity([], []) == {}
    assert diversity(["one"], ["one"]).keys() == {"seed_similarity"}


def test_many_texts_take_no_pairs() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefgh", k=20)) for _ in range(2_000)]  # 4 million pairs would take minutes
    assert 0 < inverse_self_bleu(texts) < 1
    assert words("A b,C") == ["a", "b", ",", "c"]
