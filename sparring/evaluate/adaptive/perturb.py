"""Best-of-N perturbations (Hughes et al., "Best-of-N Jailbreaking", arXiv 2412.03556, section 2 and appendix).

With strength σ: the inner letters of a word of more than three are shuffled with probability σ^½, each letter turns
its case with σ^½, and a character moves to its neighbour in ASCII with σ³. Two things are kept closer than in the paper
so that a reader can always tell the words: at most one character a word moves, and only letters and digits do, to
letters and digits.
"""

from __future__ import annotations

import random
import re
import string

_PLAIN = frozenset(string.ascii_letters + string.digits)
_LONG = 3


def perturb(text: str, strength: float, rng: random.Random) -> str:
    """`text` with perturbed words. White space, number and order of words, and their lengths stay."""
    return re.sub(r"\S+", lambda word: _word(word.group(), strength, rng), text)


def _word(word: str, strength: float, rng: random.Random) -> str:
    half = strength**0.5
    shuffled = _shuffle(word, rng) if len(word) > _LONG and rng.random() < half else word
    cased = "".join(_turn(letter) if rng.random() < half else letter for letter in shuffled)
    moved = [i for i, letter in enumerate(cased) if letter in _PLAIN and rng.random() < strength**3]
    return _move(cased, rng.choice(moved), rng) if moved else cased


def _shuffle(word: str, rng: random.Random) -> str:
    """First and last character stay."""
    inner = list(word[1:-1])
    rng.shuffle(inner)
    return word[0] + "".join(inner) + word[-1]


def _turn(letter: str) -> str:
    """The other case, for letters that have one of the same length ("ß" has not)."""
    turned = letter.swapcase()
    return turned if len(turned) == 1 and turned.casefold() == letter.casefold() else letter


def _move(word: str, at: int, rng: random.Random) -> str:
    step = rng.choice((-1, 1))
    near = [chr(ord(word[at]) + way) for way in (step, -step)]
    return word[:at] + next(letter for letter in near if letter in _PLAIN) + word[at + 1 :]
