"""The commands of `python -m pipelines`; `sparring run` is the same function."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sparring.errors import SparringError, UsageError

DEFAULT_FILE = Path("sparring.yaml")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help=f"Run file; else ./{DEFAULT_FILE} when there is one, else defaults."),
]
StoreOption = Annotated[str | None, typer.Option("--store", help="Store: a folder or s3://bucket/prefix.")]
LineOption = Annotated[str | None, typer.Option("--line", help="Model line in the store.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Another key of the run file: section.key=value.")]
GiveUpOption = Annotated[bool, typer.Option("--give-up", help="Give up the open, undecided round and begin the next.")]


@app.command()
def run(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    give_up: GiveUpOption = False,
) -> None:
    """Play one round on this machine, or finish the one that was stopped.

    Exit code: 0 decided, 12 the evaluation was invalid, 2 a mistake in settings or data, 1 a fault, 130 stopped.
    """
    overrides = [*(override or []), *_named(store=store, line=line, seed=seed)]
    raise typer.Exit(guarded(lambda: _run(config, overrides, give_up)))


@app.command("compile")
def compile_(
    output: Annotated[Path, typer.Option("--output", "-o", help="YAML file to write.")],
) -> None:
    """Write the pipeline that Kubeflow runs; set SPARRING_IMAGE to the image of its steps."""
    raise typer.Exit(guarded(lambda: _compile(output)))


def guarded(action: Callable[[], int]) -> int:
    """Runs `action`; a SparringError becomes one line on standard error and its exit code."""
    try:
        return action()
    except SparringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return int(getattr(stop, "code", 130))


def _named(**values: str | int | None) -> list[str]:
    """Options as overrides. Text is quoted (JSON is YAML): `--line 7` is a name, not a number."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]


def _run(config: Path | None, overrides: list[str], give_up: bool) -> int:
    from pipelines.local import play_round
    from sparring.config.load import load_run

    if config is None and DEFAULT_FILE.is_file():
        config = DEFAULT_FILE
    return play_round(load_run(config, overrides), Console(), abandon=give_up)


def _compile(output: Path) -> int:
    from kfp import compiler

    from pipelines.pipeline import round_pipeline

    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(f"output {str(output)!r} must end in .yaml")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"output folder {str(output.absolute().parent)!r} does not exist")
    compiler.Compiler().compile(round_pipeline, str(output))
    print(f"wrote {output}")
    return 0
