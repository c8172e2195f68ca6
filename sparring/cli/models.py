"""`sparring export|sign|gc`: what becomes of checkpoints after the gate."""

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
    open_line,
    print_facts,
    print_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparring.registry.gc import Item

DigestOption = Annotated[
    str, typer.Option("--digest", help="`champion`, or a promoted checkpoint's digest (8 digits at least).")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (export, sign, gc):
        app.command()(command)


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must be new or empty.")],
    digest: DigestOption = "champion",
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Write a promoted model as a plain Hugging Face folder with its model card, every file verified."""

    def action() -> None:
        from sparring.cli.models_facts import exported

        facts = exported(open_line(config, store, line)[1], digest, folder)
        print_json(facts) if json else print_facts(facts)

    finish(action)


def sign(
    key: Annotated[
        Path, typer.Option("--key", envvar="SPARRING_SIGN_KEY", help="PEM file with the EC private key (P-256 …).")
    ],
    digest: DigestOption = "champion",
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Sign a promoted checkpoint (OpenSSF model signing, offline); SPARRING_SIGN_PASSWORD opens an encrypted key."""

    def action() -> None:
        from sparring.cli.models_facts import signed

        print(signed(open_line(config, store, line)[1], digest, key))

    finish(action)


def gc(
    keep_rounds: Annotated[int, typer.Option(help="Keep all that the last so many rounds name.")] = 10,
    keep_champions: Annotated[
        int | None, typer.Option(help="Keep the last so many champions' checkpoints, and the reference's; else all.")
    ] = None,
    grace_days: Annotated[float, typer.Option(help="Leave alone what was written in the last so many days.")] = 7.0,
    answers: Annotated[bool, typer.Option(help="Remove answer texts of older rounds too; verdicts stay.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it nothing is deleted.")] = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Say what the line's history no longer names, and with --yes delete it."""

    def action() -> None:
        from sparring.cli.models_facts import collected
        from sparring.registry.marks import Retention

        retention = Retention(keep_rounds, keep_champions, grace_days * 86_400.0, answers)
        found, opened = open_line(config, store, line)
        items, facts = collected(opened, found, retention, delete=yes)
        if json:
            print_json({**facts, "items": [_item(item) for item in items]})
            return
        _print_items(items)
        print_facts(facts)

    finish(action)


def _print_items(items: Sequence[Item]) -> None:
    for item in items:
        print(f"{item.kind:<10}  {item.name:<64}  {item.size:>15,} bytes  {item.age / 86_400.0:7.1f} days")


def _item(item: Item) -> dict[str, object]:
    return {"kind": item.kind, "name": item.name, "objects": item.objects, "bytes": item.size, "age_seconds": item.age}
