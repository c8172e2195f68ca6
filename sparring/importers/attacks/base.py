"""What every importer finds, and how it looks at foreign JSON: strictly, naming file, row and field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from sparring.errors import DataError

MAX_FILE_BYTES: Final = 1 << 30
"""Largest file that is read in one piece."""


@dataclass(frozen=True)
class FoundAttack:
    """One attack of a single turn. `seed` is what it is about, `behavior` the tool's own name for its goal."""

    text: str
    seed: str
    behavior: str
    category: str
    place: str


@dataclass
class Found:
    """A file's attacks in its order, repeated ones too, and what was left out: reason → count."""

    attacks: list[FoundAttack] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Record:
    """An object of a foreign file under its place for messages, e.g. `hits.jsonl: row 3`."""

    place: str
    fields: Mapping[str, object]

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not blank; `default`, if any, stands for a missing, null or blank one. Raises DataError."""
        value = self.fields.get(name)
        if default is not None and (value is None or (isinstance(value, str) and not value.strip())):
            return default
        if not isinstance(value, str):
            raise self.fault(name, value, "a text")
        if not value.strip():
            raise DataError(f"{self.place}: `{name}` is empty")
        return checked(value, f"{self.place}: `{name}`")

    def record(self, name: str) -> Record:
        """An object inside. Raises DataError."""
        return as_record(self.fields.get(name), f"{self.place}: `{name}`")

    def maybe(self, name: str) -> Record:
        """An object inside, or one without fields where there is none."""
        return self.record(name) if self.fields.get(name) is not None else Record(f"{self.place}: `{name}`", {})

    def list(self, name: str) -> list[object]:
        """A list inside. Raises DataError."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise self.fault(name, value, "a list")
        return value

    def fault(self, name: str, value: object, wanted: str) -> DataError:
        """The error for a field of the wrong kind."""
        return DataError(f"{self.place}: `{name}` is {shown(value)}; it must be {wanted}")


def as_record(value: object, place: str) -> Record:
    """The object at `place`. Raises DataError when it is none."""
    if not isinstance(value, Mapping):
        raise DataError(f"{place} is {shown(value)}; it must be an object")
    return Record(place, value)


def read_document(path: Path, *, plain_json: bool = True) -> object:
    """A whole JSON file, or YAML unless `plain_json`. Raises DataError."""
    text = _read_text(path)
    try:
        return json.loads(text) if plain_json else yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:300]}") from error


def checked(text: str, place: str) -> str:
    """The text, if it is valid Unicode: JSON escapes can spell half a character. Raises DataError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place} has half a character (lone surrogate) at character {error.start + 1}") from error
    return text


def shown(value: object) -> str:
    """A foreign value in a message: short, and never its text."""
    if value is None:
        return "missing"
    return f"a {type(value).__name__}"


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB", hint="split it")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start + 1}", hint="save the file as UTF-8") from error
