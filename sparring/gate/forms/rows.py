"""What all forms say of an endpoint, in the same words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparring.gate.outcome import Decision, Endpoint

HEADINGS = ("test", "against", "estimate", "95 % interval", "must be", "p", "α", "n", "status")
STATUS = {"pass": "passed", "fail": "FAILED", "open": "not shown"}
MEANING = {
    "PROMOTE": "the candidate may replace the champion",
    "REJECT": "something is shown to be worse, or nothing changed",
    "INCONCLUSIVE": "held: the tables cannot tell, or somebody's yes is missing",
    "INVALID": "held: the evaluation cannot carry a decision",
}
_DIFFERENCES = ("asr_reduction", "asr_increase")
_FLOORS = ("asr_reduction", "benign_compliance")
_CONTROL = re.compile(r"[^\t\n\x20-\x7e\xa0-\u200d\u2010-\u2027\u2030-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")


@dataclass(frozen=True)
class Row:
    """One endpoint or limit, every number written out; `cells` is in the order of HEADINGS."""

    cells: tuple[str, ...]
    endpoint: Endpoint


def rows(decision: Decision) -> list[Row]:
    """The endpoints in the gate's order."""
    return [Row(_cells(decision, endpoint), endpoint) for endpoint in decision.endpoints]


def facts(decision: Decision) -> list[tuple[str, str]]:
    """What was compared with what, by which policy and judge."""
    comparator = "base model" if decision.first_run else "champion"
    models = [("candidate", decision.candidate), (comparator, decision.champion), ("reference", decision.reference)]
    found = [(name, clean(model)) for name, model in models if model]
    found.append(("policy", f"{decision.policy} ({decision.policy_digest[:12]})"))
    found += [("judge", clean(decision.judge))] if decision.judge else []
    found.append(("α of this look", f"{decision.alpha:.2g} (earlier looks used {decision.alpha_spent:.3g})"))
    if unjudged := {role: n for role, n in decision.unjudged.items() if n}:
        found.append(("not judged", ", ".join(f"{n} of the {role}" for role, n in sorted(unjudged.items()))))
    return found


def notes(decision: Decision) -> list[tuple[str, str]]:
    """Kind and text of all that stands beside the tests: what is missing, alarms, what was not counted, warnings."""
    found = [("missing", line) for line in decision.missing]
    found += [
        ("alarm", f"{alarm.name} is worse than the {_versus(decision, alarm.against)}'s by {alarm.estimate:.1%}")
        for alarm in decision.alarms
        if alarm.alarm
    ]
    found += [("not counted", line) for line in decision.insensitive]
    found += [("bootstrap", decision.resampled.text)] if decision.resampled else []
    found += [("judge's errors", str(one["text"])) for one in decision.corrections if one.get("text")]
    found += [("warning", line) for line in decision.warnings]
    return [(kind, clean(line)) for kind, line in found]


def clean(text: object) -> str:
    """Text without control, direction and other invisible characters: names come from tables of others."""
    return _CONTROL.sub("\ufffd", str(text))


def _cells(decision: Decision, test: Endpoint) -> tuple[str, ...]:
    show = _shown(test)
    more = f", {test.more_prompts} more prompts" if test.status == "open" and test.more_prompts else ""
    return (
        clean(test.name),
        _versus(decision, test.against) if test.against else "-",
        show(test.estimate),
        f"{show(test.low)} to {show(test.high)}",
        _rule(test, show),
        "-" if test.p is None else f"{test.p:.2g}",
        f"{test.alpha:.2g}",
        str(test.n),
        STATUS[test.status] + more,
    )


def _shown(test: Endpoint) -> Callable[[float], str]:
    """Differences in points, rates in percent, NLL in nats per token."""
    name = test.name.partition("[")[0]
    if name == "nll_increase":
        return lambda value: f"{value:+.3f}"
    if test.test != "limit" or name in _DIFFERENCES:
        return lambda value: f"{100 * value:+.1f}"
    return lambda value: f"{100 * value:.1f} %"


def _rule(test: Endpoint, show: Callable[[float], str]) -> str:
    if test.test == "superiority":
        return "< 0"
    if test.test == "non_inferiority":
        return f"> {show(test.margin)}"
    floor = test.name.partition("[")[0] in _FLOORS
    return f"{'≥' if floor else '≤'} {show(test.margin)}"


def _versus(decision: Decision, against: str) -> str:
    return "base model" if decision.first_run else against


def widths(table: Sequence[Sequence[str]]) -> list[int]:
    """Width of each column."""
    return [max(len(row[column]) for row in table) for column in range(len(table[0]))]
