"""The panel at the end of a round: decision, why, the numbers with their intervals, champion, page."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sparring.errors import NotFoundError
from sparring.gate.outcome import Endpoint
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.steps.gate import read_record
from sparring.steps.results import GateResult, ReportResult
from sparring.store.base import Store

_COLORS: Final = {"PROMOTE": "green", "REJECT": "red", "INCONCLUSIVE": "yellow", "INVALID": "magenta"}
_MARKS: Final = {"pass": ("✓", "green"), "fail": ("✗", "red"), "open": ("?", "yellow")}
_SHORT: Final = 12


def closing_panel(store: Store, number: int, seconds: str) -> Panel:
    """What the round came to. Raises NotFoundError when it has not ended."""
    end, gate = rounds.load_end(store, number), rounds.load_result(store, number, "gate", GateResult)
    if end is None:
        raise NotFoundError(f"round {number} in {store.url} has not ended")
    parts: list[RenderableType] = [Text(end.reason), Text("")]
    endpoints = read_record(store, gate.decision_key).decision.endpoints if gate else []
    if endpoints:
        parts += [numbers(endpoints), Text("")]
    color = _COLORS.get(end.decision, "magenta")
    return Panel(
        Group(*parts, _places(store, number)),
        title=Text(f" round {number}: {end.decision} ", f"bold {color}"),
        subtitle=seconds,
        border_style=color,
        padding=(1, 2),
    )


def numbers(endpoints: list[Endpoint]) -> Table:
    """One row a test or limit: held or not, candidate, comparator, difference with its 95 % interval."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", "test", "candidate", "against", "difference [95 %]"):
        table.add_column(name, justify="left" if name in ("", "test") else "right")
    for endpoint in endpoints:
        table.add_row(Text(*_MARKS[endpoint.status]), endpoint.name, *_values(endpoint))
    return table


def _values(endpoint: Endpoint) -> tuple[str, str, str]:
    estimate, low, high = (_number(endpoint, value) for value in (endpoint.estimate, endpoint.low, endpoint.high))
    interval = f"{estimate} [{low}, {high}]"
    if endpoint.comparator is None:
        return interval, f"limit {_number(endpoint, endpoint.margin)}", ""
    against = f"{endpoint.against} {_number(endpoint, endpoint.comparator)}"
    return _number(endpoint, endpoint.candidate), against, interval


def _number(endpoint: Endpoint, value: float) -> str:
    """Shares in percent, nats per token as they are."""
    return f"{value:.3f}" if "nll" in endpoint.name else f"{value:.1%}"


def _places(store: Store, number: int) -> Table:
    log = read_log(store)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    if log.champion:
        place = f"{store.url}/checkpoints/{log.champion}"
        grid.add_row("champion", f"{log.champion[:_SHORT]} of round {log.champion_round}\n{place}")
    else:
        grid.add_row("champion", "none yet")
    report = rounds.load_result(store, number, "report", ReportResult)
    if report:
        grid.add_row("report", report_place(store, report))
    return grid


def report_place(store: Store, report: ReportResult) -> str:
    """Path of the page, or its address in a store that is no folder."""
    return report.path or f"{store.url}/{report.html_key}"
