"""`sparring status|champion|history|verify|rollback|report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import (
    ConfigOption,
    JsonOption,
    LineOption,
    StoreOption,
    finish,
    need_reason,
    open_line,
    print_facts,
    print_json,
    user_name,
)
from sparring.cli.hooks import deliver_now

if TYPE_CHECKING:
    from sparring.registry.champion import Record

_SHORT = 12


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (status, champion, history, verify, rollback, report):
        app.command()(command)


def status(
    config: ConfigOption = None, store: StoreOption = None, line: LineOption = None, json: JsonOption = False
) -> None:
    """Say where the line stands: champion, open round, last decision."""

    def action() -> None:
        from sparring.cli.facts import status_facts

        facts = status_facts(*open_line(config, store, line))
        print_json(facts) if json else print_facts(facts)

    finish(action)


def champion(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    copy_to: Annotated[Path | None, typer.Option(help="Copy the verified model folder below this folder.")] = None,
    json: JsonOption = False,
) -> None:
    """Say which model is champion and where it lies; or copy it out, every file verified."""

    def action() -> None:
        from sparring.cli.facts import champion_facts

        facts = champion_facts(open_line(config, store, line)[1], copy_to)
        print_json(facts) if json else print_facts(facts)

    finish(action)


def history(
    config: ConfigOption = None, store: StoreOption = None, line: LineOption = None, json: JsonOption = False
) -> None:
    """List the champion log: every promotion, hold, approval, override, policy change, rollback and reanchor."""

    def action() -> None:
        from sparring.registry.champion import read_log

        records = read_log(open_line(config, store, line)[1]).records
        if json:
            print_json([record.model_dump(mode="json") for record in records])
        else:
            _print_history(records)

    finish(action)


def verify(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with the EC public key of the signatures.")] = None,
) -> None:
    """Check the log's chain, make every promotion's decision again, read the champion's files and signature."""

    def action() -> None:
        from sparring.cli.facts import verified

        for text in verified(open_line(config, store, line)[1], key):
            print(text)

    finish(action)


def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the champion log.")],
    to: Annotated[str | None, typer.Option(help="Digest of an earlier champion, or its first 8 digits.")] = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Make an earlier champion the champion again, by a new record; without --to the one before."""

    def action() -> None:
        from sparring.registry.champion import rollback as go_back

        need_reason(reason)
        found, opened = open_line(config, store, line)
        record = go_back(opened, to=to, actor=user_name(), reason=reason)
        print(f"record {record.number}: champion is {record.champion}")
        deliver_now(found, opened)

    finish(action)


def report(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    number: Annotated[int | None, typer.Option("--round", help="Round; else the last one that has a page.")] = None,
) -> None:
    """Print where a round's HTML page is; it is written first when it is missing."""

    def action() -> None:
        from sparring.cli.facts import report_place

        found, opened = open_line(config, store, line)
        print(report_place(found, opened, number))

    finish(action)


def _print_history(records: tuple[Record, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("record", "time", "round", "kind", "decision", "candidate", "champion after", "actor", "reason"):
        table.add_column(name, overflow="fold")
    for record in records:
        texts = (record.round, record.kind, record.decision, _digest(record.candidate), _digest(record.champion))
        cells = (record.number, f"{record.time:%Y-%m-%d %H:%M}", *texts, record.actor, record.reason)
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    Console().print(table)


def _digest(value: str | None) -> str | None:
    return value[:_SHORT] if value else None
