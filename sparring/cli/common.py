"""What all commands share: options, one line for every mistake, the line's store, JSON or tables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sparring.errors import SparringError

if TYPE_CHECKING:
    from sparring.config.run import RunConfig
    from sparring.store.base import Store

DEFAULT_FILE: Final = Path("sparring.yaml")
"""Run file taken from the working folder when no other is named and it is there."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help=f"Run file; else ./{DEFAULT_FILE} when there is one, else defaults."),
]
StoreOption = Annotated[str | None, typer.Option("--store", help="Store: a folder or s3://bucket/prefix.")]
LineOption = Annotated[str | None, typer.Option("--line", help="Model line in the store.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Any key of the run file: section.key=value.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]


def new_app(text: str) -> typer.Typer:
    """A typer application with our habits: no tracebacks of its own, help when called without arguments."""
    return typer.Typer(
        help=text, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )


def finish(action: Callable[[], int | None]) -> None:
    """Runs `action` and exits with its code; a SparringError is one line on standard error and its own code."""
    raise typer.Exit(guarded(action))


def guarded(action: Callable[[], int | None]) -> int:
    """Exit code of `action`, see `finish`."""
    try:
        return action() or 0
    except SparringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return int(getattr(stop, "code", 130))


def load(config: Path | None, override: list[str] | None, **named: str | int | None) -> RunConfig:
    """The run file with overrides; `named` options win. Raises ConfigError."""
    from sparring.config.load import load_run

    if config is None and DEFAULT_FILE.is_file():
        config = DEFAULT_FILE
    # text is quoted (JSON is YAML): `--line 7` is a name, not a number
    chosen = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    return load_run(config, [*(override or []), *chosen])


def open_line(config: Path | None, store: str | None, line: str | None) -> tuple[RunConfig, Store]:
    """The store of the line that the options, the run file or the defaults name. Raises UsageError when it is empty."""
    from sparring.errors import UsageError
    from sparring.store import open_store

    found = load(config, None, store=store, line=line)
    opened = open_store(found.store).scope(f"lines/{found.line}")
    if not opened.list("rounds/"):
        raise UsageError(
            f"line {found.line!r} in {found.store} has no rounds", hint="name another --store or --line, or run"
        )
    return found, opened


def user_name(named: str | None = None) -> str:
    """The name given, or the user's; a container's user may have none."""
    from getpass import getuser

    try:
        return named or getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def need_reason(reason: str) -> None:
    """Raises UsageError for an empty one."""
    from sparring.errors import UsageError

    if not reason.strip():
        raise UsageError("a reason must be given: the champion log keeps it")


def print_json(value: object) -> None:
    """Prints JSON with times as ISO text."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_facts(facts: Mapping[str, object]) -> None:
    """Prints names and values in two columns; nothing is cut, so that paths can be copied."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}  {'-' if value is None else value}")
