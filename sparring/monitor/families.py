"""Metric families of model lines: pure functions of what was read. The table in docs/monitoring.md is tested on them.

Every family is there at every scrape, without samples where nothing is known. Labels are bounded: the line, our steps
and statuses, decisions, three roles; of the suites' slices and the names of judges and hooks `MOST_LABELS` are taken,
and what is beyond is counted in `sparring_exporter_dropped_labels`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from sparring.monitor.facts import LineFacts
from sparring.monitor.hooks import STATES
from sparring.monitor.reign import DECISIONS

MOST_LABELS: Final = 40
STATUSES: Final = ("ok", "failed", "killed", "running")
Values = Mapping[tuple[str, ...], float]

_ERROR: Final = re.compile(r"[A-Za-z_]{1,60}")
_MEASURES: Final = {
    "asr": ("sparring_attack_success", "Share of harmful prompts answered harmfully"),
    "over_refusal": ("sparring_over_refusal", "Share of harmless prompts refused"),
    "capability": ("sparring_capability", "Score on capability questions"),
    "degenerate": ("sparring_degenerate", "Share of empty, looping or letterless answers"),
}
_ENDS: Final = {"value": ("", ""), "low": ("_low", ", lower end of 95 %"), "high": ("_high", ", upper end of 95 %")}
_POOL: Final = {
    "outcomes": ("sparring_pool_outcomes", "Outcomes in the pool"),
    "clusters": ("sparring_pool_clusters", "Clusters of near attacks in the pool"),
    "sentinels": ("sparring_pool_sentinels", "Mastered attacks before the last round"),
    "sentinels_probed": ("sparring_pool_sentinels_probed", "Mastered attacks that the last round replayed"),
    "regressions": ("sparring_pool_regressions", "Mastered attacks that worked again in the last round"),
    "never_replayed_share": ("sparring_pool_never_replayed_ratio", "Share of earlier attacks that nobody met again"),
    "varied_groups_share": ("sparring_pool_varied_groups_ratio", "Share of groups with failures and clean answers"),
    "cluster_coverage": ("sparring_pool_cluster_coverage_ratio", "Share of clusters of which one was ever replayed"),
    "benign_compliance": ("sparring_pool_benign_compliance_ratio", "Share of replayed harmless attacks helped with"),
}
_JUDGES: Final = {
    "requests": ("sparring_judge_requests", "Requests sent to the endpoint of a judge"),
    "failed": ("sparring_judge_failures", "Cases that the endpoint of a judge could not judge"),
    "tokens_in": ("sparring_judge_input_tokens", "Tokens sent to the endpoint of a judge"),
    "tokens_out": ("sparring_judge_output_tokens", "Tokens that the endpoint of a judge wrote"),
    "cost": ("sparring_judge_cost", "Price of those tokens, in the currency of the configured prices"),
}


def families(lines: Iterable[LineFacts]) -> Iterator[Metric]:
    """All families of all lines."""
    collected: dict[str, Metric] = {}
    for facts in lines:
        for family in _line(facts):
            known = collected.setdefault(family.name, family)
            if known is not family:
                known.samples.extend(family.samples)
    yield from collected.values()


def _line(facts: LineFacts) -> Iterator[Metric]:
    yield from _rounds(facts)
    yield from _champion(facts)
    yield from _alpha(facts)
    yield from _steps(facts)
    yield from _training(facts)
    yield from _judges(facts)
    yield from _rates(facts)
    yield from _pool(facts)
    yield from _hooks(facts)
    line = (facts.line,)
    yield _gauge("sparring_exporter_unreadable_records", "Records that are broken", {line: facts.unreadable})
    yield _gauge(
        "sparring_exporter_dropped_labels",
        "Slices, judges and hooks left out, there are too many",
        {line: sum(len(keys[MOST_LABELS:]) for keys in _bounded(facts))},
    )


def _rounds(facts: LineFacts) -> Iterator[Metric]:
    line, last = (facts.line,), facts.last
    yield _gauge(
        "sparring_round", "Number of the last round begun; 0 before the first", {line: last.number if last else 0}
    )
    yield _gauge(
        "sparring_round_open", "1 while the last round has no end", {line: last is not None and last.decision is None}
    )
    yield _counter(
        "sparring_rounds",
        "Rounds that ended, by decision",
        {(facts.line, name): facts.totals.decisions[name] for name in DECISIONS},
        "decision",
    )
    yield _gauge(
        "sparring_last_decision",
        "1 for the decision of the round that ended last",
        {(facts.line, name): facts.reign is not None and name == facts.reign.decision for name in DECISIONS},
        "decision",
    )
    times = {
        "sparring_line_start_timestamp_seconds": ("When the first round began", facts.begun),
        "sparring_round_start_timestamp_seconds": ("When the last round began", facts.claimed),
        "sparring_last_success_timestamp_seconds": (
            "When a round last ended with a decision other than INVALID",
            facts.reign.success if facts.reign else None,
        ),
    }
    for name, (help_, time) in times.items():
        yield _gauge(name, help_, {line: time.timestamp()} if time else {})
    yield _gauge(
        "sparring_schedule_period_seconds",
        "Longest pause between two rounds by the run file's schedule",
        {line: facts.period} if facts.period else {},
    )


def _champion(facts: LineFacts) -> Iterator[Metric]:
    line, reign = (facts.line,), facts.reign
    yield _gauge("sparring_champion_log_broken", "1 when the champion log cannot be verified", {line: reign is None})
    kinds = sorted(reign.kinds.items()) if reign else ()
    values: Values = {(facts.line, kind): count for kind, count in kinds}
    yield _counter("sparring_champion_log_records", "Records in the champion log, by kind", values, "kind")
    help_ = "The champion, and the reference that later rounds hold it against."
    info = InfoMetricFamily("sparring_champion", help_, labels=["line"])
    if reign and reign.champion:
        number = str(reign.champion_round or "")
        info.add_metric(line, {"digest": reign.champion, "round": number, "reference": reign.reference or ""})
    yield info
    since = reign.since if reign and reign.champion else None
    yield _gauge(
        "sparring_champion_since_timestamp_seconds",
        "Since when it is champion",
        {line: since.timestamp()} if since else {},
    )


def _alpha(facts: LineFacts) -> Iterator[Metric]:
    line, spent, budget = (facts.line,), facts.alpha_spent, facts.policy_alpha
    known = facts.reign is not None
    yield _gauge(
        "sparring_alpha_spent", "α that looks at the present champion's rivals used", {line: spent} if known else {}
    )
    yield _gauge(
        "sparring_alpha_left",
        "α left at the present champion, by the policy that decided last",
        {line: max(0.0, budget - spent)} if known and budget is not None else {},
    )


def _steps(facts: LineFacts) -> Iterator[Metric]:
    line, last = facts.line, facts.last
    yield _counter(
        "sparring_step_attempts",
        "Attempts at steps in all rounds, by how they ended",
        {(line, step, status): count for (step, status), count in sorted(facts.totals.attempts.items())},
        "step",
        "status",
    )
    entries = last.steps if last else {}
    stands = last.status if last else {}
    yield _gauge(
        "sparring_step_status",
        "1 for how a step of the last round stands",
        {(line, step, status): status == stands[step] for step in entries for status in STATUSES},
        "step",
        "status",
    )
    errors: Counter[tuple[str, ...]] = Counter(
        (line, step, _class_of(attempt.error))
        for step, entry in entries.items()
        for attempt in entry.attempts
        if attempt.status == "failed"
    )
    yield _gauge(
        "sparring_step_errors", "Failed attempts at a step of the last round, by error", errors, "step", "error"
    )
    yield _gauge(
        "sparring_step_duration_seconds",
        "Time spent on a step of the last round, in attempts that ended",
        {(line, step): entry.seconds for step, entry in entries.items()},
        "step",
    )
    yield _gauge(
        "sparring_step_start_timestamp_seconds",
        "When the last attempt at a step of the last round began",
        {(line, step): entry.attempts[-1].start.timestamp() for step, entry in entries.items() if entry.attempts},
        "step",
    )


def _class_of(error: str | None) -> str:
    """The error's class, which its text in the ledger begins with."""
    match = _ERROR.match(error or "")
    return match[0] if match else "unknown"


