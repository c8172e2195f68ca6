"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): more games are played than trained on.

Games whose group is paid alike say nothing to an advantage that is taken within the group, and cost a forward and
backward pass like the others. A step trains on whole groups whose rewards differ; others only fill up.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any


def telling(rows: Mapping[str, Sequence[Any]]) -> set[int]:
    """The groups (`slot`) of a rollout in which two valid rows are paid differently."""
    paid: dict[int, set[float]] = {}
    for group, score, valid in zip(rows["slot"], rows["score"], rows["valid"], strict=True):
        if valid:
            paid.setdefault(group, set()).add(score)
    return {group for group, scores in paid.items() if len(scores) > 1}


def chosen(rows: dict[str, list[Any]], count: int, seed: str) -> dict[str, list[Any]]:
    """`count` of the rows, in their order: whole groups of one size, drawn from the telling ones, then from the rest.

    Groups without a valid row come last. `count` must be a multiple of the groups' size.
    """
    if count >= len(rows["slot"]):
        return rows
    tells, rng = telling(rows), random.Random(seed)
    valid = {group for group, ok in zip(rows["slot"], rows["valid"], strict=True) if ok}
    groups = sorted(set(rows["slot"]))
    rng.shuffle(groups)
    groups.sort(key=lambda group: (group not in tells, group not in valid))
    size = len(rows["slot"]) // len(groups)
    kept = set(groups[: count // size])
    places = [i for i, group in enumerate(rows["slot"]) if group in kept]
    return {name: [column[i] for i in places] for name, column in rows.items()}
