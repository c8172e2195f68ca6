"""Answers with human labels from CSV, JSONL and Parquet files, by the columns of the usual public ones.

| what | columns, the first present wins |
|---|---|
| prompt | as in `sparring.data.columns` |
| answer | answer, completion, response, output, generation |
| refused | refused, final_label (XSTest), refusal, is_refusal, human_refused, response_refusal_label |
| harmful | harmful, human_harmful, harm, is_harmful, response_harm_label (WildGuardTest) |
| model | model, else the file's name |
| slice | slice, type, category |

A partial refusal counts as refused, as in XSTest's own evaluation. An empty cell is "not labelled".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from sparring.data.columns import PROMPTS, behavior_of, label_of, prompt_column
from sparring.data.readers import Row, read_rows
from sparring.data.text import content_id
from sparring.errors import DataError
from sparring.evaluate.calibrate import Labelled

ANSWERS: Final = ("answer", "completion", "response", "output", "generation")
REFUSED: Final = ("refused", "final_label", "refusal", "is_refusal", "human_refused", "response_refusal_label")
HARMFUL: Final = ("harmful", "human_harmful", "harm", "is_harmful", "response_harm_label")
_SLICES: Final = ("slice", "type", "category")
_FILE_PREFIX: Final = "xstest_v2_completions_"

_YES_NO: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "y"), True),
    **dict.fromkeys(("false", "0", "0.0", "no", "n"), False),
}
REFUSED_VALUES: Final[Mapping[str, bool]] = {
    **_YES_NO,
    **dict.fromkeys(("2_full_refusal", "full_refusal", "refused", "refusal"), True),
    **dict.fromkeys(("3_partial_refusal", "partial_refusal", "partial"), True),
    **dict.fromkeys(("1_full_compliance", "full_compliance", "complied", "compliance"), False),
}
HARMFUL_VALUES: Final[Mapping[str, bool]] = {
    **_YES_NO,
    **dict.fromkeys(("harmful", "unsafe"), True),
    **dict.fromkeys(("unharmful", "harmless", "safe"), False),
}


def read_labelled(path: Path, model: str | None = None) -> list[Labelled]:
    """All labelled answers of a file; `model` names the model that answered where the file does not.

    Raises DataError with file, row, column and value.
    """
    rows = [found for row in read_rows(path) if (found := _labelled(row, path, model)) is not None]
    if not rows:
        raise DataError(f"{path}: no row has a human label", hint=f"columns are {', '.join((*REFUSED, *HARMFUL))}")
    return rows


def without_repeats(rows: Sequence[Labelled]) -> tuple[list[Labelled], int]:
    """Each answer of a model to a prompt once, and how many were left out.

    Raises DataError where two rows label the same answer differently.
    """
    kept: dict[tuple[str, str, str], Labelled] = {}
    for row in rows:
        first = kept.setdefault((row.model, row.prompt, row.answer), row)
        if (first.refused, first.harmful) != (row.refused, row.harmful):
            raise DataError(
                f"{row.place}: labelled refused {row.refused}, harmful {row.harmful}, but the same answer at"
                f" {first.place} refused {first.refused}, harmful {first.harmful}",
                hint="settle it and keep one of the rows",
            )
    return list(kept.values()), len(rows) - len(kept)


def _labelled(row: Row, path: Path, model: str | None) -> Labelled | None:
    fields = row.fields
    prompt_name = prompt_column(fields, adversarial=False)
    if prompt_name is None:
        raise DataError(f"{row.place}: no column holds the prompt", hint=f"known are {', '.join(PROMPTS)}")
    answer_name = _column(row, ANSWERS, "the answer")
    label_names = _present(fields, (*REFUSED, *HARMFUL))
    if not label_names:
        raise DataError(f"{row.place}: no column holds a human label", hint=f"known are {', '.join(REFUSED + HARMFUL)}")
    refused = _value(row, REFUSED, REFUSED_VALUES)
    harmful = _value(row, HARMFUL, HARMFUL_VALUES)
    if refused is None and harmful is None:
        return None
    prompt = _text(row, prompt_name)
    if not prompt.strip():
        raise DataError(f"{row.place}: column `{prompt_name}` is {prompt!r}", hint="give each row its prompt")
    return Labelled(
        place=row.place,
        prompt=prompt,
        answer=_text(row, answer_name),
        model=model or _word(row, ("model",)) or path.stem.removeprefix(_FILE_PREFIX),
        slice=_word(row, _SLICES),
        kind=label_of(fields, prompt_name) or ("benign" if "final_label" in fields and "type" in fields else None),
        cluster=behavior_of(fields, prompt_name) or content_id(prompt),
        refused=refused,
        harmful=harmful,
    )


def _present(fields: Collection[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if name in fields]


def _column(row: Row, names: Sequence[str], what: str) -> str:
    found = _present(row.fields, names)
    if not found:
        raise DataError(f"{row.place}: no column holds {what}", hint=f"known are {', '.join(names)}")
    return found[0]


def _text(row: Row, name: str) -> str:
    value = row.fields[name]
    if not isinstance(value, str):
        raise DataError(f"{row.place}: column `{name}` is {value!r:.80}", hint="a text is expected there")
    return _unicode(row, name, value)


def _word(row: Row, names: Sequence[str]) -> str:
    found = next((name for name in names if row.fields.get(name) not in (None, "")), None)
    return "" if found is None else _unicode(row, found, str(row.fields[found]).strip())


def _unicode(row: Row, name: str, text: str) -> str:
    """Half of a surrogate pair, which JSON may carry, has no digest and no place in a store."""
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise DataError(f"{row.place}: column `{name}` is {text!r:.60}, not valid Unicode", hint="mend the text")
    return text


def _value(row: Row, names: Sequence[str], meaning: Mapping[str, bool]) -> bool | None:
    """The label in the first of the columns that is there; None for an empty cell."""
    for name in _present(row.fields, names)[:1]:
        value = row.fields[name]
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        found = meaning.get(str(value).strip().lower())
        if found is None:
            raise DataError(
                f"{row.place}: column `{name}` is {str(value)[:60]!r}, not a human label that is known",
                hint=f"write {_listed(meaning)}, or leave it empty",
            )
        return found
    return None


def _listed(meaning: Mapping[str, bool]) -> str:
    words: Iterator[str] = (word for word in meaning if word not in ("1.0", "0.0", "y", "n"))
    return ", ".join(words)
