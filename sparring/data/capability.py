"""Reads capability rows: multiple choice (`choice`), worked answers with a final number (`number`), helpful answers
(`nll`). Which column holds what stands in `sparring.data.columns`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparring.config.run import SuiteSource
from sparring.data import columns
from sparring.data.columns import LETTERS
from sparring.data.load import kind_of, prompt_column, prompt_row, text_in
from sparring.data.numbers import final_number
from sparring.data.readers import Row, read_rows
from sparring.errors import DataError

_LETTERED: Final = re.compile(r"([A-Z])[.):](?:\s+|$)(.*)", re.DOTALL)


@dataclass(frozen=True)
class ScoredRow:
    """One capability row: `choices` and the index `answer` of the right one, or what is right as text in `target`.

    `target` of slice `number` is the final number in canonical form, of slice `nll` the good answer.
    """

    place: str
    prompt: str
    behavior: str
    category: str
    choices: tuple[str, ...] = ()
    answer: int | None = None
    target: str = ""


def scored_rows(files: Sequence[tuple[str, Path]], source: SuiteSource, max_chars: int) -> list[ScoredRow]:
    """All rows of the files of one capability suite. Raises DataError (file, row, column, value)."""
    return [_scored(row, source, max_chars) for _, file in files for row in read_rows(file)]


def _scored(row: Row, source: SuiteSource, max_chars: int) -> ScoredRow:
    column = prompt_column(row, source.column)
    prompt = prompt_row(row, column, max_chars)
    behavior, category = (columns.behavior_of(row.fields, column), columns.category_of(row.fields, column))
    place = (row.place, prompt.prompt, behavior, category)
    held = _answer_column(row, source)
    if source.slice == "choice":
        choices = _choices(row, max_chars)
        return ScoredRow(*place, choices=choices, answer=_index(row, held, choices))
    text = text_in(row, held, max_chars)
    return ScoredRow(*place, target=_number(row, held, text) if source.slice == "number" else text)


def _answer_column(row: Row, source: SuiteSource) -> str:
    found = source.answer or columns.answer_column(row.fields, source.slice)
    if found is None or found not in row.fields:
        wanted = f"{source.answer!r}" if source.answer else f"with a usual name ({columns.answer_names(source.slice)})"
        present = ", ".join(map(repr, row.fields)) or "none"
        raise DataError(f"{row.place}: no column {wanted} for the right answer; columns present: {present}")
    return found


def _number(row: Row, column: str, text: str) -> str:
    found = final_number(text)
    if found is None:
        shown = text if len(text) <= 60 else f"…{text[-60:]}"
        raise DataError(
            f"{row.place}, column {column!r}: no number in {shown!r}", hint="end the answer in `#### ` and its number"
        )
    return found


def _choices(row: Row, max_chars: int) -> tuple[str, ...]:
    """The choices, from a list, lettered lines, a JSON list in a cell, or columns A, B, C, …"""
    name = next((name for name in columns.CHOICES if name in row.fields), None)
    if name is None:
        lettered = list(_own_columns(row.fields))
        if len(lettered) < 2:
            present = ", ".join(map(repr, row.fields))
            raise DataError(
                f"{row.place}: no choices; columns present: {present}", hint="choices, options, or A, B, C, D"
            )
        return tuple(text_in(row, letter, max_chars) for letter in lettered)
    place, found = f"{row.place}, column {name!r}", _listed(row.fields[name])
    if len(found) < 2 or len(found) > len(LETTERS) or not all(isinstance(one, str) and one.strip() for one in found):
        shown = f"{row.fields[name]!r:.80}"
        raise DataError(f"{place}: 2 to {len(LETTERS)} choices are needed, each a text that is not empty, not {shown}")
    return tuple(_choice(str(one), f"{place}, choice {number}") for number, one in enumerate(found, start=1))


def _choice(text: str, place: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{place}: holds a NUL character or half a surrogate pair")
    return text.strip()


def _own_columns(fields: Mapping[str, object]) -> Iterator[str]:
    """A, B, C, … as far as they are there without a gap and hold something."""
    for letter in LETTERS:
        if fields.get(letter) in (None, ""):
            return
        yield letter


def _listed(value: object) -> Sequence[object]:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return []
    if value.lstrip().startswith("["):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return []
        return found if isinstance(found, list) else []
    return list(_lettered(value))


def _lettered(text: str) -> Iterator[str]:
    """The choices of `A. one⏎B. two`; a choice may go on over lines."""
    found: list[str] = []
    for line in text.strip().split("\n"):
        head = _LETTERED.fullmatch(line)
        if head and len(found) < len(LETTERS) and head[1] == LETTERS[len(found)]:
            found.append(head[2])
        elif found:
            found[-1] += f"\n{line}"
        else:
            return
    yield from found


def _index(row: Row, column: str, choices: tuple[str, ...]) -> int:
    """The right choice: an index from 0, a letter, `B. its text`, or its text. More than one meaning is an error."""
    value = row.fields[column]
    place = f"{row.place}, column {column!r}"
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(choices):
            return value
        raise DataError(f"{place}: answer {value} is no index into {len(choices)} choices, which count from 0")
    if not isinstance(value, str):
        raise DataError(f"{place}: must be an index, a letter or a choice, not {kind_of(value)}")
    meant = sorted(set(_meanings(value.strip(), choices)))
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise DataError(
            f"{place}: {value!r:.60} can mean {' or '.join(LETTERS[i] for i in meant)}", hint="give the letter"
        )
    raise DataError(
        f"{place}: {value!r:.60} is none of the {len(choices)} choices", hint="an index from 0, a letter, or its text"
    )


def _meanings(value: str, choices: tuple[str, ...]) -> Iterator[int]:
    places = {letter: place for place, letter in enumerate(LETTERS[: len(choices)])}
    lettered = _LETTERED.fullmatch(value)
    if lettered and lettered[1] in places and lettered[2].strip() == choices[places[lettered[1]]]:
        yield places[lettered[1]]
        return
    if value in places:
        yield places[value]
    if value.isascii() and value.isdigit() and len(value) < 3 and int(value) < len(choices):
        yield int(value)
    yield from (place for place, choice in enumerate(choices) if choice == value)
