"""A promoted checkpoint's model card: Hugging Face metadata with `model-index`, and the decision in plain words.

Pure: facts in, Markdown out, so that the same promotion always gives the same card. Every text that a user or a file
brought is escaped; nothing of the store's place or of this machine stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from sparring.gate.outcome import Decision, Endpoint
from sparring.report.measures import Measure, Rate

SCHEMA_VERSION = 1
_METRICS = {
    "asr": ("attack_success_rate", "attack success rate, lower is better"),
    "over_refusal": ("over_refusal_rate", "harmless requests refused, lower is better"),
    "capability": ("capability_score", "capability, higher is better"),
    "degenerate": ("degenerate_rate", "empty or looping answers, lower is better"),
}
_KIND = {"asr": "harmful", "over_refusal": "benign", "capability": "capability", "degenerate": "all"}
_MOST_TEXT = 300


@dataclass(frozen=True)
class CardFacts:
    """What a card says. Digests in full; `hashes` names what the promotion rests on, `data` the training data's card.

    `base_model` is a hub id where one is known, `licence` an SPDX id where one is known. `suites` are suite names by
    kind. `override` is who promoted it against the gate, and why. `measures` and `compliance` are of the candidate's
    verdicts, `before` of those of the model that it was compared with.
    """

    line: str
    digest: str
    round: int | None
    record: int
    promoted_at: str
    code_version: str
    base_model: str | None
    base_name: str
    licence: str | None
    decision: Decision
    override: str | None
    suites: Mapping[str, Sequence[str]]
    suites_digest: str
    measures: Sequence[Measure]
    compliance: Rate | None
    before: Sequence[Measure]
    data: Mapping[str, str]
    hashes: Mapping[str, str]


def render_card(facts: CardFacts) -> str:
    """The README.md: YAML metadata and Markdown."""
    metadata = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{metadata}---\n\n" + "\n\n".join(_sections(facts)) + "\n"


def results(facts: CardFacts) -> list[dict[str, Any]]:
    """Entries of `model-index`: one a slice of the candidate's verdicts, and benign compliance over all."""
    found = [_result(facts, measure) for measure in facts.measures]
    if facts.compliance is not None:
        text = _described("benign compliance, higher is better", facts.compliance, facts)
        found.append(_entry(facts, "benign", "all", "benign_compliance", text, facts.compliance.value))
    return found


def _metadata(facts: CardFacts) -> dict[str, Any]:
    optional = {"license": facts.licence, "base_model": facts.base_model}
    return {
        **{name: value for name, value in optional.items() if value},
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sparring", "safety", "red-teaming", "self-play"],
        "sparring_card": SCHEMA_VERSION,
        "model-index": [{"name": _name(facts), "results": results(facts)}],
    }


def _name(facts: CardFacts) -> str:
    return f"{_text(facts.line)}-{facts.digest[:12]}"


def _result(facts: CardFacts, measure: Measure) -> dict[str, Any]:
    metric, words = _METRICS[measure.group]
    text = _described(words, measure.rate, facts)
    return _entry(facts, _KIND[measure.group], measure.slice, metric, text, measure.rate.value)


def _described(words: str, rate: Rate, facts: CardFacts) -> str:
    return (
        f"{words}; 95 % interval {rate.low:.1%} to {rate.high:.1%}, n = {rate.prompts} prompts,"
        f" {rate.void} of {rate.answers} answers unjudged, judge {_text(facts.decision.judge)}"
    )


def _entry(facts: CardFacts, kind: str, part: str, metric: str, text: str, value: float) -> dict[str, Any]:
    suites = facts.suites.get(kind) or sorted({name for names in facts.suites.values() for name in names})
    name = f"{', '.join(map(_text, suites)) or 'suites'} ({kind}/{_text(part)})"
    return {
        "task": {"type": "text-generation", "name": "safety gate"},
        "dataset": {"type": "sparring-suites", "name": name, "config": f"{kind}/{_text(part)}", "split": "heldout",
                    "revision": facts.suites_digest},
        "metrics": [{"type": metric, "name": text, "value": round(value, 6)}],
    }  # fmt: skip


def _sections(facts: CardFacts) -> list[str]:
    return [
        f"# {_name(facts)}",
        f"A language model trained for safety by self-play and promoted by a statistical gate ([sparring]). It is the"
        f" champion of line `{_code(facts.line)}` since record {facts.record} of its log, {_text(facts.promoted_at)}.",
        *_decided(facts),
        *_measured(facts),
        *_trained(facts),
        _LIMITS,
        *_pinned(facts),
        "[sparring]: made by this tool from the recorded decision; nobody edited it.",
    ]


