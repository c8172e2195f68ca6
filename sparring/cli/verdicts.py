"""`sparring verdicts import|join|check|show|schema`: other tools' results as verdict tables, for `sparring gate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import JsonOption, finish, new_app, print_facts, print_json

if TYPE_CHECKING:
    from sparring.importers.verdicts.table import Options

app = new_app("Verdict tables: import other tools' results, check, show and join them.")


class VerdictTool(StrEnum):
    """Tools whose results can be imported."""

    GARAK = "garak"
    HARMBENCH = "harmbench"
    INSPECT = "inspect"
    LM_EVAL = "lm-eval"


class KindName(StrEnum):
    """What the prompts are for."""

    HARMFUL = "harmful"
    BENIGN = "benign"
    CAPABILITY = "capability"


class RefusalName(StrEnum):
    """Where `refused` comes from when the tool says nothing."""

    TOOL = "tool"
    PHRASES = "phrases"


OutOption = Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write; an older one is replaced.")]
TableArgument = Annotated[Path, typer.Argument(help="A verdict table (Parquet).")]


@app.command("import")
def import_(
    tool: Annotated[VerdictTool, typer.Argument(help="Which tool wrote the files.")],
    files: Annotated[list[Path], typer.Argument(help="Its result files, all about one model.")],
    out: OutOption,
    model: Annotated[str | None, typer.Option(help="The model's digest or name; else taken from the log.")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite of all rows; else the tool's task.")] = None,
    kind: Annotated[KindName | None, typer.Option(help="Kind of all rows; else guessed, or asked for.")] = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="Slice of all rows; else guessed.")] = None,
    mapping: Annotated[Path | None, typer.Option("--map", help="Mapping file (YAML): docs/verdicts.md.")] = None,
    judge: Annotated[str | None, typer.Option(help="Added to the judge id, where the files do not name it.")] = None,
    refusals: Annotated[
        RefusalName, typer.Option(help="`phrases`: look for stock phrases where the tool says nothing of a refusal.")
    ] = RefusalName.TOOL,
    partial: Annotated[bool, typer.Option("--partial", help="Take an unfinished run; all its rows are void.")] = False,
    json: JsonOption = False,
) -> None:
    """Make one model's verdict table of a tool's result files."""

    def action() -> None:
        from sparring.cli.verdict_facts import imported_facts
        from sparring.importers.verdicts import MappingFile, Options, load_mapping

        rules: MappingFile = load_mapping(mapping) if mapping else Options().mapping
        options: Options = Options(
            model=model,
            suite=suite,
            kind=kind.value if kind else None,
            slice=slice_,
            judge=judge,
            mapping=rules,
            phrases=refusals is RefusalName.PHRASES,
            partial=partial,
        )
        _tell(imported_facts(tool.value, files, options, out), json)

    finish(action)


@app.command()
def join(
    files: Annotated[list[Path], typer.Argument(help="Verdict tables of one model.")],
    out: OutOption,
    json: JsonOption = False,
) -> None:
    """Make one table of several: one model, each answer once."""

    def action() -> None:
        from sparring.cli.verdict_facts import joined_facts

        _tell(joined_facts(files, out), json)

    finish(action)


@app.command()
def check(file: TableArgument, json: JsonOption = False) -> None:
    """Check a table as the gate would read it, and count it."""

    def action() -> None:
        from sparring.cli.verdict_facts import checked_facts

        _tell(checked_facts(file), json)

    finish(action)


@app.command()
def show(
    file: TableArgument,
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=1000, help="How many rows.")] = 10,
    show_text: Annotated[bool, typer.Option("--show-text", help="Print whole ids and names of behaviours.")] = False,
    json: JsonOption = False,
) -> None:
    """Print a table's first rows; behaviours, which may be worded, only by their first letters."""

    def action() -> None:
        from sparring.cli.verdict_facts import print_rows, shown_rows

        rows = shown_rows(file, number, show_text)
        print_json(rows) if json else print_rows(rows)

    finish(action)


@app.command()
def schema(json: JsonOption = False) -> None:
    """Print the table's columns, types and meanings: the public contract."""

    def action() -> None:
        from sparring.cli.verdict_facts import print_schema, schema_facts

        print_json(schema_facts()) if json else print_schema()

    finish(action)


def _tell(facts: dict[str, object], json: bool) -> None:
    if json:
        print_json(facts)
        return
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict)}
    print_facts(plain)
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            print(f"{name.replace('_', ' ')}:")
            for key, count in value.items():
                print(f"  {count:>7,}  {key}")
