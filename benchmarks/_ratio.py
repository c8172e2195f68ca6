"""The line that every benchmark with a peer ends with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def summary(
    bench: str, peer: str, ours: Sequence[float], theirs: Sequence[float], checks: Mapping[str, object]
) -> dict[str, Any]:
    """Ratio of the peer's median to ours (> 1: ours is better), its spread over the pairs of runs, and the checks."""
    pairs = [other / own for own, other in zip(ours, theirs, strict=True)]
    return {
        "bench": bench,
        "peer": peer,
        "ratio": round(median(theirs) / median(ours), 2),
        "spread": [round(min(pairs), 2), round(max(pairs), 2)],
        "n": len(pairs),
        "checks": dict(checks),
    }


def end(line: Mapping[str, Any]) -> None:
    """Prints it as the last line."""
    print(json.dumps(line))
