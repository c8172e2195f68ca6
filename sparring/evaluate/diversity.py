"""How varied the attacks of a training are, as Self-RedTeam measures it (arXiv 2506.07468).

| measure | formula | higher |
|---|---|---|
| `inverse_sbert` | 1 − mean cosine of two different attacks (MiniLM-L6-v2) | more varied in meaning |
| `inverse_self_bleu` | 1 − mean BLEU-4 of each attack against all others | more varied in wording |
| `seed_similarity` | mean cosine of an attack and the seed it was written from | nearer to its seed |

BLEU is that of NLTK's `sentence_bleu` with smoothing method 1 (ε = 0.1), which self-BLEU is usually computed with, over
lower-case words and single signs; the paper prints neither smoothing nor words: reconstructed.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

from sparring.embedding import Embedder, Vectors, default_embedder

ORDER: Final = 4
EPSILON: Final = 0.1
_WORD = re.compile(r"\w+|[^\w\s]")

Gram = tuple[str, ...]


def diversity(attacks: Sequence[str], seeds: Sequence[str], embedder: Embedder | None = None) -> dict[str, float]:
    """The measures of attacks and their seeds, in the same order; those of two attacks are left out with fewer."""
    if not attacks:
        return {}
    embed = (embedder or default_embedder()).embed
    vectors = embed(attacks)
    found = {"seed_similarity": float((vectors * embed(seeds)).sum(axis=1).mean())}
    if len(attacks) < 2:
        return found
    return {"inverse_sbert": inverse_sbert(vectors), "inverse_self_bleu": inverse_self_bleu(attacks), **found}


def inverse_sbert(vectors: Vectors) -> float:
    """1 − the mean cosine of two different rows of unit vectors (n, d), n ≥ 2, in O(n·d)."""
    count = len(vectors)
    total = vectors.sum(axis=0, dtype=float)
    own = float((vectors.astype(float) ** 2).sum())
    return 1.0 - (float(total @ total) - own) / (count * (count - 1))


def inverse_self_bleu(texts: Sequence[str]) -> float:
    """1 − the mean BLEU of each of at least two texts against all others."""
    scores = self_bleu([words(text) for text in texts])
    return 1.0 - sum(scores) / len(scores)


def words(text: str) -> list[str]:
    """Lower-case words and single signs.

    >>> words("Don't stop!")
    ['don', "'", 't', 'stop', '!']
    """
    return _WORD.findall(text.lower())


def self_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 of each text (a list of words) against all others; linear in the number of words."""
    counts = [[_grams(text, n) for text in texts] for n in range(1, ORDER + 1)]
    best = [_two_best(each) for each in counts]
    lengths = sorted(len(text) for text in texts)
    return [_bleu([(counts[n][i], best[n]) for n in range(ORDER)], len(text), lengths) for i, text in enumerate(texts)]


def _grams(text: Sequence[str], n: int) -> Counter[Gram]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _two_best(counts: Sequence[Counter[Gram]]) -> dict[Gram, tuple[int, int]]:
    """The two highest counts of each n-gram over all texts: what is left of them without one text is its maximum."""
    best: dict[Gram, tuple[int, int]] = {}
    for each in counts:
        for gram, count in each.items():
            first, second = best.get(gram, (0, 0))
            best[gram] = (count, first) if count > first else (first, max(second, count))
    return best


def _bleu(parts: Sequence[tuple[Counter[Gram], dict[Gram, tuple[int, int]]]], length: int, lengths: list[int]) -> float:
    logs = 0.0
    for n, (mine, best) in enumerate(parts):
        clipped = sum(min(count, _others(best[gram], count)) for gram, count in mine.items())
        if n == 0 and clipped == 0:
            return 0.0
        logs += math.log((clipped or EPSILON) / max(mine.total(), 1)) / ORDER
    closest = _closest(lengths, length)
    return math.exp(logs) * (1.0 if length > closest else math.exp(1 - closest / length))


def _others(best: tuple[int, int], mine: int) -> int:
    """The highest count in another text: the second highest of all, where mine is the highest."""
    first, second = best
    return second if mine == first else first


def _closest(lengths: list[int], mine: int) -> int:
    """The length of another text that is nearest to mine, of two the shorter; `lengths` is sorted and has mine."""
    at = bisect_left(lengths, mine)
    around = lengths[max(at - 1, 0) : at] + lengths[at + 1 : at + 2]
    return min(around, key=lambda length: (abs(length - mine), length))
