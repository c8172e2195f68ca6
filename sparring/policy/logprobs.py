"""Log-probabilities of completions without padding, and with what their prompts share computed once.

A batch becomes one row of segments, a tree: what all prompts begin with (system prompt, chat header), the rest of each
distinct prompt, and behind it each of its completions. A boolean mask lets a token see its own segment up to itself
and the segments that lead to it. Equal to the padded forward within float error (tested); Prefix Grouper (arXiv
2506.05433) describes the idea for one prompt. Attention is quadratic in the row, so batches stay small (micro-batches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A packed batch: `ids` and `positions` (1, W) int64, `mask` (1, 1, W, W) bool.

    `columns[b]` holds, for each token of completion b, the column whose logits predict it.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    columns: list[list[int]]


def pack(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor) -> Packed:
    """Packs left-padded prompts (B, P) and right-padded completions (B, T) with their masks."""
    return pack_rows(_rows(prompt_ids, prompt_mask), _rows(completion_ids, completion_mask))


def pack_rows(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Packed:
    """Packs token lists; completion b stands behind prompt b. Prompts have at least one token."""
    keys = [tuple(p) for p in prompts]
    distinct = list(dict.fromkeys(keys))
    shared = common_prefix(distinct) if len(distinct) > 1 else 0
    row = _Row()
    row.add(distinct[0][:shared], 0, ())
    places = {}
    for prompt in distinct:
        segment = row.add(prompt[shared:], shared, (0,))
        places[prompt] = (segment, len(row.ids) - 1)
    columns = []
    for key, completion in zip(keys, completions, strict=True):
        segment, last = places[key]
        start = len(row.ids)
        row.add(completion[:-1], len(key), (0, segment))
        columns.append([last, *range(start, len(row.ids))][: len(completion)])
    return Packed(torch.tensor([row.ids]), torch.tensor([row.positions]), row.mask(), columns)


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of the beginning that all prompts share, leaving each at least one token of its own."""
    first, last = min(prompts), max(prompts)
    limit = min(len(p) for p in prompts) - 1
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def packed_logprobs(
    model: Any, packed: Packed, completion_ids: Tensor, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each completion token (B, T) and, if asked, the entropy of its distribution (B, T), nats.

    Values at padding are meaningless. Calls `model(...)` itself, so that wrappers (DDP, PEFT) see the pass.
    """
    kept = sorted({column for row in packed.columns for column in row})
    index = {column: i for i, column in enumerate(kept)}
    width = completion_ids.shape[1]
    picks = torch.tensor([[index[c] for c in row] + [0] * (width - len(row)) for row in packed.columns])
    picks = picks.to(completion_ids.device)
    out = model(
        input_ids=packed.ids.to(completion_ids.device),
        attention_mask=packed.mask.to(completion_ids.device),
        position_ids=packed.positions.to(completion_ids.device),
        logits_to_keep=torch.tensor(kept, device=completion_ids.device),
        use_cache=False,
    )
    logits = out.logits[0].float()
    total = torch.logsumexp(logits, dim=-1)
    logprobs = logits[picks, completion_ids] - total[picks]
    if not entropy:
        return logprobs, None
    with torch.no_grad():
        entropies = total - (torch.softmax(logits, dim=-1) * logits).sum(-1)
    return logprobs, entropies[picks]


class _Row:
    """A packed row while it is built: each token's id, position and segment, and each segment's ancestors."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self._segments: list[int] = []
        self._ancestors: list[tuple[int, ...]] = []

    def add(self, ids: Sequence[int], position: int, ancestors: tuple[int, ...]) -> int:
        """Appends a segment whose first token has `position`; returns its number."""
        number = len(self._ancestors)
        self._ancestors.append(ancestors)
        self.ids.extend(ids)
        self.positions.extend(range(position, position + len(ids)))
        self._segments.extend([number] * len(ids))
        return number

    def mask(self) -> Tensor:
        """(1, 1, W, W) bool: True where the token of the row may see the token of the column."""
        sees = torch.eye(len(self._ancestors), dtype=torch.bool)
        for number, ancestors in enumerate(self._ancestors):
            sees[number, list(ancestors)] = True
        segments = torch.tensor(self._segments, dtype=torch.long)
        return (sees[segments][:, segments].tril())[None, None]


def _rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)]
