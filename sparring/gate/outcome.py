"""What a decision says: plain JSON-serialisable records, complete enough to be checked by hand."""

from __future__ import annotations

import math
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from sparring.gate.policy import Against

Outcome = Literal["PROMOTE", "REJECT", "INCONCLUSIVE", "INVALID"]
Status = Literal["pass", "fail", "open"]


class Record(BaseModel):
    """Base: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Endpoint(Record):
    """One test or limit. Shares are in [0, 1]; `estimate` is candidate minus comparator, or the candidate's own value.

    `low`, `high`: two-sided 95 % interval. `bound`: the one-sided bound at `alpha` that was held against `margin`
    (0 for superiority). `discordance`: mean absolute difference of a prompt. `more_prompts`: how many more prompts
    would decide at power .8 if the estimates hold; None where that says nothing.
    """

    name: str
    test: Literal["superiority", "non_inferiority", "limit"]
    against: Against | None
    slices: list[str]
    candidate: float
    comparator: float | None
    estimate: float
    low: float
    high: float
    bound: float
    margin: float
    alpha: float
    p: float | None
    n: int
    clusters: int
    discordance: float | None
    status: Status
    more_prompts: int | None
    text: str


class Alarm(Record):
    """One slice in which the candidate is worse than a comparator (Holm over all slices). Changes no outcome."""

    name: str
    against: Against
    estimate: float
    p: float
    alarm: bool


class Resampled(Record):
    """The primary's difference by cluster bootstrap, beside its t interval; it decides nothing (`gate.bootstrap`).

    `low` and `high` are the bias-corrected accelerated 95 % interval.
    """

    name: str
    low: float
    high: float
    resamples: int
    seed: int
    text: str


class Decision(Record):
    """One decision of the gate, with everything that it rests on.

    `reason` is one line; `reasons` are all of them; `missing` says for INVALID what exactly was missing.
    `alpha` is the level that this look may use, `alpha_spent` what earlier looks at the same champion have used.
    `warnings` change no outcome; `corrections` are the fields of `sparring.gate.correction.Correction`, which decide
    nothing either; `calibration` is the digest of the judge's calibration that they rest on.
    """

    schema_version: Literal[1] = 1
    outcome: Outcome
    reason: str
    reasons: list[str]
    missing: list[str]
    candidate: str | None
    champion: str | None
    reference: str | None
    judge: str | None
    policy: str
    policy_digest: str
    first_run: bool
    approved: bool
    alpha: float
    alpha_spent: float
    endpoints: list[Endpoint]
    alarms: list[Alarm]
    insensitive: list[str]
    prompts: dict[str, int]
    unjudged: dict[str, int]
    warnings: list[str] = []
    corrections: list[dict[str, JsonValue]] = []
    calibration: str | None = None
    resampled: Resampled | None = None


_RELATIVE: Final = 1e-9
_ABSOLUTE: Final = 1e-12


def agree(one: Decision, other: Decision) -> bool:
    """Whether two decisions are the same but for the last digits of numbers, which another processor rounds otherwise.

    Everything else must be equal, the texts with their rounded numbers too.
    """
    return _agree(one.model_dump(), other.model_dump())


def _agree(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return one == other
