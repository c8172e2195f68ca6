"""One sentence above each picture: what it shows, computed from the numbers in it; empty where they say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparring.report.attacked import ANY
from sparring.report.attacks import Cases
from sparring.report.facts import Facts
from sparring.report.learning import Curves
from sparring.report.measures import Rate
from sparring.report.metrics import RoundMetrics
from sparring.report.numbers import change, count, duration, percent
from sparring.report.pool import PoolStats


def results(facts: Facts) -> str:
    """Attack success and over-refusal of the candidate beside the champion's."""
    other = "the base model" if facts.first_run else "the champion"
    attack = facts.rates("asr.macro") or facts.rates("asr.vanilla") or facts.rates("asr.adversarial")
    refusal = facts.rates("over_refusal.pooled") or facts.rates("over_refusal.plain")
    said = []
    if "candidate" in attack:
        theirs = f", against {other} in {percent(attack['champion'].rate.value)}" if "champion" in attack else ""
        said.append(
            f"Attacks succeed against the candidate in {percent(attack['candidate'].rate.value)} of cases{theirs}."
        )
    if "candidate" in refusal:
        theirs = f", {other} {percent(refusal['champion'].rate.value)}" if "champion" in refusal else ""
        said.append(f"It refuses {percent(refusal['candidate'].rate.value)} of harmless prompts{theirs}.")
    return " ".join([*said, *_difference(facts), *_unjudged(facts)])


def _difference(facts: Facts) -> list[str]:
    """What the gate's paired test makes of the first of these."""
    tests = [test for test in facts.decision.endpoints if test.test == "superiority"] if facts.decision else []
    return [
        f"Prompt by prompt, attack success changed by {change(test.estimate)} points"
        f" (95\N{NARROW NO-BREAK SPACE}% interval {change(test.low)} to {change(test.high)})."
        for test in tests
    ]


def _unjudged(facts: Facts) -> list[str]:
    """Why the gate's rates can differ a little from those shown."""
    shown = [*facts.rates("asr.macro").values(), *facts.rates("over_refusal.pooled").values()]
    void = sum(measure.rate.void for measure in shown)
    left = count(void, "unjudged answer")
    return [f"The rates leave out {left}; the gate counts each against the candidate."] if void else []


def attacked(facts: Facts) -> str:
    """In how many behaviours the attacks got through, with one try and with all."""
    found = {role: {curve.method: curve.rates for curve in each} for role, each in facts.attacked.items()}
    mine = found.get("candidate", {})
    if not mine:
        return ""
    method = ANY if ANY in mine else next(iter(mine))
    first, last = mine[method][0], mine[method][-1]
    tries = len(mine[method])
    how = "some attack gets through" if method == ANY else "the attack gets through"
    other = "the base model" if facts.first_run else "the champion"
    theirs = found.get("champion", {}).get(method)
    versus = f", against {other} in {percent(theirs[-1].value)}" if theirs else ""
    said = f"{percent(first.value)} of {count(first.prompts, 'behaviour')} at the first try"
    if tries == 1:
        return f"Against the candidate {how} in {said}{versus}."
    return f"Against the candidate {how} in {said}, in {percent(last.value)} within {tries} tries{versus}."


def learning(curves: Curves) -> str:
    """Refusals in the first and the last third of self-play."""
    harmful = _thirds(curves.values("refused_harmful", warm=False)[curves.warm :])
    benign = _thirds(curves.values("refused_benign", warm=False)[curves.warm :])
    warm = f"{count(curves.warm, 'step')} of warm start, then " if curves.warm else ""
    steps = f"{warm}{count(len(curves.steps) - curves.warm, 'step')} of self-play"
    if harmful is None or benign is None:
        return f"{steps}."
    return (
        f"{steps}: from its first to its last third, refusals of harmful games went from {percent(harmful[0])} to"
        f" {percent(harmful[1])}, of benign games from {percent(benign[0])} to {percent(benign[1])}."
    )


def _thirds(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    part = len(known) // 3
    return (sum(known[:part]) / part, sum(known[-part:]) / part) if part else None


def attacks(cases: Cases | None, categories: Mapping[str, Rate], won: Cases | None) -> str:
    """How often the candidate gave in, where most, and how many attacks won a game in training."""
    said = []
    if cases is not None and cases.total:
        where = f", most often on {next(iter(categories))}" if len(categories) > 1 and cases.found else ""
        said.append(f"In evaluation the candidate gave in to {cases.found:,} of {count(cases.total, 'attack')}{where}.")
    if won is not None and won.total:
        said.append(f"In training {count(won.found, 'attack')} won a game.")
    return " ".join(said)


def pool(stats: PoolStats) -> str:
    """The pool's size and how much of it has been used."""
    holds = f"{count(stats.attacks, 'attack')} ({stats.added:,} of them new) and {count(stats.outcomes, 'outcome')}"
    said, known = [f"The pool holds {holds}."], stats.values
    if "never_replayed_share" in known:
        share = percent(known["never_replayed_share"])
        said.append(f"{share} of the {known['earlier']:,.0f} from earlier rounds were never replayed.")
    if known.get("sentinels_probed"):
        probed = count(int(known["sentinels_probed"]), "mastered attack")
        said.append(f"{probed} came back as a probe, {known['regressions']:,.0f} of them worked again.")
    return " ".join(said)


def times(seconds: Mapping[str, float]) -> str:
    """The whole time and the longest step."""
    total = sum(seconds.values())
    if not total:
        return ""
    longest = max(seconds, key=lambda step: seconds[step])
    return f"{duration(total)} in all, {percent(seconds[longest] / total)} of it in {longest}."


def history(rounds: Sequence[RoundMetrics]) -> str:
    """Promotions so far, and attack success from the first round's comparator to the present champion."""
    promoted = [each for each in rounds if each.outcome == "PROMOTE"]
    said = f"{count(len(promoted), 'promotion')} in {count(len(rounds), 'round')}."
    first, last = rounds[0].rate("asr.macro", "champion"), _latest(promoted)
    if first is None or last is None:
        return said
    start = "the base model" if rounds[0].first_run else "the first champion"
    now = f"{percent(last.value)} of the last promoted model"
    return f"{said} Attack success went from {percent(first.value)} of {start} to {now}."


def _latest(promoted: Sequence[RoundMetrics]) -> Rate | None:
    return promoted[-1].rate("asr.macro", "candidate") if promoted else None
