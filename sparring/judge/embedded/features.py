"""MiniLM features of answers and prompts, and the two refusal models built on them.

Both models read only the answer, never the prompt, so that "harmful prompt" cannot leak into "refused".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sparring.embedding import DIMENSION, default_embedder
from sparring.judge.embedded import rules_gate, rules_reward
from sparring.judge.embedded.head import Head, Matrix, pool
from sparring.judge.text import opening, sentences

OPENING_WORDS = 45
"""Words of the answer that the reward judge embeds."""
RULE_WORDS = 60
"""Words of the answer that the reward judge's phrase rules read."""
SENTENCES = 4
"""Sentences of the answer that the gate judge reads."""
SENTENCE_WORDS = 30
EMBEDDING_SCALE = 5.0
"""Unit vectors have entries near 0.05; scaled so that one penalty suits them and the 0/1 rules."""
_CACHE_ROWS = 4096
_MAX_CHARS = 600


class TextEmbedder(Protocol):
    """What the judges need of an embedder: texts to unit vectors of shape (n, 384)."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Row i belongs to text i."""
        ...


class CachedEmbedder:
    """An embedder that remembers the last few thousand texts: prompts come again for every answer and model."""

    def __init__(self, inner: TextEmbedder | None = None) -> None:
        self._inner: TextEmbedder = default_embedder() if inner is None else inner
        self._known: OrderedDict[str, Matrix] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape (len(texts), 384), float64."""
        keys = [text[:_MAX_CHARS] for text in texts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        fresh = dict(zip(missing, self._inner.embed(missing).astype(np.float64), strict=True)) if missing else {}
        rows = [fresh[key] if key in fresh else self._known[key] for key in keys]
        self._known.update(fresh)
        while len(self._known) > _CACHE_ROWS:
            self._known.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, DIMENSION))


class RefusalModel(Protocol):
    """How one judge turns answers into refusal logits and into the vectors that topic is measured with."""

    head: Head

    def read(self, answers: Sequence[str]) -> tuple[Matrix, Matrix]:
        """(refusal logits of shape (n,), answer vectors of shape (n, 384))."""
        ...


def reward_features(answers: Sequence[str], embed: CachedEmbedder) -> tuple[Matrix, Matrix]:
    """(features (n, 384 + rules), opening vectors (n, 384)) of the reward judge: one vector for the whole opening."""
    vectors = embed([opening(answer, OPENING_WORDS) for answer in answers])
    rules = np.array([rules_reward.features(opening(answer, RULE_WORDS)) for answer in answers])
    return np.hstack([EMBEDDING_SCALE * vectors, rules.reshape(len(answers), -1)]), vectors


def gate_features(answers: Sequence[str], embed: CachedEmbedder) -> tuple[Matrix, npt.NDArray[np.int64], Matrix]:
    """(features (s, d), bag of each row (s,), answer vectors (n, 384)) of the gate judge: one row a sentence.

    d = 384 + rules + sentence position (one-hot).
    """
    texts: list[str] = []
    rows: list[list[float]] = []
    bags: list[int] = []
    for bag, answer in enumerate(answers):
        for position, sentence in enumerate(sentences(answer, SENTENCES) or [answer]):
            short = opening(sentence, SENTENCE_WORDS)
            texts.append(short)
            rows.append([*rules_gate.features(short[:_MAX_CHARS]), *(float(position == k) for k in range(SENTENCES))])
            bags.append(bag)
    vectors = embed(texts)
    index = np.array(bags, dtype=np.int64)
    summed = np.zeros((len(answers), DIMENSION))
    np.add.at(summed, index, vectors)
    means = summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)
    return np.hstack([EMBEDDING_SCALE * vectors, np.array(rows).reshape(len(texts), -1)]), index, means


class RewardRefusal:
    """Refusal from the opening as a whole and a list of phrases."""

    def __init__(self, head: Head, embed: CachedEmbedder) -> None:
        self.head = head
        self._embed = embed

    def read(self, answers: Sequence[str]) -> tuple[Matrix, Matrix]:
        """See `RefusalModel.read`."""
        x, vectors = reward_features(answers, self._embed)
        return self.head.logits(x), vectors


class GateRefusal:
    """Refusal sentence by sentence: an answer refuses as far as one of its first sentences does."""

    def __init__(self, head: Head, embed: CachedEmbedder) -> None:
        self.head = head
        self._embed = embed

    def read(self, answers: Sequence[str]) -> tuple[Matrix, Matrix]:
        """See `RefusalModel.read`."""
        x, bags, vectors = gate_features(answers, self._embed)
        return pool(self.head.logits(x), bags, len(answers)), vectors
