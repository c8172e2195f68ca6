"""`sparring gate`: the release gate for any model, and what helps to plan one: `plan`, `policies`, `schema`.

`sparring gate CANDIDATE.parquet CHAMPION.parquet` is the command `decide`: a first word that is no command's name is
taken as a file.
"""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sparring.cli.common import (
    ConfigOption,
    JsonOption,
    LineOption,
    StoreOption,
    finish,
    new_app,
    open_line,
    print_json,
)

if TYPE_CHECKING:
    from sparring.gate.standalone import DecisionFile
    from sparring.judge.calibration import Calibration

_EXIT = {"PROMOTE": 0, "REJECT": 10, "INCONCLUSIVE": 11, "INVALID": 12}


class _FilesFirst(TyperGroup):
    """A group whose default command takes the arguments when the first is not the name of a command.

    `ctx` is a click context, typer's own copy of click or the real one, by typer's release.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `decide` in front of anything but a command or a call for help."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["decide", *args]
        return list(super().parse_args(ctx, args))


app = new_app(
    "Decide whether a candidate may replace a champion: `sparring gate CANDIDATE.parquet CHAMPION.parquet`."
    " Options: `sparring gate decide --help`."
)
app.info.cls = _FilesFirst
policies_app = new_app("The shipped policies.")
policies_app.info.no_args_is_help = False
app.add_typer(policies_app, name="policies", invoke_without_command=True)

FileOption = Annotated[Path | None, typer.Option(metavar="FILE")]


@app.command()
def decide(
    candidate: Annotated[Path, typer.Argument(help="Verdict table of the model that would be promoted (Parquet).")],
    champion: Annotated[
        Path, typer.Argument(help="Verdict table of today's model; in the first run the base model's.")
    ],
    reference: Annotated[
        Path | None, typer.Option(help="Verdict table of the first champion; needed once there was a second.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="A shipped policy or a YAML file; else `standard`, or `first-run`.")
    ] = None,
    first_run: Annotated[bool, typer.Option("--first-run", help="There is no champion yet.")] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="A person says yes, where the policy asks for it.")
    ] = False,
    ledger: Annotated[
        str | None, typer.Option(help="Folder or s3:// URL in which looks at α are paid and decisions recorded.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="The judge's calibration, as `sparring judge calibrate --json` prints it.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write decision.json here (see `schema`).")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the decision as Markdown here.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the decision as JUnit XML here.")] = None,
) -> None:
    """Decide (the default command). Exit code: 0 PROMOTE, 10 REJECT, 11 INCONCLUSIVE, 12 INVALID, 2 usage, 1 fault."""

    def action() -> int:
        from sparring.gate.policy import load_policy
        from sparring.gate.standalone import Case, Files, gate_files
        from sparring.store import open_store

        _check_places([path for path in (json, markdown, junit) if path])
        chosen = load_policy(policy or ("first-run" if first_run else "standard"))
        paths = {"candidate": candidate, "champion": champion} | ({"reference": reference} if reference else {})
        known = _calibration(calibration) if calibration else None
        case = Case(chosen, Files.read(paths), first_run, approve, known)  # type: ignore[arg-type]
        record = gate_files(case, open_store(ledger) if ledger else None)
        _write_forms(record, json, markdown, junit)
        _say(record, ledger)
        return _EXIT[record.decision.outcome]

    finish(action)


@app.command()
def plan(
    policy: Annotated[str, typer.Option(help="A shipped policy or a YAML file.")] = "standard",
    counts: Annotated[
        list[str] | None, typer.Option(help="Prompts of a slice, as in harmful/vanilla=500; else the policy's least.")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--table", help="A verdict table whose prompts are counted.")
    ] = None,
    suites: Annotated[
        str | None,
        typer.Option(help="Prepared suites whose prompts are counted: a digest in the line's store, or its folder."),
    ] = None,
    asr: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The champion's measured ASR, else assumed.")
    ] = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Say what can be shown with these suites before money is spent."""

    def action() -> None:
        from sparring.cli.gate_facts import planned, prepared

        known = prepared(suites, lambda: open_line(config, store, line)[1]) if suites else None
        table = planned(policy, counts or [], tables or [], asr, known)
        print_json(table.model_dump(mode="json")) if json else print("\n".join(table.lines()))

    finish(action)


