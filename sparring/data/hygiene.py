"""Drops seeds that say the same twice, and seeds that also stand in an evaluation suite. Pure functions.

Texts are compared in normal form (`sparring.data.text`), by shared runs of words, and by cosine of unit vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from sparring.data.text import normalise, words
from sparring.embedding import Vectors

Reason = Literal["exact duplicate", "near duplicate", "exact in suite", "n-gram in suite", "cosine to suite"]

_BLOCK: Final = 512
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # odd: a product with it loses nothing modulo 2^64


@dataclass(frozen=True)
class Dropped:
    """Row `row` is dropped because of `other`: an earlier row, or an index into the suites' texts.

    `similarity`: the cosine for the two cosine reasons, else 1.
    """

    row: int
    other: int
    reason: Reason
    similarity: float = 1.0


def duplicates(texts: Sequence[str], labels: Sequence[str], vectors: Vectors, threshold: float) -> list[Dropped]:
    """Rows that repeat an earlier one: the same normal form, or the same label and a cosine of `threshold` or more.

    A harmful and a benign seed may be near each other (contrast pairs teach the difference), but not the same text.
    `vectors` are unit rows, shape (n, d). Rows are taken in order; the first of its kind is kept. Sorted by row.
    """
    found = list(_exact_duplicates(texts))
    gone = {drop.row for drop in found}
    for label in dict.fromkeys(labels):
        rows = [row for row in range(len(texts)) if labels[row] == label and row not in gone]
        found += _near_duplicates(np.array(rows, dtype=np.int64), vectors, threshold)
    return sorted(found, key=lambda drop: drop.row)


def decontaminate(
    texts: Sequence[str],
    vectors: Vectors,
    suite: Sequence[str],
    suite_vectors: Vectors,
    *,
    ngram: int,
    cosine: float,
) -> list[Dropped]:
    """Rows that resemble a suite's text: the same normal form, `ngram` shared consecutive words, or the cosine.

    One entry a row, the first reason that holds, in this order; `other` is an index into `suite`. By row.
    """
    found: dict[int, Dropped] = {}
    known = {normalise(text): index for index, text in reversed(list(enumerate(suite)))}
    for row, text in enumerate(texts):
        if (other := known.get(normalise(text))) is not None:
            found[row] = Dropped(row, other, "exact in suite")
    for row, other in shared_ngrams(texts, suite, ngram).items():
        found.setdefault(row, Dropped(row, other, "n-gram in suite"))
    others, similarities = nearest(vectors, suite_vectors)
    for row in np.flatnonzero(similarities >= cosine).tolist():
        found.setdefault(row, Dropped(row, int(others[row]), "cosine to suite", float(similarities[row])))
    return [found[row] for row in sorted(found)]


def nearest(vectors: Vectors, others: Vectors) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each row of `vectors` the index of its nearest row in `others` and their cosine; −1 and −1 without others."""
    index = np.full(len(vectors), -1, dtype=np.int64)
    cosine = np.full(len(vectors), -1.0, dtype=np.float32)
    if not len(others):
        return index, cosine
    for start in range(0, len(vectors), _BLOCK):  # blocks: 2,000 × 5,000 cosines need not be in memory at once
        block = vectors[start : start + _BLOCK] @ others.T
        index[start : start + _BLOCK] = block.argmax(axis=1)
        cosine[start : start + _BLOCK] = block.max(axis=1)
    return index, cosine


def shared_ngrams(texts: Sequence[str], suite: Sequence[str], n: int) -> Mapping[int, int]:
    """Row of `texts` → index of a suite text that shares `n` consecutive words with it; other rows are left out."""
    vocabulary: dict[str, int] = {}
    suite_hashes, suite_rows = _ngrams(suite, n, vocabulary)
    hashes, rows = _ngrams(texts, n, vocabulary)
    order = np.argsort(suite_hashes, kind="stable")
    suite_hashes, suite_rows = suite_hashes[order], suite_rows[order]
    at = np.searchsorted(suite_hashes, hashes)
    inside = at < len(suite_hashes)
    hit = np.zeros(len(hashes), dtype=np.bool_)
    hit[inside] = suite_hashes[at[inside]] == hashes[inside]
    found: dict[int, int] = {}
    for row, other in zip(rows[hit].tolist(), suite_rows[at[hit]].tolist(), strict=True):
        found.setdefault(row, other)
    return found


def _exact_duplicates(texts: Sequence[str]) -> Iterator[Dropped]:
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        other = first.setdefault(normalise(text), row)
        if other != row:
            yield Dropped(row, other, "exact duplicate")


def _near_duplicates(rows: npt.NDArray[np.int64], vectors: Vectors, threshold: float) -> Iterator[Dropped]:
    """Greedy in order: a block is compared with all rows kept before it at once, then within itself."""
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        index, cosine = nearest(vectors[block], vectors[kept])
        far = cosine < threshold
        for row, other, value in zip(block[~far], kept[index[~far]], cosine[~far], strict=True):
            yield Dropped(int(row), int(other), "near duplicate", float(value))
        survivors, drops = _within(block[far], vectors, threshold)
        yield from drops
        kept = np.concatenate([kept, survivors])


def _within(
    rows: npt.NDArray[np.int64], vectors: Vectors, threshold: float
) -> tuple[npt.NDArray[np.int64], list[Dropped]]:
    cosines = vectors[rows] @ vectors[rows].T
    alive = np.ones(len(rows), dtype=np.bool_)
    drops = []
    for i in range(len(rows)):
        if not alive[i]:
            continue
        for j in (np.flatnonzero((cosines[i, i + 1 :] >= threshold) & alive[i + 1 :]) + i + 1).tolist():
            alive[j] = False
            drops.append(Dropped(int(rows[j]), int(rows[i]), "near duplicate", float(cosines[i, j])))
    return rows[alive], drops


def _ngrams(
    texts: Sequence[str], n: int, vocabulary: dict[str, int]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Hashes of all runs of `n` words, and the row each comes from. Word numbers are added to `vocabulary`.

    A run's hash is Σ (w_i + 1)·m^(n−i) modulo 2^64: two different runs out of 10^6 × 10^6 agree with a chance of
    about 10^−7, and then one seed is dropped needlessly.
    """
    split = [words(text) for text in texts]
    ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for row in split for word in row], dtype=np.uint64)
    owner = np.repeat(np.arange(len(split), dtype=np.int64), [len(row) for row in split])
    count = len(ids) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    hashes = np.zeros(count, dtype=np.uint64)
    for shift in range(n):
        hashes = hashes * _MULTIPLIER + (ids[shift : shift + count] + np.uint64(1))
    inside = owner[:count] == owner[n - 1 :]
    return hashes[inside], owner[:count][inside]
