"""What became of the round and why, in plain words computed from its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sparring.gate.outcome import Decision, Endpoint, Status
from sparring.report.facts import Facts
from sparring.report.numbers import count, percent, points

Tone = Literal["good", "bad", "wait", "fault"]
_ORDER = {"fail": 0, "open": 1, "pass": 2}
_SUPERIORITY = {
    "pass": "Attacks succeed less often",
    "fail": "Attacks do not succeed less often",
    "open": "Attacks are not shown to succeed less often",
}
_KEPT = {
    "benign": {
        "pass": "Harmless prompts are helped as well as before",
        "fail": "Harmless prompts are helped less than before",
        "open": "Harmless prompts are not shown to be helped as well as before",
    },
    "capability": {
        "pass": "Capability is kept",
        "fail": "Capability is lost",
        "open": "Capability is not shown to be kept",
    },
}
_LIMITS = {
    "asr": "Attack success",
    "asr_reduction": "The fall of attack success",
    "asr_at_k": "Attack success in any of k tries",
    "asr_increase": "The rise of attack success",
    "over_refusal": "Over-refusal",
    "benign_compliance": "The share of harmless prompts helped",
    "degenerate": "The share of broken answers",
    "nll_increase": "The rise of the loss on good answers",
}
_MOST_REASONS = 8


@dataclass(frozen=True)
class Reason:
    """One line of the banner."""

    status: Status
    text: str


@dataclass(frozen=True)
class Banner:
    """The page's first words."""

    tone: Tone
    title: str
    lead: str
    reasons: Sequence[Reason]


def banner(facts: Facts) -> Banner:
    """What became of the round. The champion log has the last word, the gate the one before, then the ledger."""
    record, decision = facts.record, facts.decision
    if record is not None and record.kind == "promotion":
        return Banner("good", "Promoted", "The candidate is the new champion.", _reasons(decision))
    if record is not None and record.kind == "override":
        said = f"{record.actor} made the candidate champion against the gate: {sentence(record.reason)}"
        return Banner("bad", "Promoted against the gate", said, _reasons(decision))
    if decision is None or (decision.outcome == "PROMOTE" and record is None):
        return _unfinished(facts)
    if decision.outcome == "PROMOTE":
        reason = Reason("open", sentence(record.reason if record else ""))
        return Banner("wait", "Not promoted", f"The candidate passed the gate, but was held. {_stays(facts)}", [reason])
    return _held(decision, _stays(facts))


def plain_words(tests: Sequence[Endpoint], *, first_run: bool) -> str:
    """A sentence about one test or limit, made against one or more models with the same outcome.

    In the first run the base model stands in the champion's place.
    """
    first, others = tests[0], [_other(test, first_run=first_run) for test in tests]
    if first.test == "limit":
        return f"{_limit(tests, others)}{_more(tests)}."
    theirs = ", ".join(f"{other} {percent(test.comparator or 0.0)}" for test, other in zip(tests, others, strict=True))
    if first.test == "superiority":
        change = f"{percent(first.candidate)} of them ({theirs})"
        return f"{_SUPERIORITY[first.status]}: {change}{_chance(first)}{_more(tests)}."
    said = _KEPT.get(first.name, _KEPT["capability"])[first.status]
    return f"{said}: {percent(first.candidate)} ({theirs}; up to {points(first.margin)} less allowed){_more(tests)}."


def failure(error: str | None) -> str:
    """Why a step ended; a step without an end was killed."""
    return error or "it was killed, or ran out of memory, before it could say why"


def sentence(text: str) -> str:
    """A line of the engine's as a sentence: capital letter, full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _held(decision: Decision, stays: str) -> Banner:
    if decision.outcome == "INVALID":
        missing = [Reason("fail", sentence(line)) for line in decision.missing[:_MOST_REASONS]]
        return Banner("fault", "No valid evaluation", f"The evaluation cannot carry a decision. {stays}", missing)
    reasons = _reasons(decision)
    if decision.outcome == "REJECT":
        reasons = reasons or [Reason("fail", sentence(decision.reason))]
        return Banner("bad", "Rejected", f"The candidate did not pass the gate. {stays}", reasons)
    if decision.alpha == 0.0 or all(reason.status == "pass" for reason in reasons):
        reasons.insert(0, Reason("open", sentence(decision.reason)))  # α is spent, or an approval is missing
    return Banner("wait", "Undecided", f"The evidence does not carry a promotion. {stays}", reasons)


def _unfinished(facts: Facts) -> Banner:
    """No decision, or a PROMOTE that nobody has recorded yet."""
    passed = "The candidate passed the gate, but is not promoted yet. " if facts.decision else ""
    if facts.failed:
        reasons = [
            Reason("fail", sentence(f"{name}: {failure(entry.attempts[-1].error if entry.attempts else None)}"))
            for name, entry in facts.failed.items()
        ]
        lead = f"{passed}{_stays(facts)} The next run takes the round up where it stopped."
        return Banner("fault", f"Stopped in {' and '.join(facts.failed)}", lead, reasons)
    done = list(facts.steps)
    where = f"Its last finished step is {done[-1]}." if done else "No step has finished."
    return Banner("wait", "Not finished", f"{passed}{where} {_stays(facts)}", [])


def _stays(facts: Facts) -> str:
    if facts.log is None:
        return "The champion log cannot be read."
    return "The champion stays." if facts.log.champion else "There is no champion yet."


def _reasons(decision: Decision | None) -> list[Reason]:
    """The tests in plain words, broken ones first; limits that hold are one line."""
    if decision is None:
        return []
    kept = [test for test in decision.endpoints if test.test == "limit" and test.status == "pass"]
    groups: dict[tuple[int, str, str], list[Endpoint]] = {}
    for test in decision.endpoints:
        if test not in kept:
            groups.setdefault((_ORDER[test.status], test.test, test.name), []).append(test)
    chosen = sorted(groups.items(), key=lambda item: item[0][0])[:_MOST_REASONS]
    reasons = [Reason(tests[0].status, plain_words(tests, first_run=decision.first_run)) for _, tests in chosen]
    if kept:
        reasons.append(Reason("pass", f"{count(len(kept), 'absolute limit')} kept."))
    return reasons


def _limit(tests: Sequence[Endpoint], others: Sequence[str]) -> str:
    first = tests[0]
    name, _, slices = first.name.partition("[")
    where = f" ({slices.removesuffix(']').replace(',', ', ')})" if slices else ""
    versus = f" against the {' and the '.join(others)}" if first.against else ""
    verb = {"pass": "keeps", "fail": "breaks", "open": "is not shown to keep"}[first.status]
    show = {"nll_increase": _nats, "asr_reduction": points, "asr_increase": points}.get(name, percent)
    values = " and ".join(show(test.estimate) for test in tests)
    return f"{_LIMITS.get(name, name)}{where}{versus}, {values}, {verb} its limit of {show(first.margin)}"


def _other(test: Endpoint, *, first_run: bool) -> str:
    return "base model" if first_run else str(test.against)


def _nats(value: float) -> str:
    return f"{value:.3f} nats a token"


def _chance(test: Endpoint) -> str:
    if test.status != "open" or test.p is None:
        return ""
    return f"; chance alone could explain it (p = {test.p:.2g}, {test.alpha:.2g} is needed)"


def _more(tests: Sequence[Endpoint]) -> str:
    wanted = [test.more_prompts or 0 for test in tests]
    return f"; about {max(wanted):,} more prompts would settle it" if tests[0].status == "open" and all(wanted) else ""
