"""Advantages against the formulas, one Python float at a time."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import GRPOConfig, GRPOTrainer

from sparring.train.advantages import grpo, reinforce_pp, weigh_openings


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


def grpo_by_hand(reward: list[float], mask: list[list[int]], group: list[int], valid: list[bool]) -> list[list[float]]:
    """GRPO by the formula: a row against the valid rows of its group, one Python float at a time."""
    out = [[0.0] * len(row) for row in mask]
    for b, own in enumerate(group):
        peers = [max(-10.0, min(10.0, r)) for r, g, v in zip(reward, group, valid, strict=True) if g == own and v]
        if valid[b] and len(peers) > 1:
            mean = sum(peers) / len(peers)
            std = math.sqrt(sum((p - mean) ** 2 for p in peers) / (len(peers) - 1))
            out[b] = [m * (max(-10.0, min(10.0, reward[b])) - mean) / (std + 1e-4) for m in mask[b]]
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_grpo_equals_the_formula_and_void_rows_move_nothing(seed: int, equal: bool) -> None:
    rng = random.Random(seed)
    reward = [1.25 if equal else rng.uniform(-15, 15) for _ in range(9)]
    valid, group = [rng.random() < 0.7 for _ in range(9)], [rng.randrange(4) for _ in range(9)]
    mask = [[int(t < rng.randint(1, 5) and v) for t in range(5)] for v in valid]
    tensors = torch.tensor(mask), torch.tensor(group), torch.tensor(valid)
    ours = grpo(torch.tensor(reward, dtype=torch.float64), *tensors)
    expected = torch.tensor(grpo_by_hand(reward, mask, group, valid), dtype=torch.float64)
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9)
    moved = torch.tensor([r if v else r + 5 for r, v in zip(reward, valid, strict=True)], dtype=torch.float64)
    assert torch.equal(ours, grpo(moved, *tensors))


REWARDS = [[1.0, -1.0, 2.0, 0.5], [-2.0, -2.0, 2.0, -2.0], [0.25, 0.25, 0.25, 0.25], [3.0, 1.0, -1.0, 0.0]]


def test_grpo_equals_the_advantages_of_stock_trl(folder: Path, tmp_path: Path) -> None:
    """Four groups of four: the advantages that stock TRL makes of the same rewards, as it logs them."""
    trainer = GRPOTrainer(
        model=str(folder),
        reward_funcs=lambda prompts, **_: [r for group in REWARDS for r in group],
        args=GRPOConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=16, num_generations=4,
            max_completion_length=4, beta=0.0, bf16=False, gradient_checkpointing=False, dataloader_pin_memory=False,
            report_to="none", save_strategy="no", disable_tqdm=True, model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_list([{"prompt": word} for word in ("a river", "a sea", "a lake", "a brook")]),
    )  # fmt: skip
    trainer.train()
    stock = torch.tensor(list(trainer._logs["advantages"]))
    rewards = torch.tensor(REWARDS).flatten()
    ours = grpo(rewards, torch.ones(16, 1), torch.arange(16) // 4, torch.ones(16, dtype=torch.bool))
    assert len(stock) == 16
    torch.testing.assert_close(ours[:, 0], stock, atol=1e-6, rtol=1e-6)


@given(st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_openings_weigh_more_and_a_row_as_much_as_before(seed: int, decay: float) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(0, 12) for _ in range(5)]
    mask = torch.tensor([[1.0] * n + [0.0] * (12 - n) for n in lengths], dtype=torch.float64)
    advantages = torch.tensor([[rng.gauss(0, 1)] * 12 for _ in lengths], dtype=torch.float64) * mask
    rows = torch.tensor([rng.random() < 0.7 for _ in lengths])
    found = weigh_openings(advantages, mask, rows, decay)
    assert torch.equal(found[~rows], advantages[~rows]) and torch.equal(found * mask, found)
    assert torch.allclose(found.sum(1), advantages.sum(1))
    for row in range(5):
        for t in range(lengths[row] - 1):
            wanted = found[row, t] * (decay if rows[row] else 1.0)
            assert math.isclose(found[row, t + 1], wanted, rel_tol=1e-9, abs_tol=1e-12)
    assert torch.allclose(weigh_openings(advantages, mask, rows, 1.0), advantages)
