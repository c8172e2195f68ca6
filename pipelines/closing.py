"""The panel at the end of a round: decision, why, the numbers with their intervals, champion, page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sparring.errors import NotFoundError
from sparring.gate.outcome import Decision, Endpoint
from sparring.integrations.deliveries import of_record
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.steps.gate import read_record
from sparring.steps.results import GateResult, ReportResult, SelfplayResult
from sparring.store.base import Store

_COLORS: Final = {"PROMOTE": "green", "REJECT": "red", "INCONCLUSIVE": "yellow", "INVALID": "magenta"}
_MARKS: Final = {"pass": ("✓", "green"), "fail": ("✗", "red"), "open": ("?", "yellow")}
_NAMES: Final = {
    "asr": "attack success",
    "asr_reduction": "attacks fell by",
    "asr_at_k": "attack success, any of k",
    "asr_increase": "attacks rose by",
    "over_refusal": "over-refusal",
    "benign_compliance": "benign helped",
    "nll_increase": "rise of NLL (nats)",
}
_MORE_IS_BETTER: Final = ("asr_reduction", "benign_compliance")


def print_closing(screen: Console, store: Store, number: int, seconds: str) -> None:
    """Prints what the round came to: a panel, and below it the places as whole lines, so that they can be copied.

    Raises NotFoundError when the round has not ended.
    """
    end, gate = rounds.load_end(store, number), rounds.load_result(store, number, "gate", GateResult)
    if end is None:
        raise NotFoundError(f"round {number} in {store.url} has not ended")
    decision = read_record(store, gate.decision_key).decision if gate else None
    color = _COLORS.get(end.decision, "magenta")
    title = Text(f" round {number}: {end.decision} ", f"bold {color}")
    screen.print(
        Panel(_content(end.reason, decision), title=title, subtitle=seconds, border_style=color, padding=(1, 2))
    )
    for name, place in _places(store, number):
        screen.print(Text.assemble((f"{name:<9} ", "bold"), place), soft_wrap=True)


def _content(reason: str, decision: Decision | None) -> RenderableType:
    if decision is None or not decision.endpoints:
        return Text(reason)
    comparator = "base model" if decision.first_run else "champion"
    return Group(Text(reason), Text(""), numbers(decision.endpoints, comparator))


def numbers(endpoints: list[Endpoint], comparator: str) -> Table:
    """One row a test or limit: held or not, what was found, the 95 % interval (of the difference), the demand.

    `comparator` names the champion, or in the first run the base model. Shares in percent, differences in points.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "test (%)", "found", "95 % interval", "asked for"):
        table.add_column(name, no_wrap=name != "asked for")
    for endpoint in endpoints:
        table.add_row(Text(*_MARKS[endpoint.status]), _name(endpoint), *_values(endpoint, comparator))
    return table


def _name(endpoint: Endpoint) -> str:
    """`over-refusal (plain)` for `over_refusal[plain]`."""
    metric, _, rest = endpoint.name.partition("[")
    name = _NAMES.get(metric, metric.replace("_", " "))
    return f"{name} ({rest.rstrip(']')})" if rest else name


def _values(endpoint: Endpoint, comparator: str) -> tuple[str, str, str]:
    value = _nats if endpoint.name.startswith("nll") else _percent
    interval = f"{value(endpoint.low)} to {value(endpoint.high)}"
    if endpoint.test == "limit":
        side = "at least" if endpoint.name.startswith(_MORE_IS_BETTER) else "at most"
        return value(endpoint.estimate), interval, f"{side} {value(endpoint.margin)}"
    other = comparator if endpoint.against == "champion" else str(endpoint.against)
    found = f"{value(endpoint.comparator or 0.0)} → {value(endpoint.candidate)}"
    asked = "less than" if endpoint.test == "superiority" else f"within {value(abs(endpoint.margin))} of"
    return found, interval, f"{asked} the {other}"


def _percent(value: float) -> str:
    return f"{value * 100:.1f}"


def _nats(value: float) -> str:
    return f"{value:.3f}"


def _places(store: Store, number: int) -> Iterator[tuple[str, str]]:
    log = read_log(store)
    if log.champion:
        yield "champion", f"{store.url}/checkpoints/{log.champion} (of round {log.champion_round})"
    else:
        yield "champion", "none yet"
    record = next((r.number for r in reversed(log.records) if r.round == number and r.decision), None)
    for told in of_record(store, record) if record else ():
        detail = told.attempts[-1].detail if told.attempts else "no longer how the line stands"
        yield "hook", f"{told.hook} ({told.event}) {told.state.replace('_', ' ')}: {detail}"
    trained = rounds.load_result(store, number, "selfplay", SelfplayResult)
    if trained and trained.stopped:
        yield "budget", f"self-play ended early: {trained.stopped}"
    if trained and trained.guard:
        yield "guard", f"self-play was stopped: {trained.guard}"
    report = rounds.load_result(store, number, "report", ReportResult)
    if report:
        yield "report", report.path or f"{store.url}/{report.html_key}"
