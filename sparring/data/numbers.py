"""The final number of a worked answer, by GSM8K's rule: behind `####` where it stands, else the last number.

Linear in the text's length, whatever the text (tested on hostile ones).
"""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(
    r"(?:(?<![0-9A-Za-z).])[-\u2212])?(?:\$[-\u2212]?)?"  # a sign, not the dash of 10-15
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"  # 1,234 is one number, 3,5 are two
)
_MARK: Final = "####"


def final_number(text: str) -> str | None:
    """The final number in canonical form (`-1234.5`: no commas, currency signs or needless zeros), None without one.

    Behind the first `####` of GSM8K's form the line's first number counts (github.com/openai/grade-school-math); a
    text without such a line ends in its last number, as lm-evaluation-harness' `flexible-extract`.

    >>> final_number("3 eggs at $1,200.50 each are $3,601.50.")
    '3601.5'
    """
    for line in text.split("\n"):
        if _MARK in line and (found := _NUMBER.search(line, line.index(_MARK) + len(_MARK))):
            return canonical(found[0])
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007  the last one is wanted
        pass
    return canonical(last[0]) if last else None


def canonical(number: str) -> str:
    """One spelling for one value: `$1,200.50` is 1200.5, `-0.0` is 0, `007.` is 7."""
    negative = "-" in number or "\u2212" in number
    whole, _, part = re.sub(r"[^0-9.]", "", number).partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    value = f"{whole}.{part}" if part else whole
    return f"-{value}" if negative and value != "0" else value
