"""Items of one model to a verdict table: kinds, slices, labels, prompt ids and judges; what is not judged is void.

An answer is `ok` only when every label that its kind needs was read (`NEEDED`); else it is void and carries no label
at all, so that the gate counts it as the worst case for the candidate and the best for the comparator.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from sparring.errors import DataError
from sparring.evaluate.tables import KINDS, check
from sparring.evaluate.tables import join as concat
from sparring.evaluate.verdicts import SCHEMA
from sparring.importers.verdicts.base import MAX_NAME, Found, Item, checked, digest
from sparring.importers.verdicts.labels import read_label, read_score
from sparring.importers.verdicts.mapping import EMPTY, Label, MappingFile, Reading, Rule
from sparring.judge.string_match import StringMatchJudge, matches
from sparring.judge.text import clean, degenerate

NEEDED: Final[Mapping[str, tuple[Label, ...]]] = {
    "harmful": ("harmful", "refused", "degenerate"),
    "benign": ("passed", "refused", "degenerate"),
    "capability": ("score",),
}
"""Labels that the gate needs of each kind."""

_BY_TEXT: Final = {"degenerate": "text-rule", "refused": StringMatchJudge().id}
"""Names of the rules on the answer's text, for the judge id."""


@dataclass(frozen=True)
class Options:
    """What the caller says about all answers; a rule of the mapping file goes before it, the reader's guess after.

    `phrases`: where the tool says nothing of a refusal, look for stock phrases in the answer (`judge/string_match.py`).
    `judge` is added to the judge id. `partial`: take an incomplete run, all of it void.
    """

    model: str | None = None
    suite: str | None = None
    kind: str | None = None
    slice: str | None = None
    judge: str | None = None
    mapping: MappingFile = EMPTY
    phrases: bool = False
    partial: bool = False


@dataclass
class Imported:
    """The table, where the model's id is from, rows by kind/slice and by why they are void, and what was guessed."""

    table: pa.Table
    model_from: str
    counts: Counter[str] = field(default_factory=Counter)
    voids: Counter[str] = field(default_factory=Counter)
    guesses: Counter[str] = field(default_factory=Counter)


def build(found: list[Found], options: Options) -> Imported:
    """The table of one model. Raises DataError: other models, unknown kinds, unreadable values, one answer twice."""
    model, origin = _model(found, options)
    done = Imported(SCHEMA.empty_table(), origin)
    rows = [
        _Row(item, number, _row(item, file.incomplete, model, options, done))
        for number, file in enumerate(found)
        for item in file.items
    ]
    if not rows:
        raise DataError("no answers in the files", hint="is it the right file? the tool may have logged none")
    _number(rows)
    done.guesses.update(note for file in found for note in file.notes)
    done.table = settled(pa.Table.from_pylist([row.fields for row in rows], schema=SCHEMA))
    check(done.table, "imported verdicts")
    return done


def settled(table: pa.Table) -> pa.Table:
    """Gives answers of several judges one judge id that names all and who judged which slice.

    A verdict table has one judge for answers and one scorer for capability: two tables compare only when the same
    judges judged the same slices, which is what the hash in the id says.
    """
    rows = table.to_pylist()
    for scored in (False, True):
        mine = [row for row in rows if (row["kind"] == "capability") == scored]
        names = sorted({row["judge"] for row in mine})
        if len(names) > 1:
            pairs = sorted({(row["suite"], row["slice"], row["kind"], row["judge"]) for row in mine})
            each = f"{len(names)} judges #{digest(repr(pairs), 12)}: {'; '.join(names)}"
            for row in mine:
                row["judge"] = each if len(each) <= 600 else each[:599] + "…"
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def join(tables: list[pa.Table]) -> pa.Table:
    """Several checked tables of one model as one. Raises InvalidEvaluation: other models, one answer twice."""
    table = settled(concat(tables))
    check(table, "joined verdicts")
    return table


@dataclass
class _Row:
    item: Item
    file: int
    fields: dict[str, Any]


def _model(found: list[Found], options: Options) -> tuple[str, str]:
    named = sorted({file.model for file in found if file.model})
    for file in found:
        if file.incomplete and not options.partial:
            raise DataError(file.incomplete, hint="finish the run, or say --partial: all its rows become void")
    if options.model is not None:
        more = f"; the files name {len(named)} models or settings: {'; '.join(named)[:300]}" if len(named) > 1 else ""
        return _name(options.model, "--model"), f"given by --model{more}"
    if not named:
        raise DataError("no file names the model", hint="say --model NAME (its digest, where you have one)")
    if len(named) > 1:
        raise DataError(
            f"the files are about {len(named)} models or settings ({named[0]} and {named[1]})",
            hint="import each model by itself, or say --model NAME if they are one",
        )
    return named[0], "taken from the log: its name and a hash of what the log says about it, not of weights"


