"""`sparring config show|validate|schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import ConfigOption, SetOption, finish, load, new_app, print_json

app = new_app("The run file: every key documented, unknown ones refused.")


@app.command()
def show(config: ConfigOption = None, override: SetOption = None) -> None:
    """Print the run file with every key in force under its description."""

    def action() -> None:
        from sparring.config.render import render

        print(render(load(config, override)), end="")

    finish(action)


@app.command()
def validate(file: Annotated[Path, typer.Argument(help="Run file to check.")], override: SetOption = None) -> None:
    """Check a run file: exit code 0, or 2 with one line that names file, line, key and what is allowed."""

    def action() -> None:
        found = load(file, override)
        print(f"{file}: valid (recipe {found.recipe}, line {found.line}, store {found.store})")

    finish(action)


@app.command()
def schema() -> None:
    """Print the JSON schema of the run file, for editors."""

    def action() -> None:
        from sparring.config.load import json_schema

        print_json(json_schema())

    finish(action)
