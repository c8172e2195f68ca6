"""What is different between two policies, key by key, in words for a record that people read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from sparring.gate.policy import Policy

_NAMES = ("kind", "metric", "slice", "slices")
"""Keys that tell the entries of a list apart; their order in the file does not matter."""


def differences(before: Policy, after: Policy) -> list[str]:
    """One line a key: `alpha: 0.05 → 0.1`; empty when both mean the same."""
    old, new = (dict(_leaves(policy.model_dump(mode="json"), "")) for policy in (before, after))
    keys = [*old, *(key for key in new if key not in old)]
    return [f"{key}: {_shown(old, key)} → {_shown(new, key)}" for key in keys if old.get(key) != new.get(key)]


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for item in value:
            yield from _leaves(item, f"{path}[{_name(item)}]")
    else:
        yield path, value


def _name(item: Mapping[str, object]) -> str:
    parts = (item[key] for key in _NAMES if item.get(key))
    return " ".join(",".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts)


def _shown(leaves: Mapping[str, object], key: str) -> str:
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else "nothing"
