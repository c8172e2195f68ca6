"""`sparring judge calibrate|label|show`: a judge's errors against people, and the labels that show them."""

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
    load,
    new_app,
    open_line,
    print_json,
    user_name,
)

if TYPE_CHECKING:
    from sparring.config.run import RunConfig
    from sparring.store.base import Store

app = new_app("The judge: its errors against human labels, and a queue to label its answers.")

JudgeOption = Annotated[str | None, typer.Option("--judge", help="Which judge; else the gate's of the run file.")]


@app.command()
def calibrate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Labelled CSV, JSONL or Parquet files; none: the labels of `label`.")
    ] = None,
    judge: JudgeOption = None,
    model: Annotated[str | None, typer.Option(help="Which model answered, where a file does not say.")] = None,
    queue: Annotated[str | None, typer.Option(help="Which labelling queue; else the latest.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Leave the slices out of the table.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing.")] = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Measure sensitivity and specificity of a judge against human labels, and keep them for the gate."""

    def action() -> None:
        from sparring.cli.judge_facts import current_staleness, facts, print_calibration
        from sparring.judge.calibration import save
        from sparring.steps import labelling

        found, opened = _line(config, store, line)
        chosen = labelling.last_queue(opened, queue) if not files else None
        asked = labelling.open_judge(found.judge, judge, None if dry_run else opened)
        made = (
            labelling.calibrate_labels(asked, opened, chosen)
            if chosen
            else labelling.calibrate_files(asked, files or [], model)
        )
        if not dry_run:
            save(opened, made)
        stale = current_staleness(opened, made)
        if json:
            print_json(facts(made, stale, stored=not dry_run))
        else:
            print_calibration(made, stale, slices=not brief)
            print(f"calibration {made.digest}{', not stored' if dry_run else ''}")

    finish(action)


@app.command()
def show(
    judge: JudgeOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    json: JsonOption = False,
) -> None:
    """Show the latest calibration of a judge and whether it still speaks for today's models."""

    def action() -> None:
        from sparring.cli.judge_facts import current_staleness, facts, print_calibration
        from sparring.errors import UsageError
        from sparring.judge.calibration import latest
        from sparring.steps.labelling import open_judge

        found, opened = _line(config, store, line)
        asked = open_judge(found.judge, judge)
        known = latest(opened, asked.id)
        if known is None:
            raise UsageError(f"no calibration of {asked.id} in line {found.line!r}", hint="`sparring judge calibrate`")
        stale = current_staleness(opened, known)
        print_json(facts(known, stale)) if json else print_calibration(known, stale)

    finish(action)


@app.command()
def label(
    page: Annotated[bool, typer.Option("--page", help="A page in the browser instead of the terminal.")] = False,
    round: Annotated[int | None, typer.Option(min=1, help="Whose answers; else the last judged round's.")] = None,
    sample: Annotated[int, typer.Option(min=20, max=5000, help="Answers to draw when the queue is new.")] = 240,
    by: Annotated[str | None, typer.Option("--by", help="Your name on the labels; else the user's name.")] = None,
    all_items: Annotated[bool, typer.Option("--all", help="Label also what others have labelled.")] = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Label answers of the current models, blind: neither the model nor the judge's verdict is shown."""

    def action() -> None:
        from sparring.evaluate.labels import LabelLog
        from sparring.steps.labelling import open_queue

        _, opened = open_line(config, store, line)
        log = LabelLog(opened, open_queue(opened, round, sample), user_name(by), all_items=all_items)
        if page:
            from sparring.cli.label_server import serve

            serve(log)
        else:
            from sparring.cli.label_terminal import label_in_terminal

            label_in_terminal(log)

    finish(action)


def _line(config: Path | None, store: str | None, line: str | None) -> tuple[RunConfig, Store]:
    """The run file and its line's store: a judge can be calibrated before the first round."""
    from sparring.store import open_store

    found = load(config, None, store=store, line=line)
    return found, open_store(found.store).scope(f"lines/{found.line}")
