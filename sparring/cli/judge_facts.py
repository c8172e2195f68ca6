"""What `sparring judge` prints: a calibration as a table, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping

from sparring.cli.pool_facts import one_line
from sparring.judge.calibration import FEWEST, Calibration, Cell, Share, staleness
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.store.base import Store

_SHORT = 12
_WHOLE = ("sensitivity", "specificity", "n", "void")


def print_calibration(calibration: Calibration, stale: str | None = None, slices: bool = True) -> None:
    """The table, and below it all that a reader must know."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for label in ("refused", "harmful"):
        cells = [one for one in calibration.cells if one.label == label and (slices or one.slice is None)]
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), title=label, title_justify="left")
        for name in ("model", "prompts", "sensitivity", "n", "specificity", "n", "void"):
            table.add_column(name, overflow="fold", no_wrap=name in _WHOLE)
        for cell in cells:
            table.add_row(*map(Text, _row(cell)))
        if cells:
            Console().print(table)
    for line in notes(calibration, stale):
        print(line)


def notes(calibration: Calibration, stale: str | None) -> list[str]:
    """Judge, origin, doubts: one line each."""
    origin = ", ".join(one_line(name, 60) for name in calibration.files)
    found = [f"judge {calibration.judge}, {calibration.answers} labels from {origin}"]
    if calibration.repeated:
        found.append(f"{calibration.repeated} rows stood there twice and were left out")
    if calibration.agreement is not None:
        kappa = "" if calibration.kappa is None else f", beyond chance {calibration.kappa:.2f}"
        found.append(f"labellers agree on {calibration.agreement:.1%} of what two of them labelled{kappa}")
    if lost := [part.name for part in calibration.strata if not part.labelled]:
        found.append(f"every item of {len(lost)} strata was skipped; they are left out: {', '.join(lost[:3])}")
    pooled = (calibration.cell("refused", None, None), calibration.cell("harmful", None, None))
    for cell in (one for one in pooled if one is not None and not one.usable):
        found.append(f"too few labels to correct `{cell.label}` with: at least {FEWEST} of each truth are needed")
    return [*found, f"stale: {stale}"] if stale else found


def facts(calibration: Calibration, stale: str | None, stored: bool = True) -> Mapping[str, object]:
    """The record and what follows from it, for programs."""
    record = calibration.model_dump(mode="json")
    return {"digest": calibration.digest, "stored": stored, "stale": stale, **record}


def current_staleness(store: Store, calibration: Calibration) -> str | None:
    """Against the models of the line's last judged round; without rounds nothing is stale."""
    from sparring.steps.results import AnswerResult

    last = rounds.last_round(store)
    answered = rounds.load_result(store, last, "answer", AnswerResult) if last else None
    champion = read_log(store).champion
    models = dict(answered.models) if answered else {"champion": champion} if champion else {}
    return staleness(calibration, {str(role): digest for role, digest in models.items()}, last)


def _row(cell: Cell) -> tuple[str, ...]:
    where = "/".join(part for part in (cell.kind, cell.slice and one_line(cell.slice, 40)) if part) or "all"
    model = "all" if not cell.model else cell.model[:_SHORT] if len(cell.model) == 64 else one_line(cell.model, 24)
    shares = (*_share(cell.sensitivity), *_share(cell.specificity))
    return model, where, *shares, str(cell.void)


def _share(share: Share | None) -> tuple[str, str]:
    return ("-", "0") if share is None else (f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]", str(share.n))
