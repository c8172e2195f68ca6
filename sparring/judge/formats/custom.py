"""Your own judge: a template with `{prompt}` and `{answer}`, and a rule for each label of its reply."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sparring.config.judges import EndpointConfig, LabelRule
from sparring.judge.formats.base import TOO_LONG, Format, Request, filled, line_markers, lines, neutral, verdict
from sparring.judge.protocol import Verdict
from sparring.store.canonical import canonical

MAX_LINE = 200
"""Characters of a line that a rule is tried on: a user's expression must not take long on a hostile reply."""


def make(config: EndpointConfig) -> Format:
    """The format that the endpoint's template and rules describe."""
    template, system = config.template or "", config.system
    rules = {name: rule for name in ("prompt_harmful", "refused", "harmful") if (rule := getattr(config, name))}
    expressions = {name: _expression(rule) for name, rule in rules.items()}
    markers = line_markers(*(re.escape(rule.label) for rule in rules.values()))

    def build(prompt: str, answer: str) -> Request:
        text = filled(template, neutral(prompt, markers), neutral(answer, markers))
        first = ({"role": "system", "content": system},) if system else ()
        return Request(messages=(*first, {"role": "user", "content": text}))

    def parse(reply: str) -> Verdict:
        found: dict[str, bool] = {}
        for name, rule in rules.items():
            value = read(reply, expressions[name], rule)
            if isinstance(value, str):
                return Verdict.void(value)
            found[name] = value
        return verdict(**found)

    return Format(
        name="custom",
        source="the run file",
        text=canonical([system, template, _described(rules)]).decode(),
        max_tokens=256,
        build=build,
        parse=parse,
    )


def read(reply: str, expression: re.Pattern[str], rule: LabelRule) -> bool | str:
    """What the reply says by this rule, or why nothing can be read: no such line, another word, a contradiction."""
    rows = lines(reply)
    if rows is None:
        return TOO_LONG
    words = {m[1] for row in rows if len(row) <= MAX_LINE and (m := expression.fullmatch(row))}
    said = {_meaning((word or "").strip().lower(), rule) for word in words}
    if not said:
        return f"the reply has no line for `{rule.label}`"
    if len(said) > 1:
        return f"the reply says `{rule.label}` twice, and not the same"
    value = said.pop()
    return f"the reply has a word for `{rule.label}` that means neither yes nor no" if value is None else value


def _meaning(word: str, rule: LabelRule) -> bool | None:
    if word in {known.strip().lower() for known in rule.means_yes}:
        return True
    return False if word in {known.strip().lower() for known in rule.means_no} else None


def _expression(rule: LabelRule) -> re.Pattern[str]:
    if rule.pattern is not None:
        return re.compile(rule.pattern, re.IGNORECASE)
    return re.compile(rf"{re.escape(rule.label)}\s{{0,4}}:\s{{0,4}}(.{{0,80}}?)", re.IGNORECASE)


def _described(rules: Mapping[str, LabelRule]) -> dict[str, object]:
    return {name: rule.model_dump(mode="json") for name, rule in rules.items()}
