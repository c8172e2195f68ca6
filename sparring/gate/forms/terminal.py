"""The terminal's form: the outcome first, then why, the tests as a table, and what stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from sparring.gate.forms.rows import HEADINGS, MEANING, clean, facts, notes, rows, widths
from sparring.gate.outcome import Decision

_TEXT_WIDTH = 100


def terminal(decision: Decision) -> str:
    """Plain text without colours, ending in a newline."""
    return "\n".join(_lines(decision)) + "\n"


def _lines(decision: Decision) -> Iterator[str]:
    yield f"{decision.outcome}: {MEANING[decision.outcome]}"
    yield from _wrapped("  ", clean(decision.reason))
    yield ""
    table = [HEADINGS, *(row.cells for row in rows(decision))]
    if len(table) > 1:
        sizes = widths(table)
        for cells in table:
            yield "  ".join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True)).rstrip()
        yield "(estimates of differences are in points, of nll_increase in nats per token)"
        yield ""
    for kind, text in notes(decision):
        yield from _wrapped(f"{kind}: ", text)
    for name, value in facts(decision):
        yield f"{name}: {value}"


def _wrapped(lead: str, text: str) -> Iterator[str]:
    yield from wrap(
        lead + " ".join(text.split()), _TEXT_WIDTH, subsequent_indent="  ", initial_indent="" if lead.strip() else "  "
    )
