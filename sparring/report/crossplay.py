"""Cross-play as the page shows it: a table shaded by attack success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparring.evaluate.crossplay import Cell, CrossPlay, forgotten
from sparring.report.measures import Rate
from sparring.report.numbers import percent


@dataclass(frozen=True)
class Shade:
    """One cell: its rate, None without a judged game, and how dark it is, in per cent."""

    rate: Rate | None
    heat: int


@dataclass(frozen=True)
class Row:
    """One attacker against all defenders."""

    attacker: str
    cells: Sequence[Shade]


def rows(found: CrossPlay | None) -> list[Row]:
    """A row an attacker; nothing while fewer than two players have met."""
    if found is None or len(found.attackers) < 2:
        return []
    return [Row(name, [_shade(cell) for cell in found.row(index)]) for index, name in enumerate(found.attackers)]


def said(found: CrossPlay | None) -> str:
    """What the matrix shows, in a sentence."""
    if found is None or len(found.attackers) < 2:
        return ""
    worse = forgotten(found)
    if not worse:
        return "No old attacker does better against the newest defender than against the defender of its own time."
    named = ", ".join(f"{one.attacker} ({percent(one.then)} then, {percent(one.now)} now)" for one in worse)
    return f"Forgotten: the newest defender falls more often than the one of its time for the attacks of {named}."


def _shade(cell: Cell) -> Shade:
    if cell.rate is None:
        return Shade(None, 0)
    low, high = cell.interval
    return Shade(Rate(cell.rate, low, high, cell.judged, cell.judged, cell.void), round(60 * cell.rate))
