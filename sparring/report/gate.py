"""The gate's tests as rows of a table, and its alarms as sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparring.gate.outcome import Alarm, Decision, Endpoint
from sparring.gate.policy import Policy
from sparring.report.numbers import change, count, exact, nats, points

_NAMES = {
    "asr": "attack success",
    "benign": "harmless prompts helped",
    "capability": "capability",
    "asr_reduction": "fall of attack success",
    "asr_at_k": "attack success in any of k tries",
    "asr_increase": "rise of attack success",
    "over_refusal": "over-refusal",
    "benign_compliance": "harmless prompts helped",
    "degenerate": "broken answers",
    "nll_increase": "loss on good answers",
}


@dataclass(frozen=True)
class TestRow:
    """One test or limit; numbers are written out with their units."""

    __test__ = False  # a table's row, not a test of pytest's

    status: str
    name: str
    against: str
    estimate: str
    interval: str
    rule: str
    p: str
    prompts: int


def tests(decision: Decision, policy: Policy | None) -> list[TestRow]:
    """All tests and limits in the gate's order; differences in points, candidate minus the other."""
    floors = {limit.name for limit in policy.limits if limit.min is not None} if policy else set()
    return [_row(test, test.name in floors, first_run=decision.first_run) for test in decision.endpoints]


def said(decision: Decision) -> str:
    """How many tests were passed, under which policy."""
    if not decision.endpoints:
        return f"Policy {decision.policy} could not be applied: no test was made."
    passed = sum(test.status == "pass" for test in decision.endpoints)
    return f"{passed} of {count(len(decision.endpoints), 'test')} of policy {decision.policy} passed."


def unjudged(decision: Decision) -> str:
    """Why the gate's rates differ from each model's own, where they do."""
    found = decision.unjudged.get("candidate", 0)
    if not found:
        return ""
    return (
        f"{count(found, 'answer')} of the candidate without a judgement: the gate counts "
        f"{'it' if found == 1 else 'them'} against the candidate, the rates above and below leave "
        f"{'it' if found == 1 else 'them'} out."
    )


def alarms(decision: Decision) -> list[str]:
    """Slices in which the candidate is significantly worse; they change no outcome."""
    return [_alarm(each, _other(each.against, first_run=decision.first_run)) for each in decision.alarms if each.alarm]


def beside(decision: Decision) -> list[str]:
    """What else the gate looked at, which decided nothing: bootstrap and corrections for the judge's errors."""
    found = [decision.resampled.text] if decision.resampled else []
    return found + [str(each["text"]) for each in decision.corrections if each.get("text")]


def _alarm(alarm: Alarm, other: str) -> str:
    kind, _, name = alarm.name.partition("/")
    worse = f"{points(alarm.estimate)} worse than the {other}"
    return f"{kind} prompts, slice {name}: {worse} (p {'' if alarm.p < 1e-4 else '= '}{_p(alarm.p)})"


def _row(test: Endpoint, floor: bool, *, first_run: bool) -> TestRow:
    name, _, slices = test.name.partition("[")
    show = _shown(test, name)
    return TestRow(
        status=test.status,
        name=_NAMES.get(name, name) + (f" ({slices.removesuffix(']').replace(',', ', ')})" if slices else ""),
        against=_other(test.against, first_run=first_run) if test.against else "",
        estimate=show(test.estimate),
        interval=f"{show(test.low)} to {show(test.high)}",
        rule=_rule(test, show(test.margin), floor),
        p="" if test.p is None else _p(test.p),
        prompts=test.n,
    )


def _shown(test: Endpoint, name: str) -> Callable[[float], str]:
    if name == "nll_increase":
        return nats
    return exact if test.test == "limit" and name not in ("asr_reduction", "asr_increase") else change


def _rule(test: Endpoint, edge: str, floor: bool) -> str:
    """What the estimate, or its bound, is held against."""
    if test.test == "superiority":
        return "< 0"
    if test.test == "non_inferiority":
        return f"> {edge}"
    return f"{'≥' if floor else '≤'} {edge}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _other(against: str | None, *, first_run: bool) -> str:
    return "base model" if first_run else str(against)
