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
from sparring.judge.embedded.head import Head, Matrix
from sparring.judge.text import opening, sentences

OPENING_WORDS = 32
"""Words of the answer that the reward judge embeds."""
RULE_WORDS = 60
"""Words of the answer that the reward judge's phrase rules read."""
SENTENCES = 4
"""Sentences of the answer that the gate judge reads."""
SENTENCE_WORDS = 25
"""Words that the gate judge embeds of the first sentence, and of the next two together."""
RULE_SENTENCE_WORDS = 30
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


def gate_features(answers: Sequence[str], embed: CachedEmbedder) -> tuple[Matrix, Matrix]:
    """(features (n, 768 + 3 · rules), answer vectors (n, 384)) of the gate judge.

    The first sentence and the two after it have a vector and rules of their own (an answer of one sentence counts it
    twice, so that length tells nothing); the rules' mean over the first `SENTENCES` sentences stands beside them.
    """
    parts = [sentences(answer, SENTENCES) or [answer] for answer in answers]
    first = embed([opening(part[0], SENTENCE_WORDS) for part in parts])
    second = embed([opening(" ".join(part[1:3]) or part[0], SENTENCE_WORDS) for part in parts])
    summed = first + second
    means = summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)
    rules = np.array([_gate_rules(part) for part in parts]).reshape(len(parts), -1)
    return np.hstack([EMBEDDING_SCALE * first, EMBEDDING_SCALE * second, rules]), means


def _gate_rules(part: Sequence[str]) -> Matrix:
    """The grammar's facts of the first sentence, of either of the next two, and their mean over all."""
    facts = np.array([rules_gate.features(opening(s, RULE_SENTENCE_WORDS)[:_MAX_CHARS]) for s in part])
    later = facts[1:3].max(axis=0) if len(facts) > 1 else facts[0]
    return np.concatenate([facts[0], later, facts.mean(axis=0)])


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
    """Refusal from the first sentence, the next two, and a small grammar over each."""

    def __init__(self, head: Head, embed: CachedEmbedder) -> None:
        self.head = head
        self._embed = embed

    def read(self, answers: Sequence[str]) -> tuple[Matrix, Matrix]:
        """See `RefusalModel.read`."""
        x, vectors = gate_features(answers, self._embed)
        return self.head.logits(x), vectors
