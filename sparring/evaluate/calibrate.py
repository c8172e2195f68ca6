"""Sensitivity and specificity of a judge from answers that people labelled, by model, kind of prompt and slice.

Labels of a file weigh the same; labels of a drawn sample weigh as many answers as each stands for (the inverse of its
probability of being drawn: Horvitz & Thompson, JASA 47, 1952), as ratio estimates (Hájek).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sparring.gate.statistics import Floats, Ints, t_quantile, wilson
from sparring.judge.calibration import Cell, Kind, Share, Truth
from sparring.judge.protocol import Judge, JudgeCase, Verdict

FEW = 30
"""Below this effective size the interval is Clopper-Pearson's, which is never too short."""
_BATCH = 64
_Z = 1.959963984540054
_TRUTHS: tuple[Truth, ...] = ("refused", "harmful")


@dataclass(frozen=True)
class Labelled:
    """One answer as a person labelled it: None where the person said nothing. `cluster` is its behaviour.

    `weight` is the number of answers that it stands for. `place` is for messages.
    """

    place: str
    prompt: str
    answer: str
    model: str
    slice: str
    kind: Kind | None
    cluster: str
    refused: bool | None
    harmful: bool | None
    weight: float = 1.0


@dataclass(frozen=True)
class Compared:
    """A labelled answer beside the judge's verdict (None: void, or the judge does not say)."""

    truth: Labelled
    refused: bool | None
    harmful: bool | None


def compare(judge: Judge, rows: Sequence[Labelled]) -> list[Compared]:
    """Judges each answer as the gate does: with the prompt's label where it is known, and nothing else."""
    found: list[Compared] = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        verdicts = judge.judge([JudgeCase(row.prompt, row.answer, row.kind) for row in part])
        found += [compared(row, verdict) for row, verdict in zip(part, verdicts, strict=True)]
    return found


def compared(row: Labelled, verdict: Verdict) -> Compared:
    """A void verdict says nothing, whatever else it carries."""
    return Compared(row, verdict.refused, verdict.harmful) if verdict.ok else Compared(row, None, None)


def measure(rows: Sequence[Compared]) -> list[Cell]:
    """A cell for everything pooled, for each kind, slice, model, and each model's kinds and slices; empty ones not."""
    keys: dict[tuple[str | None, Kind | None, str | None], list[Compared]] = {}
    for row in rows:
        for key in _keys(row.truth):
            keys.setdefault(key, []).append(row)
    cells = [_cell(label, key, keys[key]) for label in _TRUTHS for key in sorted(keys, key=_order)]
    return [cell for cell in cells if cell is not None]


def _keys(row: Labelled) -> Iterable[tuple[str | None, Kind | None, str | None]]:
    for model in (None, row.model):
        yield model, None, None
        if row.kind:
            yield model, row.kind, None
        if row.slice:
            yield model, row.kind, row.slice


def _order(key: tuple[str | None, Kind | None, str | None]) -> tuple[str, str, str]:
    model, kind, name = key
    return model or "", name or "", kind or ""


def _cell(label: Truth, key: tuple[str | None, Kind | None, str | None], rows: Sequence[Compared]) -> Cell | None:
    known = [row for row in rows if getattr(row.truth, label) is not None]
    if not known:
        return None
    said = [row for row in known if getattr(row, label) is not None]
    model, kind, name = key
    return Cell(
        label=label,
        model=model,
        kind=kind,
        slice=name,
        sensitivity=_agreement(label, [row for row in said if getattr(row.truth, label)]),
        specificity=_agreement(label, [row for row in said if not getattr(row.truth, label)]),
        void=len(known) - len(said),
    )


def _agreement(label: Truth, rows: Sequence[Compared]) -> Share | None:
    """How often the judge says what people say."""
    if not rows:
        return None
    right = np.array([getattr(row, label) == getattr(row.truth, label) for row in rows], dtype=np.float64)
    _, clusters = np.unique([row.truth.cluster for row in rows], return_inverse=True)
    return share(right, clusters.astype(np.int64), np.array([row.truth.weight for row in rows]))


def share(values: Floats, clusters: Ints, weights: Floats) -> Share:
    """A weighted share in [0, 1] and its 95 % interval.

    Variance by linearisation of the ratio Σwx/Σw, summed within clusters: G/(G−1) Σ_g (Σ_{i∈g} w_i (x_i − x̄))²/(Σw)²
    (Särndal, Swensson & Wretman 1992, 5.5), without gain from the strata: somewhat too wide rather than too short.
    The interval is that of a simple sample of the effective size (Korn & Graubard, Survey Methodology 24, 1998).
    """
    total = float(weights.sum())
    value = min(1.0, float(values @ weights) / total)
    effective = round(_effective(value, values, clusters, weights / total), 6)
    low, high = wilson(value, effective, _Z) if effective >= FEW else clopper_pearson(value, effective)
    groups = int(clusters.max()) + 1
    return Share(value=value, low=low, high=high, n=len(values), clusters=groups, effective=effective)


def _effective(value: float, values: Floats, clusters: Ints, weights: Floats) -> float:
    """n over the design effect (at least 1), and less for few clusters."""
    n, groups = len(values), int(clusters.max()) + 1
    sizes = np.bincount(clusters, weights=weights)
    least = float(sizes @ sizes) * n  # the design effect if a cluster's answers were all alike: n Σ w_g²
    simple = value * (1.0 - value) / n
    if groups < 2:
        return 1.0
    if simple < 1e-12:  # nothing varies: no variance to estimate an effect from
        return n / max(1.0, least)
    sums = np.bincount(clusters, weights=weights * (values - value))
    effect = max(1.0, groups / (groups - 1) * float(sums @ sums) / simple * (n - 1) / n)
    return n / effect * (t_quantile(0.975, n - 1) / t_quantile(0.975, groups - 1)) ** 2


def clopper_pearson(value: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share at n (effective, maybe fractional) answers (Clopper & Pearson, 1934)."""
    hits, tail = value * n, (1.0 - confidence) / 2
    low = 0.0 if value <= 0.0 else float(special.betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if value >= 1.0 else float(special.betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high
