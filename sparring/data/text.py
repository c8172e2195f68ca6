"""How texts are compared: normal form, words, and ids made from content."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256
from typing import Final

_WORD: Final = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The text's words in normal form: NFKC, case folded, punctuation gone."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normalise(text: str) -> str:
    """Texts that differ in case, spacing, punctuation or Unicode form only have one normal form.

    A text without any word (only signs or emoji) is its own normal form, so that such texts stay apart.
    """
    return " ".join(words(text)) or " ".join(text.split())


def content_id(text: str) -> str:
    """16 hex digits of the text's SHA-256: the same in every round and file."""
    return sha256(text.encode()).hexdigest()[:16]
