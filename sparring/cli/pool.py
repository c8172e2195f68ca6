"""`sparring pool stats|top|show|export|import|compact|forget`. Texts are shown only on request."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sparring.cli.common import (
    ConfigOption,
    JsonOption,
    LineOption,
    StoreOption,
    finish,
    load,
    new_app,
    print_facts,
    print_json,
)

if TYPE_CHECKING:
    from sparring.config.run import RunConfig
    from sparring.store.base import Store

_LEAST_ID: Final = 8
"""Digits by which an attack may be forgotten: an id that was cut short must not name another."""

app = new_app("The replay pool: attacks that once worked, and what became of them.")

ShowOption = Annotated[bool, typer.Option("--show-text", help="Print attack and seed texts; else only their length.")]


class Order(StrEnum):
    """What `top` sorts by, the most first."""

    FAILURES = "failures"
    RATE = "rate"
    VISITS = "visits"
    RECENT = "recent"


class LabelName(StrEnum):
    """What a good defender does: refuse a harmful prompt, answer a benign one."""

    HARMFUL = "harmful"
    BENIGN = "benign"


class FormatName(StrEnum):
    """Forms of an export."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    HF = "hf"


class ToolName(StrEnum):
    """Tools whose files can be imported."""

    GARAK = "garak"
    HARMBENCH = "harmbench"
    PROMPTFOO = "promptfoo"
    PYRIT = "pyrit"


LabelOption = Annotated[LabelName | None, typer.Option("--label", help="Only attacks of this label.")]


@app.command()
def stats(
    config: ConfigOption = None, store: StoreOption = None, line: LineOption = None, json: JsonOption = False
) -> None:
    """Count the pool: attacks by label and source, visits, what is mastered, resting or gone, files and bytes."""

    def action() -> None:
        from sparring.cli.pool_facts import pool_facts

        facts = pool_facts(*_open(config, store, line))
        print_json(facts) if json else print_facts({name: _plain(value) for name, value in facts.items()})

    finish(action)


@app.command()
def top(
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=1000, help="How many.")] = 10,
    by: Annotated[Order, typer.Option(help="What the most of comes first.")] = Order.FAILURES,
    label: LabelOption = None,
    show_text: ShowOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """List the attacks with the most failures, the highest rate, the most visits, or the newest."""

    def action() -> None:
        from sparring.cli.pool_facts import print_attacks, top_attacks

        rows = top_attacks(*_open(config, store, line), number, by.value, label.value if label else None, show_text)
        print_json(rows) if json else print_attacks(rows)

    finish(action)


@app.command()
def show(
    attack: Annotated[str, typer.Argument(help="Id of an attack, or its first digits.")],
    show_text: ShowOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Show one attack: its origin, its cluster and every outcome, of rejected candidates too."""

    def action() -> None:
        from sparring.cli.pool_facts import attack_facts, print_outcomes

        facts, outcomes = attack_facts(*_open(config, store, line), attack, show_text)
        if json:
            print_json({**facts, "outcomes": outcomes})
        else:
            print_facts(facts)
            print_outcomes(outcomes)

    finish(action)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File or, for `hf`, folder to write; it must not be there.")],
    format: Annotated[FormatName, typer.Option(help="JSON lines, Parquet, or a Hugging Face dataset folder.")],
    label: LabelOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Write the attacks, their seeds and counts to a file or folder, texts included."""

    def action() -> None:
        from sparring.registry.champion import read_log
        from sparring.replay.export import export as write
        from sparring.replay.pool import Pool

        _, opened = _open(config, store, line)
        pool = Pool(opened)
        state = pool.state(read_log(opened).accepted)
        done = write(pool.contents, state, path, format.value, label.value if label else None)
        print(f"{done.rows} attacks in {path}")

    finish(action)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The tool's output file.")],
    tool: Annotated[ToolName, typer.Option("--from", help="Which tool wrote it.")],
    label: Annotated[
        LabelName, typer.Option(help="Label of all its attacks: should a good defender refuse or answer?")
    ] = LabelName.HARMFUL,
    source: Annotated[
        str | None, typer.Option(help="Name by which these can be forgotten again; else tool:file name.")
    ] = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Add another tool's attacks: new ones only, none near a pooled one, none that stands in an evaluation suite."""

    def action() -> None:
        from sparring.cli.pool_facts import imported_facts

        found, opened = _line(config, store, line)
        facts = imported_facts(found, opened, file, tool.value, label.value, source)
        print_json(facts) if json else print_facts({name: _plain(value) for name, value in facts.items()})

    finish(action)


@app.command()
def compact(
    config: ConfigOption = None, store: StoreOption = None, line: LineOption = None, json: JsonOption = False
) -> None:
    """Rewrite small files into sorted ones, purge what was forgotten or evicted, and write a snapshot."""

    def action() -> None:
        from dataclasses import asdict

        from sparring.cli.pool_facts import print_compaction
        from sparring.replay.pool import Pool

        report = asdict(Pool(_open(config, store, line)[1]).compact())
        print_json(report) if json else print_compaction(report)

    finish(action)


@app.command()
def forget(
    source: Annotated[str | None, typer.Option(help="All attacks from this source of seeds.")] = None,
    attack: Annotated[list[str] | None, typer.Option("--id", help="An attack; may be given several times.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Take attacks out for good, by their source of seeds or by id. Their texts go with the next compact."""

    def action() -> None:
        from sparring.cli.pool_facts import forget_attacks
        from sparring.errors import UsageError

        if (source is None) == (not attack):
            raise UsageError("name either --source or --id")
        if source == "":
            raise UsageError("--source is empty", hint="`sparring pool stats` lists the sources")
        if short := next((name for name in attack or [] if len(name.strip()) < _LEAST_ID), None):
            raise UsageError(f"--id {short!r} is too short to forget by", hint=f"give {_LEAST_ID} digits or more")
        _, opened = _open(config, store, line)
        forget_attacks(opened, source, attack or [], _agreed if not yes else lambda question: True)

    finish(action)


def _agreed(question: str) -> bool:
    """Asks on the terminal. Raises UsageError where nobody can answer."""
    import sys

    from sparring.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(question, hint="nobody is there to answer: say --yes")
    return typer.confirm(question)


def _line(config: Path | None, store: str | None, line: str | None) -> tuple[RunConfig, Store]:
    """The run file and its line's store, whether anything is in it or not."""
    from sparring.store import open_store

    found = load(config, None, store=store, line=line)
    return found, open_store(found.store).scope(f"lines/{found.line}")


def _open(config: Path | None, store: str | None, line: str | None) -> tuple[RunConfig, Store]:
    """The same of a line that has a pool. Raises UsageError when it has none."""
    from sparring.errors import UsageError

    found, opened = _line(config, store, line)
    if not opened.list("pool/attacks/"):
        raise UsageError(
            f"line {found.line!r} in {found.store} has no pool", hint="name another --store or --line, run, or import"
        )
    return found, opened


def _plain(value: Any) -> object:
    """Counts by name in one line; names are those of foreign files, too."""
    from sparring.cli.pool_facts import one_line

    if isinstance(value, dict):
        return ", ".join(f"{one_line(str(name), 80) or '-'} {count:,}" for name, count in value.items()) or "-"
    if isinstance(value, str):
        return one_line(value, 200)
    return f"{value:,}" if isinstance(value, int) else value
