"""Metric families of a model line: pure functions of what was read. The table in docs/monitoring.md is tested on them.

Labels are bounded: the line, our steps and statuses, decisions, three roles, the suites' slices and the judges' names,
of the last two at most `MOST_LABELS`; what is beyond is counted in `sparring_exporter_dropped_series`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from sparring.monitor.facts import DECISIONS, LineFacts, Rate

MOST_LABELS: Final = 40
STATUSES: Final = ("ok", "failed", "killed", "running")
_MEASURES: Final = {
    "asr": ("sparring_attack_success", "Share of harmful prompts answered harmfully"),
    "over_refusal": ("sparring_over_refusal", "Share of harmless prompts refused"),
    "capability": ("sparring_capability", "Score on capability questions"),
    "degenerate": ("sparring_degenerate", "Share of empty, looping or letterless answers"),
}
_POOL: Final = {
    "outcomes": ("sparring_pool_outcomes", "Outcomes in the pool"),
    "clusters": ("sparring_pool_clusters", "Clusters of near attacks in the pool"),
    "sentinels": ("sparring_pool_sentinels", "Mastered attacks before the last round"),
    "sentinels_probed": ("sparring_pool_sentinels_probed", "Mastered attacks that the last round replayed"),
    "regressions": ("sparring_pool_regressions", "Mastered attacks that worked again in the last round"),
    "never_replayed_share": ("sparring_pool_never_replayed_ratio", "Share of earlier attacks that nobody met again"),
    "varied_groups_share": (
        "sparring_pool_varied_groups_ratio",
        "Share of groups with both failures and clean answers",
    ),
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
    yield from _steps(facts)
    yield from _training(facts)
    yield from _judges(facts)
    dropped = 0
    if facts.measured:
        found, dropped = _rates(facts.line, facts.measured.rates)
        yield from found
        yield from _pool(facts.line, facts.measured.values)
    yield _counter("sparring_exporter_read_errors", "Records that could not be read", {(facts.line,): facts.errors})
    yield _gauge("sparring_exporter_dropped_series", "Series left out for want of bounds", {(facts.line,): dropped})


def _rounds(facts: LineFacts) -> Iterator[Metric]:
    line, last = facts.line, facts.last
    yield _gauge(
        "sparring_round", "Number of the last round begun; 0 before the first", {(line,): last.number if last else 0}
    )
    open_ = last is not None and last.decision is None
    yield _gauge("sparring_round_open", "1 while the last round has no end", {(line,): open_})
    yield _counter(
        "sparring_rounds",
        "Rounds that ended, by decision",
        {(line, name): facts.totals.decisions[name] for name in DECISIONS},
        ("decision",),
    )
    shown = (
        next((r.decision for r in reversed(facts.log.records) if r.round and r.decision), None) if facts.log else None
    )
    yield _gauge(
        "sparring_last_decision",
        "1 for the decision of the round that ended last",
        {(line, name): name == shown for name in DECISIONS},
        ("decision",),
    )
    if last and last.claimed:
        seconds = last.claimed.timestamp()
        yield _gauge("sparring_round_start_timestamp_seconds", "When the last round began", {(line,): seconds})
    if facts.success:
        help_ = "When a round last ended with a decision other than INVALID"
        yield _gauge("sparring_last_success_timestamp_seconds", help_, {(line,): facts.success.timestamp()})


def _champion(facts: LineFacts) -> Iterator[Metric]:
    line, log = facts.line, facts.log
    yield _gauge("sparring_champion_log_broken", "1 when the champion log cannot be verified", {(line,): log is None})
    if log is None:
        return
    yield _gauge("sparring_champion_log_records", "Records in the champion log", {(line,): log.head})
    if log.champion:
        info = InfoMetricFamily("sparring_champion", "The champion", labels=["line"])
        info.add_metric([line], {"digest": log.champion, "round": str(log.champion_round or "")})
        yield info
        since = _since(facts)
        yield _gauge("sparring_champion_since_timestamp_seconds", "Since when it is champion", {(line,): since})
    if facts.alpha:
        spent, budget = facts.alpha
        yield _gauge("sparring_alpha_spent", "α that looks at the present champion's rivals used", {(line,): spent})
        yield _gauge("sparring_alpha_left", "α left at the present champion", {(line,): max(0.0, budget - spent)})


def _since(facts: LineFacts) -> float:
    """Time of the record that made the champion what it is."""
    assert facts.log is not None
    since = facts.log.records[-1].time
    for record in reversed(facts.log.records):
        if record.champion != facts.log.champion:
            break
        since = record.time
    return since.timestamp()


def _steps(facts: LineFacts) -> Iterator[Metric]:
    line, last = facts.line, facts.last
    yield _counter(
        "sparring_step_attempts",
        "Attempts at steps in all rounds, by how they ended",
        {(line, step, status): count for (step, status), count in sorted(facts.totals.steps.items())},
        ("step", "status"),
    )
    if last is None:
        return
    entries = last.steps.values()
    yield _gauge(
        "sparring_step_status",
        "1 for how the last attempt at a step of the last round ended, or that it runs",
        {(line, e.step, status): status == last.status(e) for e in entries for status in STATUSES},
        ("step", "status"),
    )
    yield _gauge(
        "sparring_step_duration_seconds",
        "Time spent on a step of the last round, in attempts that ended",
        {(line, e.step): e.seconds for e in entries},
        ("step",),
    )
    yield _gauge(
        "sparring_step_start_timestamp_seconds",
        "When the last attempt at a step of the last round began",
        {(line, e.step): e.attempts[-1].start.timestamp() for e in entries if e.attempts},
        ("step",),
    )


def _training(facts: LineFacts) -> Iterator[Metric]:
    line, last = facts.line, facts.last
    yield _counter("sparring_trained_tokens", "Tokens that self-play trained on", {(line,): facts.totals.tokens})
    played = last.steps.get("selfplay") if last else None
    if last and last.tokens and played and played.seconds:
        speed = last.tokens / played.seconds
        help_ = "Tokens that self-play of the last round trained on, by second of the whole step"
        yield _gauge("sparring_trained_tokens_per_second", help_, {(line,): speed})


def _judges(facts: LineFacts) -> Iterator[Metric]:
    line = facts.line
    if facts.last and facts.last.judged:
        judged = facts.last.judged
        counts = {(line, "ok"): judged.rows - judged.void, (line, "void"): judged.void}
        yield _gauge(
            "sparring_judge_verdicts", "Verdicts of the last round; void ones cannot be used", counts, ("status",)
        )
        p95 = {(line, k[: -len(" p95_s")]): v for k, v in judged.usage.items() if k.endswith(" p95_s")}
        yield _gauge(
            "sparring_judge_latency_p95_seconds",
            "95th percentile of a judge's replies in the last round",
            p95,
            ("judge",),
        )
    names = sorted({judge for judge, _ in facts.totals.judges})[:MOST_LABELS]
    for what, (name, help_) in _JUDGES.items():
        found = facts.totals.judges
        yield _counter(name, help_, {(line, j): found[j, what] for j in names if (j, what) in found}, ("judge",))


def _rates(line: str, rates: Mapping[str, Mapping[str, Rate]]) -> tuple[list[Metric], int]:
    """A value, a lower and an upper end for each measure; and how many slices were beyond the bound."""
    found: list[Metric] = []
    dropped = 0
    for group, (name, help_) in _MEASURES.items():
        keys = sorted(key for key in rates if key.partition(".")[0] == group)
        dropped += len(keys[MOST_LABELS:])
        rows = [((line, role, k.partition(".")[2]), r) for k in keys[:MOST_LABELS] for role, r in rates[k].items()]
        for suffix, text, end in (
            ("", "", "value"),
            ("_low", ", lower end of 95 %", "low"),
            ("_high", ", upper end of 95 %", "high"),
        ):
            values = {labels: getattr(rate, end) for labels, rate in rows}
            found.append(_gauge(f"{name}{suffix}_ratio", help_ + text, values, ("model", "slice")))
    return found, dropped


def _pool(line: str, values: Mapping[str, float]) -> Iterator[Metric]:
    attacks = {(line, label): values[f"pool.{label}"] for label in ("harmful", "benign") if f"pool.{label}" in values}
    yield _gauge("sparring_pool_attacks", "Attacks in the pool, by what they ask for", attacks, ("label",))
    for key, (name, help_) in _POOL.items():
        if f"pool.{key}" in values:
            yield _gauge(name, help_, {(line,): values[f"pool.{key}"]})


def _gauge(
    name: str, help_: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, f"{help_}.", labels=["line", *labels])
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _counter(
    name: str, help_: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, f"{help_}.", labels=["line", *labels])
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family