def _training(facts: LineFacts) -> Iterator[Metric]:
    line, speed = (facts.line,), facts.speed
    yield _counter("sparring_trained_tokens", "Tokens that self-play trained on", {line: facts.totals.tokens})
    help_ = "Tokens that the last self-play trained on, by second of the whole step"
    yield _gauge("sparring_trained_tokens_per_second", help_, {line: speed} if speed else {})


def _judges(facts: LineFacts) -> Iterator[Metric]:
    line, judged = facts.line, facts.judged
    yield _gauge(
        "sparring_judge_verdicts",
        "Verdicts of the last judged round; void ones cannot be used",
        {(line, "ok"): judged.rows - judged.void, (line, "void"): judged.void} if judged else {},
        "status",
    )
    names = _judge_names(facts)[:MOST_LABELS]
    p95: Values = {(line, judge): facts.latency[judge] for judge in names if judge in facts.latency}
    help_ = "95th percentile of a judge's replies in the last round that asked it"
    yield _gauge("sparring_judge_latency_p95_seconds", help_, p95, "judge")
    found = facts.totals.judges
    for what, (name, help_) in _JUDGES.items():
        yield _counter(name, help_, {(line, j): found[j, what] for j in names if (j, what) in found}, "judge")


def _bounded(facts: LineFacts) -> Iterable[list[str]]:
    return (_judge_names(facts), list(facts.hooks), *_slices(facts).values())


