"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): more games are played than trained on.

Games whose group is paid alike say nothing to an advantage that is taken within the group, and cost a forward and
backward pass like the others. A step trains on whole groups whose rewards differ, most where they differ most: a
refusal beside an answer says more than two answers of which the judge finds one off the topic.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any


def spreads(rows: Mapping[str, Sequence[Any]]) -> dict[int, float]:
    """Highest less lowest reward among the valid rows of each group (`slot`) of a rollout that has any."""
    paid: dict[int, list[float]] = {}
    for group, score, valid in zip(rows["slot"], rows["score"], rows["valid"], strict=True):
        if valid:
            paid.setdefault(group, []).append(score)
    return {group: max(scores) - min(scores) for group, scores in paid.items()}


def informative(rows: Mapping[str, Sequence[Any]]) -> float | None:
    """Share of the groups with a valid row whose rewards differ; None without such a group.

    Where rewards are compared within groups, the others teach nothing.
    """
    found = spreads(rows)
    return sum(spread > 0 for spread in found.values()) / len(found) if found else None


def chosen(rows: dict[str, list[Any]], count: int, seed: str) -> dict[str, list[Any]]:
    """`count` of the rows, in their order: whole groups of one size, those first whose rewards differ most.

    Of equals some are drawn; groups without a valid row come last. `count` must be a multiple of the groups' size.
    """
    if count >= len(rows["slot"]):
        return rows
    spread = spreads(rows)
    groups = sorted(set(rows["slot"]))
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda group: -spread.get(group, -1.0))
    size = len(rows["slot"]) // len(groups)
    kept = set(groups[: count // size])
    places = [i for i, group in enumerate(rows["slot"]) if group in kept]
    return {name: [column[i] for i in places] for name, column in rows.items()}
