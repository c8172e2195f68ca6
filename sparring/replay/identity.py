"""Names that depend on content alone, so that whoever writes an attack or an outcome twice writes the same name."""

from __future__ import annotations

import hashlib

from sparring.data.text import normalise

_HEX_DIGITS = 32  # 128 bits: no collision among any number of attacks that a store can hold


def attack_id(text: str, seed_id: str) -> str:
    """Name of an attack: sha256 of its normalised text and its seed's id, 32 hexadecimal digits."""
    return _digest(normalise(text), seed_id)


def event_id(round_number: int, step: int, game: int, attack: str, defender: str) -> str:
    """Name of an outcome: sha256 of round, step, first game's index, attack id and defender digest.

    The defender belongs to it: a round that is played again with another candidate must not hide the first one's
    events, nor be hidden by them.
    """
    return _digest(str(round_number), str(step), str(game), attack, defender)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps ("ab", "c") and ("a", "bc") apart
    return digest.hexdigest()[:_HEX_DIGITS]
