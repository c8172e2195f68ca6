"""Length and repetition of the answers, as rows of a table: the first signs of a policy that falls apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparring.evaluate.degeneration import Texts
from sparring.report.attacked import name
from sparring.report.facts import Role

_KINDS = {
    "harmful": "Answers to harmful prompts",
    "benign": "Answers to harmless prompts",
    "capability": "Worked answers",
}


@dataclass(frozen=True)
class Row:
    """One slice: what each model's answers look like, None where it has none there."""

    kind: str
    slice: str
    answers: int
    texts: Sequence[Texts | None]


def rows(found: Mapping[Role, Mapping[str, Texts]]) -> list[Row]:
    """All slices of all models, kinds together."""
    keys = dict.fromkeys(key for each in found.values() for key in each)
    return [
        _row(key, [each.get(key) for each in found.values()]) for kind in _KINDS for key in keys if _kind(key) == kind
    ]


def _kind(key: str) -> str:
    return key.partition("/")[0]


def _row(key: str, texts: Sequence[Texts | None]) -> Row:
    kind, _, part = key.partition("/")
    return Row(_KINDS[kind], name(part), max(each.answers for each in texts if each), texts)
