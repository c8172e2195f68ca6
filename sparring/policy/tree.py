"""Token sequences as a tree of what they begin with alike, written into one row, and attention along its branches.

A row holds blocks of neighbouring columns. The tokens of a block see the blocks that lead to it (`path`) whole, and
one another as `own` says. Nothing is padded and nothing that two sequences begin with is computed twice: attention
costs the sum over blocks, not the square of the row. Prefix Grouper (arXiv 2506.05433) describes the idea for one
prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Columns `start` to `end`. `path` are numbers of blocks, the root first; `own` (S, S) bool is what S tokens see

    of one another. `positions` (S,) are rotary positions.
    """

    start: int
    end: int
    path: tuple[int, ...]
    own: Tensor
    positions: Tensor


class Tree:
    """A row while it is built: the ids of all columns and the blocks they stand in."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.blocks: list[Block] = []

    def add(self, segments: Sequence[Sequence[int]], path: tuple[int, ...]) -> int:
        """Appends segments that all follow `path` and do not see each other, as one block; returns its number."""
        start = len(self.ids)
        depth = sum(self.blocks[number].end - self.blocks[number].start for number in path)
        for segment in segments:
            self.ids.extend(segment)
        sizes = [len(segment) for segment in segments]
        owner = torch.repeat_interleave(torch.tensor(sizes))
        own = (owner[:, None] == owner).tril()
        positions = torch.cat([torch.arange(depth, depth + n) for n in sizes])
        self.blocks.append(Block(start, len(self.ids), path, own, positions))
        return len(self.blocks) - 1

    def columns(self, number: int) -> list[int]:
        """All columns that lead to the last token of a block of one segment, in their order."""
        blocks = [self.blocks[i] for i in (*self.blocks[number].path, number)]
        return [column for block in blocks for column in range(block.start, block.end)]

    def positions(self) -> Tensor:
        """The rotary position of each column (W,)."""
        return torch.cat([block.positions for block in self.blocks])


def prefix_tree(prompts: Sequence[Tokens], least: int = 1) -> tuple[Tree, dict[Tokens, int]]:
    """A tree of all prompts and the block in which each ends; a block of its own for `least` common tokens or more.

    Equal prompts are one. Prompts have at least one token.
    """
    tree, ends = Tree(), dict[Tokens, int]()
    _grow(tree, ends, sorted(set(prompts)), (), 0, 0, least)
    return tree, ends


def _grow(
    tree: Tree, ends: dict[Tokens, int], prompts: list[Tokens], path: tuple[int, ...], done: int, at: int, least: int
) -> None:
    """Adds sorted `prompts`, whose first `done` tokens stand on `path` already and whose first `at` are alike."""
    if len(prompts) == 1:
        _end(tree, ends, prompts[0], path, done)
        return
    common = at + common_prefix([prompts[0][at:], prompts[-1][at:]])
    if common - done >= least:
        path = (*path, tree.add([prompts[0][done:common]], path))
        done = common
    if len(prompts[0]) == common:
        _end(tree, ends, prompts.pop(0), path, done)
    for _, branch in groupby(prompts, key=lambda prompt: prompt[common]):
        _grow(tree, ends, list(branch), path, done, common + 1, least)


def _end(tree: Tree, ends: dict[Tokens, int], prompt: Tokens, path: tuple[int, ...], done: int) -> None:
    ends[prompt] = path[-1] if done == len(prompt) else tree.add([prompt[done:]], path)


def common_prefix(rows: Sequence[Tokens]) -> int:
    """Length of the beginning that all rows share.

    >>> common_prefix([(1, 2, 3), (1, 2), (1, 2, 4)])
    2
    """
    first, last = min(rows), max(rows)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def sees(blocks: Sequence[Block], number: int, window: int | None) -> Tensor:
    """(S, K) bool: which of its keys (those of its path, then its own) each token of a block sees.

    `window` is the number of positions that a token sees at most, itself included.
    """
    block = blocks[number]
    keys = torch.cat([blocks[i].positions for i in (*block.path, number)])
    mask = torch.ones(len(block.own), len(keys), dtype=torch.bool)
    mask[:, len(keys) - len(block.own) :] = block.own
    return mask if window is None else mask & (block.positions[:, None] - keys < window)


class Branches:
    """The blocks of a row with their masks, each built once for all layers."""

    def __init__(self, blocks: Sequence[Block], device: torch.device) -> None:
        self.blocks, self._device = blocks, device
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def mask(self, number: int, window: int | None) -> Tensor:
        """See `sees`."""
        if (number, window) not in self._masks:
            self._masks[number, window] = sees(self.blocks, number, window).to(self._device)
        return self._masks[number, window]

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """Attention over the row: query (1, heads, W, D), key and value (1, kv heads, W, D) → (1, heads, W, D)."""
        sizes = [block.end - block.start for block in self.blocks]
        queries, keys, values = (torch.split(x, sizes, dim=2) for x in (query, key, value))
        out = []
        for number, block in enumerate(self.blocks):
            seen = (*block.path, number)
            out.append(
                attend(
                    queries[number],
                    torch.cat([keys[i] for i in seen], dim=2),
                    torch.cat([values[i] for i in seen], dim=2),
                    self.mask(number, window),
                    scale,
                    softcap,
                    dropout,
                )
            )
        return torch.cat(out, dim=2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of (B, heads, S, D) over (B, kv heads, K, D) with a boolean mask; `softcap` bends the scores."""
    group = query.shape[1] // key.shape[1]
    if softcap is None and query.device.type == "cpu":
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=group > 1
        )
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scale / softcap))
    shares = torch.softmax(scores.masked_fill(~mask, float("-inf")).float(), dim=-1).to(query.dtype)
    return F.dropout(shares, dropout) @ value


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    branches: Branches,
    **_: Any,
) -> tuple[Tensor, None]:
    """`Branches.attend` as an attention implementation of transformers; `branches` comes through `model(...)`."""
    found = branches.attend(query, key, value, scale=scaling, window=sliding_window, softcap=softcap, dropout=dropout)
    return found.transpose(1, 2), None
