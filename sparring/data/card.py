"""Data cards: what a dataset holds, what was dropped and why, its licences, how near training comes to the suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from sparring.config.paths import STARTER
from sparring.config.run import DataConfig
from sparring.data import starter
from sparring.data.hygiene import Dropped, nearest
from sparring.data.seeds import Clean, Collected
from sparring.data.suites import Suites
from sparring.embedding import Vectors

Card = dict[str, object]

_MOST_ROWS: Final = 500
"""Dropped rows listed in a card; the counts are always of all."""
_LICENCES: Final[Mapping[str, str]] = {STARTER: f"{starter.LICENCE} (written for this project)"}


def seeds_card(
    collected: Collected, clean: Clean, suite_ids: Sequence[str], suite_vectors: Vectors, config: DataConfig
) -> Card:
    """Card of the seeds. `suite_ids` names the suites' texts, row by row of `suite_vectors`."""
    dropped = [*clean.contaminated, *clean.duplicates]
    return {
        "kind": "seeds",
        "rows": len(clean.seeds),
        "label": _count(seed.label for seed in clean.seeds),
        "category": _count(f"{seed.label}/{seed.category or 'none'}" for seed in clean.seeds),
        "source": _count(f"{seed.label}/{seed.source}" for seed in clean.seeds),
        "split": {"train": len(clean.seeds), "held out": len(clean.held_out)},
        "held out": held_out_counts(clean),
        "read": len(collected.seeds),
        "other_label": dict(collected.left_out),
        "dropped": _count(drop.reason for drop in dropped),
        "dropped_rows": [_reason(drop, collected, suite_ids, clean) for drop in dropped[:_MOST_ROWS]],
        "nearest_suite": _nearest(clean.vectors, suite_vectors),
        "rules": config.model_dump(include={"near_duplicate", "decontaminate_cosine", "decontaminate_ngram"}),
        "licences": _licences([*config.harmful, *config.benign]),
    }


def held_out_counts(clean: Clean) -> dict[str, int]:
    """Behaviours that never train, by label."""
    return _count(label for label, _ in {(seed.label, seed.behavior) for seed in clean.held_out})


def suites_card(suites: Suites, config: DataConfig, power: object) -> Card:
    """Card of the suites. `power` is the gate's plan for these suites, or None where it could not be made."""
    rows = suites.rows
    clusters = {(row.suite, row.slice, row.behavior) for row in rows}
    return {
        "kind": "suites",
        "rows": len(rows),
        "prompts": _count(f"{row.suite}/{row.slice}" for row in rows),
        "behaviors": _count(f"{suite}/{part}" for suite, part, _ in clusters),
        "kinds": _count(row.kind for row in rows),
        "label": _count(row.label or "none" for row in rows),
        "category": _count(f"{row.kind}/{row.category or 'none'}" for row in rows),
        "split": {"heldout": len(rows)},
        "left_out": suites.left_out,
        "sha256": suites.digests(),
        "licences": _licences([*([STARTER] if config.starter_suites else []), *(s.path for s in config.suites)]),
        "power": power,
    }


def nearest_statistics(cosines: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum of the nearest cosines, rounded; empty without any."""
    if not len(cosines):
        return {}
    values = np.asarray(cosines)
    named = {"median": np.median(values), "p99": np.quantile(values, 0.99), "max": values.max()}
    return {name: round(float(value), 4) for name, value in named.items()}


def _nearest(vectors: Vectors, suite_vectors: Vectors) -> dict[str, float]:
    return nearest_statistics(nearest(vectors, suite_vectors)[1].tolist()) if len(suite_vectors) else {}


def _reason(drop: Dropped, collected: Collected, suite_ids: Sequence[str], clean: Clean) -> dict[str, object]:
    in_suite = drop.reason.endswith("suite")
    other = suite_ids[drop.other] if in_suite else collected.seeds[drop.other].id
    return {
        "id": collected.seeds[drop.row].id,
        "place": collected.places[drop.row],
        "reason": drop.reason,
        "other": other,
        "similarity": round(drop.similarity, 4),
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _licences(sources: Iterable[str]) -> dict[str, str]:
    return {source: _LICENCES.get(source, "the user's own; see the file's source") for source in sources}
