"""What may enter the pool, and into which cluster: the same for a round's own attacks and for imported ones.

    texts ─► not in an evaluation suite ─► not near a pooled attack or an earlier one ─► leader of its cluster

Clusters are by leader: an attack joins the nearest leader at the cluster's cosine or nearer, else it leads a new one.
Leaders are pooled attacks and earlier ones of the same call; of pooled leaders those are looked at that lead one of
the attack's nearest pooled attacks (all of them while the pool is small, see `sparring.replay.neighbours`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparring.data.hygiene import decontaminate
from sparring.embedding import Vectors
from sparring.replay.neighbours import Near
from sparring.replay.vectors import Codes, blocks


def outside_suites(
    texts: Sequence[str], vectors: Vectors, suite: Sequence[str], suite_vectors: Vectors, *, ngram: int, cosine: float
) -> list[int]:
    """Rows of `texts` that stand in no evaluation suite, neither in its words nor near them."""
    dropped = {drop.row for drop in decontaminate(texts, vectors, suite, suite_vectors, ngram=ngram, cosine=cosine)}
    return [row for row in range(len(texts)) if row not in dropped]


def leaders(ids: Sequence[str], codes: Codes, near: Near, threshold: float) -> list[str]:
    """The leader of each new attack, in their order. `near` tells of the pooled leaders."""
    found: list[str] = []
    own: list[int] = []
    for start, between in blocks(codes):
        for row, name in enumerate(ids[start : start + len(between)], start=start):
            best, leader, cosine = near.leader_cosine[row], near.leader[row], between[row - start]
            if own and cosine[own].max() > best:
                at = own[int(cosine[own].argmax())]
                best, leader = cosine[at], ids[at]
            if best < np.float32(threshold):
                leader = name
                own.append(row)
            found.append(leader)
    return found
