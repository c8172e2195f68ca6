"""The Markdown form, for a pull request or a CI job's summary. Nothing in it is read as markup by accident."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sparring.gate.forms.rows import HEADINGS, MEANING, clean, facts, notes, rows
from sparring.gate.outcome import Decision

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#!|~&@]|:(?=//)|(?<=www)\.)")


def markdown(decision: Decision) -> str:
    """A section with the outcome, the reason, the tests as a table and lists of what stands beside them."""
    return "\n".join(_lines(decision)) + "\n"


def escaped(text: object) -> str:
    """Text that renders as itself: no markup, no HTML, no link, no mention, one line."""
    return _MARKUP.sub(r"\\\1", " ".join(clean(text).split()))


def _lines(decision: Decision) -> Iterator[str]:
    yield f"## Gate: {decision.outcome}"
    yield f"\n*{MEANING[decision.outcome]}*\n"
    yield escaped(decision.reason)
    if found := rows(decision):
        yield "\n| " + " | ".join(HEADINGS) + " |"
        yield "|" + " --- |" * len(HEADINGS)
        for row in found:
            yield "| " + " | ".join(escaped(cell) for cell in row.cells) + " |"
        yield "\nDifferences are in points, `nll_increase` in nats per token."
    yield ""
    for kind, text in notes(decision):
        yield f"- **{kind}**: {escaped(text)}"
    yield ""
    for name, value in facts(decision):
        yield f"- {name}: `{_code(value)}`"


def _code(text: str) -> str:
    return " ".join(clean(text).replace("`", "'").split())
