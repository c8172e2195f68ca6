"""`sparring`: looks at a line's champion, history and pages, and turns the champion back. Thin, imports late."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated, Final

import typer

from sparring import __version__
from sparring.cli import acts, config, exporter, gate, hooks, inspect, judge, models, pool, verdicts
from sparring.cli.common import new_app

app = new_app("Recurring safety training of language models by self-play, gated before every promotion.")
app.add_typer(config.app, name="config")
app.add_typer(gate.app, name="gate")
app.add_typer(pool.app, name="pool")
app.add_typer(judge.app, name="judge")
app.add_typer(verdicts.app, name="verdicts")
app.add_typer(hooks.app, name="hooks")
inspect.register(app)
acts.register(app)
models.register(app)
exporter.register(app)


_WITHOUT_PANDAS: Final = ("gate", "verdicts", "status", "history", "verify")


def main() -> None:
    """The program.

    pyarrow imports pandas at its first conversion where there is one, a second or two for nothing: commands that make
    no data frame do not let it.
    """
    if sys.argv[1:2] and sys.argv[1] in _WITHOUT_PANDAS:
        sys.meta_path.insert(0, _NoPandas())
    app()


class _NoPandas:
    """A finder that says: there is none."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Nothing to say of any other module."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left alone", name=name)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


if find_spec("pipelines") is not None and find_spec("pipelines.commands") is not None:
    from pipelines.commands import run

    app.command("run")(run)
