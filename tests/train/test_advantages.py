"""Advantages against the formulas, one Python float at a time."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.train.advantages import reinforce_pp


def brute_force(
    reward: Any, old: Any, ref: Any, mask: Any, role: Any, valid: Any, beta: float, group: Any
) -> list[list[float]]:
    """REINFORCE++ by the formula, one Python float at a time."""
    returns = [
        [
            max(-10.0, min(10.0, reward[b]))
            - beta * sum((old[b][u] - ref[b][u]) * mask[b][u] for u in range(t, len(old[b])))
            for t in range(len(old[b]))
        ]
        for b in range(len(reward))
    ]
    lengths = [max(sum(m), 1) for m in mask]
    good = [b for b in range(len(reward)) if valid[b]]
    if group is not None:
        means = [sum(r * m for r, m in zip(returns[b], mask[b], strict=True)) / lengths[b] for b in range(len(reward))]
        for b in good:
            peers = [means[o] for o in good if group[o] == group[b]]
            returns[b] = [r - sum(peers) / len(peers) for r in returns[b]]
    typical = sum(lengths[b] for b in good) / len(good) if good else 0.0
    out = [[0.0] * len(old[0]) for _ in reward]
    for number in set(role):
        rows = [b for b in good if role[b] == number]
        if not rows:
            continue
        mean = sum(returns[b][t] * mask[b][t] / lengths[b] for b in rows for t in range(len(old[b]))) / len(rows)
        var = sum(
            (returns[b][t] - mean) ** 2 * mask[b][t] / lengths[b] for b in rows for t in range(len(old[b]))
        ) / len(rows)
        for b in rows:
            for t in range(len(old[b])):
                out[b][t] = (returns[b][t] - mean) * mask[b][t] / max(math.sqrt(var), 1e-3) * typical / lengths[b]
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_advantages_equal_the_formula_and_void_rows_move_nothing(seed: int, equal: bool, grouped: bool) -> None:
    rng = random.Random(seed)
    rows, width = 6, 5
    reward = [1.0 if equal else rng.uniform(-15, 15) for _ in range(rows)]
    role, valid = [rng.randint(0, 1) for _ in range(rows)], [rng.random() < 0.7 for _ in range(rows)]
    lengths = [rng.randint(1, width) for _ in range(rows)]
    mask = [[int(t < n and v) for t in range(width)] for n, v in zip(lengths, valid, strict=True)]
    old = [[rng.uniform(-5, 0) for _ in range(width)] for _ in range(rows)]
    ref = [[rng.uniform(-5, 0) for _ in range(width)] for _ in range(rows)]
    tensors = [torch.tensor(x, dtype=torch.float64) for x in (reward, old, ref, mask)]
    group = [i // 2 for i in range(rows)] if grouped else None
    groups = torch.tensor(group) if group else None
    roles, goods = torch.tensor(role), torch.tensor(valid)
    _, old_t, ref_t, mask_t = tensors
    ours = reinforce_pp(tensors[0], old_t, ref_t, mask_t, roles, goods, 0.01, groups)
    expected = torch.tensor(brute_force(reward, old, ref, mask, role, valid, 0.01, group), dtype=torch.float64)
    assert torch.allclose(ours, expected, atol=1e-6, rtol=1e-6)
    changed = torch.tensor([r if v else r + 5 for r, v in zip(reward, valid, strict=True)], dtype=torch.float64)
    assert torch.equal(ours, reinforce_pp(changed, old_t, ref_t, mask_t, roles, goods, 0.01, groups))
