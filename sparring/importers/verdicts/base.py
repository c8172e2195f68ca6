"""What every importer finds: one `Item` an answer, with the tool's own values under names, not yet read as labels.

A reader knows one tool's files; what its values mean for the gate is decided in one place (`table`), by a mapping
file, by options, and last by the guess that the reader adds. A reader never turns a missing value into a label.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sparring.errors import DataError
from sparring.importers.attacks.base import Record, as_record, checked, read_document, shown
from sparring.importers.verdicts.mapping import Reading

__all__ = ["Found", "Item", "Record", "as_record", "canonical", "checked", "digest", "read_document", "shown", "whole"]

MAX_NAME: Final = 200
"""Longest name (of a model, suite, slice, behaviour, judge part) that is kept."""


@dataclass(frozen=True)
class Guess:
    """What a reader takes an item for when neither mapping nor option says: kind, slice, label → how to read it."""

    kind: str | None = None
    slice: str | None = None
    labels: Mapping[str, Reading] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One answer as the tool left it.

    `task` is the tool's name for the set (Inspect or lm-eval task, garak probe). `prompt` is the text whose hash
    becomes the prompt id, `index` counts answers to it from 0. `signals` are the tool's values: scores by scorer,
    metadata as `metadata.name`. `fault` says why the tool itself has no verdict.
    """

    place: str
    task: str
    prompt: str
    behavior: str
    index: int
    answer: str | None
    tokens: int | None
    signals: Mapping[str, object]
    judge: str
    guess: Guess
    fault: str | None = None


@dataclass
class Found:
    """One file's items in its order; `model` as the file names it; `incomplete` says why it is not a whole run."""

    items: list[Item]
    model: str | None = None
    incomplete: str | None = None
    notes: list[str] = field(default_factory=list)


def canonical(value: object) -> str:
    """JSON with sorted keys: the same for every model that was asked the same. NaN is refused with ValueError."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest(text: str, length: int = 32) -> str:
    """The first `length` hex digits of the sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def described(name: str, facts: Mapping[str, object], place: str) -> str:
    """A model's id from what a log says about it: its name and the hash of all of it. Raises DataError."""
    try:
        return f"{checked(name, place)[:MAX_NAME]}#{digest(canonical(facts), 16)}"
    except ValueError as error:
        raise DataError(f"{place}: the model's description holds a number that is not finite") from error


def whole(record: Record, name: str, least: int = 0) -> int:
    """A whole number in the record, at least `least` and below 2³¹. Raises DataError."""
    value = record.fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise record.fault(name, value, "a whole number")
    if not least <= value < 1 << 31:
        raise DataError(f"{record.place}: `{name}` is {value:.6g}; it must be a whole number from {least}")
    return value


def missing(value: object) -> bool:
    """True for a value that says nothing: none, or NaN, which is how Inspect writes "not scored"."""
    return value is None or (isinstance(value, float) and math.isnan(value))
