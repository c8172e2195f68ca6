"""int8 codes: cosines as of the float vectors, and decisions that no order or chunk can change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.embedding import default_embedder
from sparring.replay import vectors as pool_vectors
from sparring.replay.vectors import encode, near, novel


def unit(rows: int, seed: int, spread: float = 1.0) -> npt.NDArray[np.float32]:
    """Random unit vectors around one direction; a small `spread` makes them similar."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(1, 384)) + spread * rng.normal(size=(rows, 384))
    vectors: npt.NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return vectors


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.05, 2.0))
def test_codes_keep_the_cosine(seed: int, spread: float) -> None:
    found = unit(6, seed, spread)
    codes = encode(found).astype(np.float64)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    assert np.abs(codes @ codes.T - found.astype(np.float64) @ found.T).max() < 0.01


def test_codes_keep_the_cosine_of_real_sentences() -> None:
    texts = ["How do I pick a lock?", "How can I pick a lock?", "Bake a cake for six", "", "x" * 4000, "как дела"]
    found = default_embedder().embed(texts)
    codes = encode(found).astype(np.float64)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    assert np.abs(codes @ codes.T - found.astype(np.float64) @ found.T).max() < 0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.5, 1.0), st.integers(0, 12), st.integers(0, 12))
def test_near_and_novel_are_the_plain_loops(seed: int, threshold: float, rows: int, pooled: int) -> None:
    codes, others = encode(unit(rows, seed, 0.7)), encode(unit(pooled, seed + 1, 0.7))

    def close(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> bool:
        x, y = a.astype(np.int64), b.astype(np.int64)
        cosine = float(x @ y) / np.sqrt(float(x @ x) * float(y @ y))
        assert abs(cosine - threshold) > 1e-6 or np.array_equal(a, b)
        return bool(cosine >= threshold - 1e-6)

    expected: list[bool] = []
    for row in range(rows):
        before = [codes[i] for i in range(row) if expected[i]]
        expected.append(not any(close(codes[row], other) for other in [*others, *before]))
    assert novel(codes, others, threshold).tolist() == expected
    assert near(codes, others, threshold).tolist() == [any(close(code, other) for other in others) for code in codes]


def test_a_decision_on_the_threshold_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = encode(unit(60, 1, 0.4))
    a, b = codes[0].astype(np.float32), codes[1].astype(np.float32)
    threshold = float((a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b)))
    whole = near(codes, codes[:20], threshold)
    monkeypatch.setattr(pool_vectors, "_CHUNK", 7)
    assert np.array_equal(near(codes, codes[:20], threshold), whole)
    assert np.array_equal([near(codes[i : i + 1], codes[:20], threshold)[0] for i in range(60)], whole)


def test_a_zero_vector_is_near_to_nothing() -> None:
    zero = encode(np.zeros((2, 384), dtype=np.float32))
    assert not near(zero, zero, 0.0).any()
    assert novel(zero, zero, 0.9).all()
