"""lm-evaluation-harness' samples: `samples_TASK_TIME.jsonl` of `--log_samples --output_path` (lm_eval 0.4).

A line is one question under one filter: `doc`, `doc_hash`, `filter`, `metrics` (names) and the metrics' values. The
file `results_TIME.json` of the same run must lie beside it: it names the model and says how many samples there are
(`n-samples`), without which a cut off file could not be told from a whole one. Multiple choice is read as capability,
slice `choice`, score `acc`; `exact_match` as slice `number`. The prompt id is the hash of task and document, so that it
does not depend on the prompt's template or on few-shot examples.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sparring.data.readers import read_rows
from sparring.errors import DataError
from sparring.importers.verdicts.base import (
    Found,
    Guess,
    Item,
    Record,
    as_record,
    canonical,
    checked,
    described,
    digest,
    read_document,
    whole,
)
from sparring.importers.verdicts.mapping import MappingFile, Reading

_NAME: Final = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[0-9.\-]+)\.jsonl")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_GUESSES: Final = (("acc", "choice"), ("exact_match", "number"))


def read_lm_eval(path: Path, mapping: MappingFile) -> Found:
    """The questions of one task, under one filter. Raises DataError."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise DataError(
            f"{path}: no samples file of lm-eval", hint="it is called samples_TASK_TIME.jsonl; keep the name"
        )
    task, results = name["task"], path.with_name(f"results_{name['time']}.json")
    version, model, expected = _results(results, task)
    rows = [Record(row.place, row.fields) for row in read_rows(path)]
    chosen = _filtered(rows, task, mapping)
    items = [_item(row, task, f"lm-eval@{version}") for row in chosen]
    _refuse_twice(chosen)
    short = None
    if expected is None:
        short = f"{path}: {results.name} is not beside it: whether all samples are there cannot be known"
    elif expected != len(items):
        short = f"{path}: {len(items)} samples, {results.name} says {expected}"
    return Found(items, model, short)


def _results(path: Path, task: str) -> tuple[str, str | None, int | None]:
    """Version, model and number of samples by the results file."""
    if not path.is_file():
        return "unknown", None, None
    results = as_record(read_document(path), f"{path}: the document")
    counts = results.record("n-samples")
    if task not in counts.fields:
        raise DataError(f"{path}: `n-samples` has no task {task!r}", hint="is it the results file of this run?")
    config = results.record("config")
    facts = {key: config.fields.get(key) for key in ("model", "model_args", "model_sha", "gen_kwargs")}
    facts |= {key: results.fields.get(key) for key in ("chat_template_sha", "system_instruction_sha")}
    model = results.text("model_name", default="") or config.text("model")
    samples = whole(counts.record(task), "effective")
    return results.text("lm_eval_version", default="unknown"), described(model, facts, f"{path}: model"), samples


def _filtered(rows: list[Record], task: str, mapping: MappingFile) -> list[Record]:
    names = sorted({row.text("filter") for row in rows})
    rule = mapping.rule(task)
    wanted = rule.filter if rule and rule.filter else names[0] if len(names) == 1 else None
    if wanted is None:
        hint = f"choose in a mapping file: rules: [{{match: {task}, filter: {names[0] if names else 'none'}}}]"
        raise DataError(f"{rows[0].place}: task {task!r} has {len(names)} filters ({', '.join(names)})", hint=hint)
    if wanted not in names:
        raise DataError(f"{rows[0].place}: no filter {wanted!r}; there are: {', '.join(names)}")
    return [row for row in rows if row.text("filter") == wanted]


def _refuse_twice(rows: list[Record]) -> None:
    seen: dict[int, str] = {}
    for row in rows:
        if (number := whole(row, "doc_id")) in seen:
            raise DataError(f"{row.place}: `doc_id` {number} is there twice (first in {seen[number]})")
        seen[number] = row.place


def _item(row: Record, task: str, judge: str) -> Item:
    metrics = row.list("metrics")
    if not all(isinstance(name, str) and name in row.fields for name in metrics):
        raise DataError(f"{row.place}: a metric that `metrics` names has no value")
    values = {str(name): row.fields[str(name)] for name in metrics}
    slices = [(name, part) for name, part in _GUESSES if name in values]
    guess = Guess(*(("capability", slices[0][1], {"score": Reading(source=slices[0][0])}) if slices else ()))
    return Item(
        place=row.place,
        task=task,
        prompt=canonical(["lm-eval", task, _document(row)]),
        behavior=f"{task}:{digest(_document(row))}",
        index=0,
        answer=_answer(row),
        tokens=None,
        signals=values | {f"doc.{key}": value for key, value in row.record("doc").fields.items()},
        judge=f"{judge} {task} filter {row.text('filter')}",
        guess=guess,
    )


def _document(row: Record) -> str:
    """The tool's own hash of the document; it is recomputed by nobody, so its form is checked."""
    found = row.text("doc_hash")
    if not _HASH.fullmatch(found):
        raise DataError(f"{row.place}: `doc_hash` is no sha256", hint="lm_eval 0.4.2 and later write one")
    return found


def _answer(row: Record) -> str | None:
    """The first generated text; a scored choice has none."""
    given = row.list("resps")
    first = given[0][0] if given and isinstance(given[0], list) and given[0] else None
    return checked(first, f"{row.place}: `resps`") if isinstance(first, str) else None
