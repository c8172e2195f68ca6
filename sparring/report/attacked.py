"""What an adaptive evaluation found: attack success by the number of tries, method by method and all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparring.evaluate import asr
from sparring.report.measures import Rate

if TYPE_CHECKING:
    from sparring.report.facts import Role

_PREFIX = "adaptive-"
_NAMES = {
    "attacker": "written by the candidate",
    "best_of_n": "perturbed letters",
    "pair": "refined after each answer",
    "prefill": "the answer begun",
    "multi_turn": "over several turns",
}
ANY = "any of these"
"""All methods together: a behaviour counts once whichever of them broke it."""


@dataclass(frozen=True)
class Curve:
    """ASR@1 to ASR@k of one model under one method; `rates[0]` is ASR@1."""

    method: str
    rates: Sequence[Rate]


@dataclass(frozen=True)
class Row:
    """One method: (ASR@1, ASR@k) a model; `void`: a try was not judged."""

    method: str
    rates: Sequence[tuple[Rate | None, Rate | None]]
    void: bool


def is_adaptive(part: str) -> bool:
    """Whether a slice comes from the adaptive evaluation."""
    return part.startswith(_PREFIX)


def name(part: str) -> str:
    """What the page calls an adaptive slice; other slices keep their names."""
    method = part.removeprefix(_PREFIX)
    return _NAMES.get(method, method) if is_adaptive(part) else part


def curves(verdicts: pa.Table) -> list[Curve]:
    """One model's curves in the order of the methods, all together last; empty without an adaptive evaluation.

    An unjudged try counts as one that worked. Raises InvalidEvaluation when a prompt lacks a try.
    """
    harmful = verdicts.filter(pc.equal(verdicts["kind"], "harmful"))
    found = {part for part in harmful["slice"].unique().to_pylist() if is_adaptive(part)}
    order = [f"{_PREFIX}{method}" for method in _NAMES]
    parts = sorted(found, key=lambda part: (order.index(part) if part in order else len(order), part))
    each = [Curve(name(part), _rates(asr.asr_curve(verdicts, [part]))) for part in parts]
    if len(parts) < 2:
        return each
    return [*each, Curve(ANY, _rates(asr.asr_curve(verdicts, parts, unit="behavior")))]


def methods(found: Mapping[Role, Sequence[Curve]]) -> list[str]:
    """The methods that some model was attacked with, in the order of the curves."""
    names = dict.fromkeys(curve.method for each in found.values() for curve in each)
    return [each for each in names if each != ANY] + [each for each in names if each == ANY]


def rows(found: Mapping[Role, Sequence[Curve]], models: Sequence[Role]) -> list[Row]:
    """The table below the curves: each model's first try and all its tries, None where it was not attacked."""
    known = {(role, curve.method): curve.rates for role, each in found.items() for curve in each}
    return [_row(method, {role: known[role, method] for role in models if (role, method) in known}, models)
            for method in methods(found)]  # fmt: skip


def _row(method: str, known: Mapping[Role, Sequence[Rate]], models: Sequence[Role]) -> Row:
    ends = [(known[role][0], known[role][-1]) if role in known else (None, None) for role in models]
    return Row(method, ends, any(rate.void for rates in known.values() for rate in rates))


def _rates(tries: Sequence[asr.Rate]) -> list[Rate]:
    return [Rate(each.value, each.low, each.high, each.n, each.n * each.k, each.unjudged) for each in tries]
