"""Length and repetition of a model's answers: the first signs of a policy that falls apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from sparring.data.text import words

_RUN = 4


@dataclass(frozen=True)
class Texts:
    """The answers of one slice: how many, mean length in tokens, share that reached the token limit, repetition."""

    answers: int
    tokens: float
    at_limit: float
    repetition: float


def repetition(text: str) -> float:
    """Share of runs of four words that stood before in the text, in [0, 1): seq-rep-4 of arXiv 1908.04319.

    >>> repetition("no no no no no no")
    0.6666666666666667
    """
    said = words(text)
    runs = [tuple(said[i : i + _RUN]) for i in range(len(said) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def texts_of(answers: pa.Table, limits: Mapping[str, int]) -> dict[str, Texts]:
    """By kind/slice, for slices with sampled or greedy answers. `limits`: most tokens by kind."""
    groups: dict[str, list[tuple[str, int, int]]] = {}
    columns = (answers[name].to_pylist() for name in ("kind", "slice", "answer", "tokens"))
    for kind, part, answer, tokens in zip(*columns, strict=True):
        if kind != "capability" or tokens:
            groups.setdefault(f"{kind}/{part}", []).append((answer, tokens, limits[kind]))
    return {name: _texts(rows) for name, rows in groups.items()}


def _texts(rows: list[tuple[str, int, int]]) -> Texts:
    return Texts(
        answers=len(rows),
        tokens=sum(tokens for _, tokens, _ in rows) / len(rows),
        at_limit=sum(tokens >= limit for _, tokens, limit in rows) / len(rows),
        repetition=sum(repetition(answer) for answer, _, _ in rows) / len(rows),
    )
