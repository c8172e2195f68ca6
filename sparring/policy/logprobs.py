"""Log-probabilities of completions with the prompt computed once for all completions that share it.

Rows with equal prompts are packed into one: prompt[:-1], then for each completion its segment
[last prompt token, c0 … c(n−2)] with labels c0 … c(n−1). A boolean mask lets a segment see the prompt and itself.
Equal to the padded forward within float error (tested); Prefix Grouper (arXiv 2506.05433) describes the idea.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Packed inputs: `ids` and `positions` (R, W), `mask` (R, 1, W, W) bool, the last S·T columns are segments.

    `slots` (B,) says in which flattened (R·S) segment row b's completion lies.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    slots: Tensor
    segments: int


def pack(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor) -> Packed:
    """Packs left-padded prompts (B, P) and right-padded completions (B, T); neighbours with equal prompts share."""
    starts = _group_starts(prompt_ids, prompt_mask)
    sizes = torch.diff(torch.tensor([*starts, len(prompt_ids)])).tolist()
    segments, (length, rows) = max(sizes), (completion_ids.shape[1], len(starts))
    prompt = int(prompt_mask.sum(1).max()) - 1
    width = prompt + segments * length
    ids = torch.zeros(rows, width, dtype=torch.long)
    positions = torch.zeros(rows, width, dtype=torch.long)
    real = torch.zeros(rows, width, dtype=torch.bool)
    slots = torch.empty(len(prompt_ids), dtype=torch.long)
    for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        tokens = prompt_ids[start][prompt_mask[start].bool()]
        n = len(tokens) - 1
        ids[row, prompt - n : prompt], real[row, prompt - n : prompt] = tokens[:-1], True
        positions[row, prompt - n : prompt] = torch.arange(n)
        for k in range(size):
            at = slice(prompt + k * length, prompt + (k + 1) * length)
            ids[row, at] = torch.cat([tokens[-1:], completion_ids[start + k, :-1]])
            real[row, at] = torch.cat([torch.ones(1, dtype=torch.bool), completion_mask[start + k, :-1].bool()])
            slots[start + k] = row * segments + k
        positions[row, prompt:] = n + torch.arange(length).repeat(segments)
    return Packed(ids, positions, _mask(real, prompt, segments, length), slots, segments)


def packed_logprobs(
    model: Any, packed: Packed, completion_ids: Tensor, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each completion token (B, T) and, if asked, the entropy of its distribution (B, T), nats.

    Values at padding are meaningless. Calls `model(...)` itself, so that wrappers (DDP, PEFT) see the pass.
    """
    length = completion_ids.shape[1]
    kept = packed.segments * length
    out = model(
        input_ids=packed.ids,
        attention_mask=packed.mask,
        position_ids=packed.positions,
        logits_to_keep=kept,
        use_cache=False,
    )
    logits = out.logits.reshape(-1, length, out.logits.shape[-1])[packed.slots]
    flat = logits.reshape(-1, logits.shape[-1])
    logprobs = -F.cross_entropy(flat, completion_ids.reshape(-1), reduction="none").view_as(completion_ids)
    if not entropy:
        return logprobs, None
    with torch.no_grad():
        probabilities = torch.softmax(flat, dim=-1)
        entropies = torch.logsumexp(flat, dim=-1) - (probabilities * flat).sum(-1)
    return logprobs, entropies.view_as(completion_ids)


def _group_starts(prompt_ids: Tensor, prompt_mask: Tensor) -> list[int]:
    same = (prompt_ids[1:] == prompt_ids[:-1]).all(1) & (prompt_mask[1:] == prompt_mask[:-1]).all(1)
    return [0, *(i + 1 for i, equal in enumerate(same.tolist()) if not equal)]


def _mask(real: Tensor, prompt: int, segments: int, length: int) -> Tensor:
    width = real.shape[1]
    column = torch.arange(width)
    segment = torch.where(column < prompt, -1, (column - prompt) // max(length, 1))
    causal = column[None, :] <= column[:, None]
    own = (segment[None, :] == segment[:, None]) | (segment[None, :] == -1)
    mask = (causal & own)[None] & real[:, None, :]
    # padding attends to itself: an empty softmax row would be NaN
    mask |= torch.eye(width, dtype=torch.bool)
    return mask[:, None]