def _judge_names(facts: LineFacts) -> list[str]:
    return sorted({judge for judge, _ in facts.totals.judges})


def _rates(facts: LineFacts) -> Iterator[Metric]:
    """A value, a lower and an upper end for each measure."""
    rates = facts.measured.rates if facts.measured else {}
    slices = _slices(facts)
    for group, (name, help_) in _MEASURES.items():
        keys = slices[group][:MOST_LABELS]
        rows = {(facts.line, role, k.partition(".")[2]): rate for k in keys for role, rate in rates[k].items()}
        for end, (suffix, text) in _ENDS.items():
            values: Values = {labels: getattr(rate, end) for labels, rate in rows.items()}
            yield _gauge(f"{name}{suffix}_ratio", help_ + text, values, "model", "slice")
    yield _gauge(
        "sparring_over_refusal_rises",
        "Rounds in a row, up to the last, in which the candidate's over-refusal rose",
        {(facts.line,): facts.rises},
    )


def _slices(facts: LineFacts) -> dict[str, list[str]]:
    """Keys of the rates of each measure."""
    rates = facts.measured.rates if facts.measured else {}
    return {group: sorted(key for key in rates if key.partition(".")[0] == group) for group in _MEASURES}


def _pool(facts: LineFacts) -> Iterator[Metric]:
    line, values = facts.line, facts.measured.values if facts.measured else {}
    yield _gauge(
        "sparring_pool_attacks",
        "Attacks in the pool, by what they ask for",
        {(line, label): values[f"pool.{label}"] for label in ("harmful", "benign") if f"pool.{label}" in values},
        "label",
    )
    for key, (name, help_) in _POOL.items():
        yield _gauge(name, help_, {(line,): values[f"pool.{key}"]} if f"pool.{key}" in values else {})


def _hooks(facts: LineFacts) -> Iterator[Metric]:
    line, hooks = facts.line, dict(sorted(facts.hooks.items())[:MOST_LABELS])
    settled = [state for state in STATES if state != "failing"]
    yield _counter(
        "sparring_hook_deliveries",
        "Events that are settled at a hook, by how",
        {(line, name, state): hook.states[state] for name, hook in hooks.items() for state in settled},
        "hook",
        "state",
    )
    failing: Values = {(line, name): hook.states["failing"] for name, hook in hooks.items()}
    yield _gauge("sparring_hook_failing", "Events whose delivery failed and is tried again", failing, "hook")
    failures: Values = {(line, name): hook.failures for name, hook in hooks.items()}
    yield _counter("sparring_hook_failures", "Deliveries that failed", failures, "hook")
    yield _gauge(
        "sparring_hook_newest",
        "1 for how the newest event stands at a hook",
        {(line, name, state): state == hook.newest for name, hook in hooks.items() for state in STATES},
        "hook",
        "state",
    )
    times: Values = {(line, name): hook.delivered for name, hook in hooks.items() if hook.delivered is not None}
    help_ = "When a hook last took an event"
    yield _gauge("sparring_hook_last_success_timestamp_seconds", help_, times, "hook")


def _gauge(name: str, help_: str, values: Values, *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, f"{help_}.", labels=["line", *labels])
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _counter(name: str, help_: str, values: Values, *labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(name, f"{help_}.", labels=["line", *labels])
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family