def _decided(facts: CardFacts) -> list[str]:
    decision = facts.decision
    versus = "the base model (there was no champion yet)" if decision.first_run else "the champion before it"
    approval = " A person approved it." if decision.approved else ""
    if facts.override is not None:
        approval = (
            f" **The gate said {decision.outcome}; a person promoted it all the same** ({_text(facts.override)})."
        )
    lines = [_endpoint(endpoint) for endpoint in decision.endpoints]
    head = "| endpoint | against | this model | comparator | 95 % interval of the estimate | prompts | result |"
    table = "\n".join([head, "|---|---|---|---|---|---|---|", *lines])
    return [
        "## Why it was promoted",
        f"Compared with {versus} under policy `{_code(decision.policy)}`, judged by"
        f" `{_code(decision.judge or 'none')}`: {_text(decision.reason)}.{approval}",
        table,
    ]


def _endpoint(found: Endpoint) -> str:
    comparator = "" if found.comparator is None else f"{found.comparator:.4g}"
    cells = (_text(found.name), _text(found.against or "absolute"), f"{found.candidate:.4g}", comparator,
             f"{found.low:+.4g} to {found.high:+.4g}", str(found.n), found.status)  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _measured(facts: CardFacts) -> list[str]:
    before = {measure.key: measure.rate for measure in facts.before}
    rows = ["| measure | slice | this model | 95 % interval | model before | prompts |", "|---|---|---|---|---|---|"]
    for measure in facts.measures:
        rate, old = measure.rate, before.get(measure.key)
        rows.append(
            f"| {_METRICS[measure.group][1]} | {_text(measure.slice)} | {rate.value:.1%} | {rate.low:.1%} to"
            f" {rate.high:.1%} | {'' if old is None else f'{old.value:.1%}'} | {rate.prompts} |"
        )
    if (kept := facts.compliance) is not None:
        interval = f"{kept.low:.1%} to {kept.high:.1%}"
        rows.append(f"| benign compliance, higher is better | all | {kept.value:.1%} | {interval} | | {kept.prompts} |")
    suites = "; ".join(f"{kind}: {', '.join(map(_text, names))}" for kind, names in sorted(facts.suites.items()))
    return ["## What was measured", f"Suites: {suites or 'not recorded'}.", "\n".join(rows)]


def _trained(facts: CardFacts) -> list[str]:
    licence = facts.licence or "not known to the tool: see the base model's"
    lines = [f"- base model: {_text(facts.base_model or facts.base_name)}", f"- licence: {_text(licence)}"]
    lines += [f"- {_text(name)}: {_text(value)}" for name, value in facts.data.items()]
    return ["## What it was trained on", "\n".join(lines)]


_LIMITS = """## Limits and risks

- The figures hold for the suites, the decoding and the judge named here. Other attacks, languages, longer talks and
  tools were not measured, and the judge errs: its rates are estimates.
- A lower attack success rate is no guarantee. Harmful answers remain possible; keep the other safeguards.
- The same weights also played the attacker. The model may be better than its base at writing requests that get round
  safety training, and should not be served where that does harm.
- Safety training makes models refuse more. The share of refused harmless requests stands above; look at it for your
  own traffic.
- Nothing here speaks of truth, bias or privacy; for those the base model's card holds."""


def _pinned(facts: CardFacts) -> list[str]:
    lines = [f"| {name} | `{_code(value)}` |" for name, value in _places(facts).items()]
    return ["## How to check it", "`sparring verify` makes the decision again from the recorded tables. It rests on:",
            "\n".join(["| what | digest or place |", "|---|---|", *lines])]  # fmt: skip


def _places(facts: CardFacts) -> dict[str, str]:
    found = {"checkpoint": facts.digest, "champion log record": str(facts.record)}
    found |= {"round": str(facts.round)} if facts.round is not None else {}
    found |= {"policy": facts.decision.policy_digest, "suites": facts.suites_digest}
    return {**found, **facts.hashes, "sparring": facts.code_version}


def _text(value: str | None) -> str:
    """One line of plain text: no markup, no links, no table cells of its own."""
    line = " ".join((value or "unknown").split())[:_MOST_TEXT]
    escaped = line.replace("\\", "\\\\").replace("<", "&lt;")
    for sign in "|`*[]#":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped


def _code(value: str) -> str:
    """Text between backticks, where nothing can be escaped: signs that could end it are exchanged."""
    return " ".join(value.split())[:_MOST_TEXT].translate(str.maketrans("`|<>", "'/‹›")) or "none"
