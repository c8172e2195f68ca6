"""Reads one label from a tool's value: strictly, and nothing where the tool says nothing.

Inspect writes C (correct), I (incorrect), P (partially) and N (no answer). As a score they are 1, 0, 0.5 and 0, as
`value_to_float` of Inspect has them; as a yes or no, P and N decide nothing: P must be named in the mapping, N is void.
"""

from __future__ import annotations

import math
from typing import Final

from sparring.errors import DataError
from sparring.importers.attacks.base import shown
from sparring.importers.verdicts.base import Item, missing
from sparring.importers.verdicts.mapping import Reading

_WORDS: Final = {"C": True, "I": False, "true": True, "false": False, "yes": True, "no": False}
_SCORES: Final = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
_NO_ANSWER: Final = "N"


def read_label(item: Item, label: str, reading: Reading) -> bool | None:
    """A yes or no; None when the value is missing or void. Raises DataError for one that cannot be read."""
    value = item.signals.get(reading.source)
    if missing(value) or _among(value, reading.void):
        return None
    found = _decided(item, label, reading, value)
    return None if found is None else found != reading.invert


def read_score(item: Item, reading: Reading) -> float | None:
    """A score in [0, 1]; None when it is missing or void. Raises DataError for one that cannot be read."""
    value = item.signals.get(reading.source)
    if missing(value) or _among(value, reading.void):
        return None
    score = _number(item, reading, value)
    return 1.0 - score if reading.invert else score


def _decided(item: Item, label: str, reading: Reading, value: object) -> bool | None:
    if _among(value, reading.positive):
        return True
    if _among(value, reading.negative):
        return False
    if reading.at_least is not None:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
            raise _unread(item, label, reading, value, "it must be a number, because the mapping says `at_least`")
        return value >= reading.at_least
    if reading.positive or reading.negative:
        raise _unread(
            item, label, reading, value, "it is in none of the mapping's lists `positive`, `negative`, `void`"
        )
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return value == 1
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if value == _NO_ANSWER:
        return None
    raise _unread(item, label, reading, value, "it is no yes or no; say in a mapping what it means")


def _number(item: Item, reading: Reading, value: object) -> float:
    if reading.at_least is not None or reading.positive or reading.negative:
        return 1.0 if _decided(item, "score", reading, value) else 0.0
    if isinstance(value, str) and value in _SCORES:
        return _SCORES[value]
    if isinstance(value, bool | int | float) and 0.0 <= value <= 1.0:
        return float(value)
    raise _unread(
        item, "score", reading, value, "it must be a number from 0 to 1, or C, I, P, N; map it with `at_least`"
    )


def _among(value: object, listed: list[bool | int | float | str]) -> bool:
    """Equal and of the same sort: True is not 1 here, but 1 is 1.0."""
    return any(value == entry and isinstance(value, bool) == isinstance(entry, bool) for entry in listed)


def _unread(item: Item, label: str, reading: Reading, value: object, rule: str) -> DataError:
    """A short value is shown: scores are no texts. A long or nested one is only named."""
    text = repr(value) if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 20) else ""
    return DataError(f"{item.place}: `{reading.source}` (for `{label}`) is {text or shown(value)}; {rule}")