def _row(item: Item, incomplete: str | None, model: str, options: Options, done: Imported) -> dict[str, Any]:
    rule = options.mapping.rule(item.task) or Rule()
    kind = _kind(item, rule, options, done)
    part = rule.slice or options.slice or _guessed(item, "slice", item.guess.slice or _plain_slice(kind), done)
    suite = rule.suite or options.suite or _guessed(item, "suite", item.task, done)
    readings = _readings(item, kind, rule, options, done)
    labels = {label: _read(item, label, reading) for label, reading in readings.items()}
    fault = item.fault or (incomplete and "the run is not complete") or _lacking(kind, labels, readings)
    done.counts[f"{kind}/{part}"] += 1
    if fault:
        done.voids[f"{kind}/{part}: {fault}"] += 1
    answered = kind != "capability"
    return {
        "model": model,
        "suite": _name(suite, f"{item.place}: suite"),
        "slice": _name(part, f"{item.place}: slice"),
        "kind": kind,
        "prompt_id": digest(item.prompt),
        "behavior": _behavior(item, rule),
        "answer_index": item.index,
        "label": kind if answered else "",
        "tokens": _tokens(item) if answered else 0,
        "judge": _judge(item, readings, options),
        "status": "void" if fault else "ok",
        **({} if fault else _consistent(labels)),
    }


def _kind(item: Item, rule: Rule, options: Options, done: Imported) -> str:
    kind = rule.kind or options.kind
    if kind is None and item.guess.kind is None:
        hint = "say --kind harmful, benign or capability, or write a mapping file (docs/verdicts.md)"
        raise DataError(f"{item.place}: task {item.task!r}: its kind is not known", hint=hint)
    kind = kind or _guessed(item, "kind", str(item.guess.kind), done)
    if kind not in KINDS:
        raise DataError(f"{item.place}: kind is {kind!r}", hint=f"it must be one of {', '.join(KINDS)}")
    return kind


def _guessed(item: Item, what: str, value: str, done: Imported) -> str:
    done.guesses[f"{what} of {item.task}: {value}"] += 1
    return value


def _plain_slice(kind: str) -> str:
    return {"harmful": "vanilla", "benign": "plain"}.get(kind, "choice")


def _readings(item: Item, kind: str, rule: Rule, options: Options, done: Imported) -> dict[str, Reading | None]:
    """How each needed label is read; None: by a rule on the answer's text."""
    readings: dict[str, Reading | None] = {}
    for label in NEEDED[kind]:
        reading = rule.labels.get(label) or item.guess.labels.get(label)
        if reading is not None:
            readings[label] = reading
            if label not in rule.labels:
                _guessed(item, label, str(reading), done)
        elif label == "degenerate" or (label == "refused" and options.phrases):
            readings[label] = None
    return readings


def _read(item: Item, label: str, reading: Reading | None) -> bool | float | None:
    if item.fault:
        return None
    if reading is not None:
        return read_score(item, reading) if label == "score" else read_label(item, label, reading)
    if item.answer is None:
        return None
    text = clean(item.answer)
    return degenerate(text) if label == "degenerate" else matches(text)


def _lacking(kind: str, labels: Mapping[str, bool | float | None], readings: Mapping[str, Reading | None]) -> str:
    for label in NEEDED[kind]:
        if label not in readings:
            more = " (--refusals phrases would look for stock phrases)" if label == "refused" else ""
            return f"nothing says `{label}`: name a value in a mapping file{more}"
        if labels[label] is None:
            reading = readings[label]
            return f"no `{label}`: " + (
                f"`{reading.source}` is missing or void" if reading else "the answer is missing"
            )
    return ""


def _consistent(labels: Mapping[str, bool | float | None]) -> dict[str, bool | float | None]:
    """A refused or degenerate answer is no passed one, whatever a tool's scorer for correctness says."""
    fixed = dict(labels)
    if fixed.get("passed") and (fixed.get("refused") or fixed.get("degenerate")):
        fixed["passed"] = False
    return fixed


def _behavior(item: Item, rule: Rule) -> str:
    if rule.behavior is None:
        return _name(item.behavior, f"{item.place}: behaviour")
    if rule.behavior == "prompt":
        return f"{item.task}:{digest(item.prompt)}"[-MAX_NAME:]
    value = item.signals.get(rule.behavior)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(
            f"{item.place}: `{rule.behavior}` is no name of a behaviour", hint="mend `behavior` in the mapping"
        )
    return _name(str(value), f"{item.place}: `{rule.behavior}`")


def _judge(item: Item, readings: Mapping[str, Reading | None], options: Options) -> str:
    read = ", ".join(f"{label}={readings[label] or _BY_TEXT[label]}" for label in sorted(readings))
    more = f" {options.judge}" if options.judge else ""
    return f"{item.judge}{more} [{read}]"


def _tokens(item: Item) -> int:
    """The tool's count; else words."""
    return item.tokens if item.tokens is not None else len((item.answer or "").split())


def _number(rows: list[_Row]) -> None:
    """The same prompt twice in one file is two answers to it; in two files it is a file given twice, or a mistake."""
    for group in _asked(rows):
        if len({row.fields["answer_index"] for row in group}) == len(group):
            continue
        if len({row.file for row in group}) > 1:
            places = sorted({row.item.place for row in group})
            raise DataError(f"one answer stands in two files: {places[0]} and {places[-1]}", hint="give each file once")
        ordered = sorted(group, key=lambda row: int(row.fields["answer_index"]))  # stable: then as in the file
        for index, row in enumerate(ordered):
            row.fields["answer_index"] = index


def _asked(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    groups: dict[tuple[str, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.fields[name] for name in ("suite", "slice", "prompt_id"))].append(row)
    yield from groups.values()


def _name(text: str, place: str) -> str:
    if not text.strip() or len(text) > MAX_NAME or not text.isprintable():
        raise DataError(f"{place} is no name: 1 to {MAX_NAME} printable characters are allowed")
    return checked(text, place)
