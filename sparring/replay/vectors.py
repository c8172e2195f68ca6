"""Embeddings as the pool keeps them: int8, compared without rounding, so that a repeated step decides the same.

Each unit vector is scaled so that its largest component is ±127 and rounded; a cosine does not see the scale, so none
is kept. Products of such codes are whole numbers under 384 · 127² < 2²⁴ and therefore exact in float32, whatever the
order of the sum: the answer depends neither on the number of rows nor on the BLAS at hand. Against the float vectors
the cosine is off by less than 0.01 (tested).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Cosines = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

_CHUNK = 8192
_BLOCK = 1024


def encode(vectors: npt.NDArray[np.float32]) -> Codes:
    """Codes of shape (n, d) for vectors of shape (n, d). A vector of zeros stays zeros and is near to nothing."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    scaled = np.divide(127.0 * vectors, largest, out=np.zeros_like(vectors), where=largest > 0)
    codes: Codes = np.rint(scaled).astype(np.int8)
    return codes


def cosines(codes: Codes, others: Codes) -> Cosines:
    """Cosines of all pairs, shape (n, m); −1 where a vector is zero."""
    a, b = codes.astype(np.float32), others.astype(np.float32)
    bound = np.sqrt((a * a).sum(axis=1))[:, None] * np.sqrt((b * b).sum(axis=1))[None, :]
    found: Cosines = np.full(bound.shape, -1.0, dtype=np.float32)
    np.divide(a @ b.T, bound, out=found, where=bound > 0)
    return found


def nearest(codes: Codes, others: Codes, allowed: Mask) -> tuple[Numbers, Cosines]:
    """For each row of `codes` its nearest row among the `allowed` of `others`, and their cosine; −1 and −1 for none.

    Of equals the first. Memory stays bounded: `others` is taken in chunks and may be a memory-mapped file.
    """
    row, best = np.full(len(codes), -1, dtype=np.int64), np.full(len(codes), -1.0, dtype=np.float32)
    for start in range(0, len(others), _CHUNK):
        rows = start + np.flatnonzero(allowed[start : start + _CHUNK])
        if len(rows) and len(codes):
            found = cosines(codes, others[rows])
            at = found.argmax(axis=1)
            value = found[np.arange(len(codes)), at]
            row, best = np.where(value > best, rows[at], row), np.maximum(value, best)
    return row, best


def novel(codes: Codes, pooled: Cosines, threshold: float) -> Mask:
    """Rows that may enter: under the threshold to their nearest pooled one, and to every earlier row that may enter."""
    keep: Mask = pooled < np.float32(threshold)
    for start, found in blocks(codes):
        pairs = found >= np.float32(threshold)
        for row in range(start, start + len(pairs)):
            keep[row] &= not (pairs[row - start, :row] & keep[:row]).any()
    return keep


def blocks(codes: Codes) -> Iterator[tuple[int, Cosines]]:
    """Cosines of each row with those before it, in blocks of rows (begin, shape (block, ≥ row)): bounded memory."""
    for start in range(0, len(codes), _BLOCK):
        end = start + _BLOCK
        yield start, cosines(codes[start:end], codes[:end])