@app.command()
def simulate(
    policy: Annotated[str, typer.Option(help="A shipped policy or a YAML file: your own.")] = "standard",
    counts: Annotated[
        list[str] | None, typer.Option(help="Prompts of a slice, as in harmful/vanilla=500; else the policy's least.")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--table", help="A verdict table whose prompts are counted.")
    ] = None,
    years: Annotated[int, typer.Option(min=1, help="Years in which the same model is looked at.")] = 100,
    looks: Annotated[int, typer.Option(min=1, help="Looks at each other world.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    json: JsonOption = False,
) -> None:
    """Play the policy in worlds whose truth is known: what it promotes, and what it lets pass."""

    def action() -> None:
        from sparring.cli.gate_facts import print_simulation, simulated

        found = simulated(policy, counts or [], tables or [], years, looks, seed)
        print_json(found.model_dump(mode="json")) if json else print_simulation(found)

    finish(action)


@app.command()
def schema(
    of_round: Annotated[bool, typer.Option("--round", help="Of a round's decision.json instead.")] = False,
) -> None:
    """Print the JSON schema of decision.json."""

    def action() -> None:
        from sparring.gate.standalone import DecisionFile
        from sparring.steps.gate import GateRecord

        print_json((GateRecord if of_round else DecisionFile).model_json_schema())

    finish(action)


@policies_app.callback()
def policies(context: typer.Context) -> None:
    """List the shipped policies; `show NAME` prints one with its comments."""
    if context.invoked_subcommand is None:
        finish(_list_policies)


@policies_app.command("list")
def list_() -> None:
    """List the shipped policies with their first words."""
    finish(_list_policies)


@policies_app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a shipped policy.")]) -> None:
    """Print a shipped policy with its comments: the start of your own."""

    def action() -> None:
        from sparring.gate.policy import policy_text

        print(policy_text(name), end="")

    finish(action)


def _list_policies() -> None:
    from sparring.gate.policy import policy_text, shipped_policies

    names = shipped_policies()
    width = max(map(len, names))
    for name in names:
        comment = takewhile(lambda line: line.startswith("#"), policy_text(name).splitlines())
        words = " ".join(line.lstrip("# ") for line in comment).removeprefix(f"{name}: ")
        print(f"{name:<{width}}  {words.partition('. ')[0].partition(' (')[0]}")


def _say(record: DecisionFile, ledger: str | None) -> None:
    from sparring.gate.forms import terminal

    print(terminal(record.decision), end="")
    if ledger:
        paid = f"look {record.look.round} of the ledger" if record.look else "no look was needed"
        print(f"ledger: {ledger}: {paid}, decided {record.decided_at:%Y-%m-%d %H:%M:%S} UTC")


def _calibration(path: Path) -> Calibration:
    from json import dumps, loads

    from pydantic import ValidationError

    from sparring.errors import ConfigError
    from sparring.judge.calibration import Calibration

    hint = "write it with `sparring judge calibrate --json`"
    try:
        found = loads(path.read_bytes())
        said = {key: value for key, value in found.items() if key not in ("digest", "stored", "stale")}
        return Calibration.model_validate_json(dumps(said))
    except OSError as error:
        raise ConfigError(f"calibration {path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ConfigError(f"calibration {path}: {where}: {first['msg']}", hint=hint) from error
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"calibration {path}: not a JSON object", hint=hint) from error


def _check_places(paths: list[Path]) -> None:
    """Before α is spent: can the forms be written at all?"""
    from sparring.errors import UsageError

    for path in paths:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise UsageError(f"{path} cannot be written", hint="name a file in a folder that is there")


def _write_forms(record: DecisionFile, json: Path | None, markdown: Path | None, junit: Path | None) -> None:
    from sparring.errors import UsageError
    from sparring.gate import forms

    texts = {
        json: record.model_dump_json(indent=1) + "\n",
        markdown: forms.markdown(record.decision),
        junit: forms.junit(record.decision),
    }
    for path, text in texts.items():
        if path is None:
            continue
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
