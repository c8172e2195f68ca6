"""Loads prompts from the user's files: JSONL, CSV, Parquet, or a folder of them, here or in an object store."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparring.data import columns
from sparring.data.readers import READERS, Row, read_rows
from sparring.errors import DataError
from sparring.game.records import Label

T = TypeVar("T")


@dataclass(frozen=True)
class PromptRow:
    """One prompt. `place` is `file: row n` for messages; `intent` is the plain request behind an adversarial prompt.

    `behavior` and `category` are the file's own names or empty, `label` the file's own or None.
    """

    place: str
    prompt: str
    intent: str
    behavior: str
    category: str
    label: Label | None


def load_prompts(
    path: str,
    *,
    column: str | None = None,
    adversarial: bool = False,
    limit: int | None = None,
    max_chars: int,
) -> list[PromptRow]:
    """All prompts of a file or of all files in a folder (below it too, by name, other suffixes left out).

    `column` names the prompt's column, else it is found by the usual names (`sparring.data.columns`). `adversarial`
    takes WildJailbreak's adversarial phrasings where the file has them. `limit` takes so many, evenly spread.
    Raises DataError: one line with file, row and field.
    """
    with data_files(path) as files:
        rows = prompts_of(files, column=column, adversarial=adversarial, max_chars=max_chars)
    if not rows:
        raise DataError(f"{path}: no prompts in it")
    return evenly(rows, limit)


def prompts_of(
    files: Sequence[tuple[str, Path]], *, column: str | None = None, adversarial: bool = False, max_chars: int
) -> list[PromptRow]:
    """All prompts of `data_files`; see `load_prompts`."""
    return [prompt for _, file in files for prompt in _prompts(file, column, adversarial, max_chars)]


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes. Raises DataError where it cannot be read."""
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the system's refusal to read `path` into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror}") from error


def files_digest(files: Sequence[tuple[str, Path]]) -> str:
    """SHA-256 of the bytes of a single file; of several the SHA-256 over their names and digests, in order."""
    digests = [(name, file_digest(path)) for name, path in files]
    if len(digests) == 1:
        return digests[0][1]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests).encode()).hexdigest()


def evenly(rows: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of `rows`, evenly spread, in order."""
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[i * len(rows) // limit] for i in range(limit)]


@contextmanager
def data_files(path: str) -> Iterator[list[tuple[str, Path]]]:
    """The data files of `path`, with their names below it. Those of an `s3://` address are fetched for the time being.

    Raises DataError when there is none.
    """
    with _local(path) as place:
        yield _files(place)


@contextmanager
def _local(path: str) -> Iterator[Path]:
    if "://" not in path:
        yield Path(path)
        return
    from sparring.store import open_store  # only who reads from an object store needs its client

    parent, _, name = path.rstrip("/").rpartition("/")
    store = open_store(parent)
    keys = [key for key in store.list(name) if key == name or key.startswith(f"{name}/")]
    if not keys:
        raise DataError(f"{path}: no such object, and no objects under it")
    with tempfile.TemporaryDirectory(prefix="sparring-data-") as folder:
        for key in keys:
            (Path(folder) / key).parent.mkdir(parents=True, exist_ok=True)
            store.download(key, Path(folder) / key)
        yield Path(folder) / name


def _files(path: Path) -> list[tuple[str, Path]]:
    with readable(path):
        if path.is_file():
            return [(path.name, path)]
        if not path.is_dir():
            raise DataError(f"{path}: no such file or folder")
        inside = [(file.relative_to(path), file) for file in sorted(path.rglob("*")) if file.is_file()]
    known = [(str(name), file) for name, file in inside if file.suffix.lower() in READERS and not _hidden(name)]
    if not known:
        raise DataError(f"{path}: no data file in this folder", hint=f"known are {', '.join(READERS)}")
    return known


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _prompts(file: Path, column: str | None, adversarial: bool, max_chars: int) -> Iterator[PromptRow]:
    empty = True
    for row in read_rows(file):
        empty = False
        found = prompt_column(row, column, adversarial)
        if found == columns.ADVERSARIAL and column is None and not row.fields[found]:
            continue  # WildJailbreak's vanilla rows have no adversarial phrasing
        yield prompt_row(row, found, max_chars)
    if empty:
        raise DataError(f"{file}: the file holds no rows")


def prompt_column(row: Row, column: str | None, adversarial: bool = False) -> str:
    """The column that holds the row's prompt: `column`, or the first usual name. Raises DataError."""
    found = column or columns.prompt_column(row.fields, adversarial)
    if found is None or found not in row.fields:
        raise DataError(_no_column(row, column))
    return found


def _no_column(row: Row, column: str | None) -> str:
    present = ", ".join(map(repr, row.fields)) or "none"
    wanted = f"no column {column!r}" if column else f"no column with a usual name ({', '.join(columns.PROMPTS)})"
    return f"{row.place}: {wanted}; columns present: {present}"


def prompt_row(row: Row, column: str, max_chars: int) -> PromptRow:
    """The prompt in `column` with the file's names for it. Raises DataError (file, row, column)."""
    prompt = intent = text_in(row, column, max_chars)
    if column == columns.ADVERSARIAL and row.fields.get("vanilla"):
        intent = text_in(row, "vanilla", max_chars)
    if column == "Behavior" and row.fields.get(columns.CONTEXT):
        prompt = f"{text_in(row, columns.CONTEXT, max_chars)}\n\n---\n\n{intent}"  # as HarmBench joins them
        _bounded(prompt, f"{row.place}: {columns.CONTEXT} and {column}", max_chars)
    return PromptRow(
        place=row.place,
        prompt=prompt,
        intent=intent,
        behavior=columns.behavior_of(row.fields, column),
        category=columns.category_of(row.fields, column),
        label=columns.label_of(row.fields, column),
    )


def text_in(row: Row, column: str, max_chars: int) -> str:
    """The text in a column, stripped. Raises DataError (file, row, column): no text, empty, NUL, too long."""
    place, value = f"{row.place}, column {column!r}", row.fields[column]
    if not isinstance(value, str):
        raise DataError(f"{place}: must be text, not {kind_of(value)}")
    if "\0" in value:
        raise DataError(f"{place}: holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{place}: holds half a surrogate pair, which is no text")
    text = value.strip()
    if not text:
        raise DataError(f"{place}: is empty")
    _bounded(text, place, max_chars)
    return text


def _bounded(text: str, place: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise DataError(
            f"{place}: {len(text)} characters, at most {max_chars} are allowed",
            hint="shorten it, or raise data.max_prompt_chars",
        )


def kind_of(value: object) -> str:
    """What a value is, in words for messages."""
    names: Mapping[type, str] = {type(None): "null", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
