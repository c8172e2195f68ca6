"""`sparring approve|override|reanchor`: what a person may do to the champion log; each act keeps actor and reason."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import ConfigOption, LineOption, StoreOption, finish, need_reason, open_line, user_name
from sparring.cli.hooks import deliver_now

if TYPE_CHECKING:
    from pathlib import Path

    from sparring.registry.champion import Record

RoundOption = Annotated[int, typer.Option("--round", min=1, help="The round whose candidate it is.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the champion log.")]
ActorOption = Annotated[str | None, typer.Option(help="Who; else the user of this machine.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (approve, override, reanchor):
        app.command()(command)


def approve(
    number: RoundOption,
    reason: ReasonOption,
    actor: ActorOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Say yes to a candidate that waits for approval: the decision is made again, and it becomes champion."""

    def action() -> None:
        from sparring.steps.acts import approve as say_yes

        found, opened = open_line(config, store, line)
        key = _key(found.registry.verify_key)
        _print(say_yes(opened, number, actor=user_name(actor), reason=reason, verify_key=key))
        deliver_now(found, opened)

    finish(action)


def override(
    number: RoundOption,
    reason: ReasonOption,
    actor: ActorOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Make a held candidate champion AGAINST the gate. Never possible for INVALID."""

    def action() -> None:
        from sparring.steps.acts import override as overrule

        found, opened = open_line(config, store, line)
        key = _key(found.registry.verify_key)
        record = overrule(opened, number, actor=user_name(actor), reason=reason, verify_key=key)
        said = record.details.get("gate_reason", "")
        print(f"warning: the gate said {record.decision}: {said}; {record.actor} overruled it", file=sys.stderr)
        _print(record)
        deliver_now(found, opened)

    finish(action)


def reanchor(
    to: Annotated[str, typer.Option(help="Digest of an earlier champion, or its first 8 digits.")],
    reason: ReasonOption,
    actor: ActorOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Make an earlier champion the reference that later candidates are held against. The champion stays."""

    def action() -> None:
        from sparring.registry.champion import reanchor as move

        need_reason(reason)
        record = move(open_line(config, store, line)[1], to=to, actor=user_name(actor), reason=reason)
        print(f"record {record.number}: reference is {record.candidate}, before {record.details.get('before')}")

    finish(action)


def _print(record: Record) -> None:
    print(f"record {record.number} ({record.kind} of round {record.round}): champion is {record.champion}")


def _key(path: str | None) -> Path | None:
    from pathlib import Path

    return Path(path).expanduser() if path else None
