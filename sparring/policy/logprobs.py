"""Log-probabilities of completions without padding, and with what their prompts share computed once.

A batch becomes one row, a tree: what prompts begin with alike (system prompt, chat header, role prompt), the rest of
each distinct prompt, and behind it all of its completions. Equal to the padded forward within float error (tested).
Models whose attention can be exchanged (`sparring.policy.architectures`) attend along the branches of the tree; others
get the tree as a mask, and pay the square of the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from sparring.errors import ModelError
from sparring.policy.architectures import attends_freely, unwrap
from sparring.policy.products import FastProducts
from sparring.policy.tree import Block, Branches, Tokens, prefix_tree, sees, tree_attention

_ATTENTION = "sparring_tree"
AttentionInterface.register(_ATTENTION, tree_attention)


@dataclass(frozen=True)
class Packed:
    """A packed batch: `ids` and `positions` (1, W) int64, and the blocks that the columns form.

    `columns[b]` holds, for each token of completion b, the column whose logits predict it.
    """

    ids: Tensor
    positions: Tensor
    blocks: list[Block]
    columns: list[list[int]]

    @property
    def mask(self) -> Tensor:
        """(1, 1, W, W) bool: True where the token of the row may see the token of the column."""
        return self.mask_within(None)

    def mask_within(self, window: int | None) -> Tensor:
        """`mask` for layers in which a token sees at most `window` positions, its own included."""
        width = self.ids.shape[1]
        mask = torch.zeros(width, width, dtype=torch.bool)
        for number, block in enumerate(self.blocks):
            spans = [(self.blocks[i].start, self.blocks[i].end) for i in (*block.path, number)]
            seen = torch.split(sees(self.blocks, number, window), [end - start for start, end in spans], dim=1)
            for (start, end), part in zip(spans, seen, strict=True):
                mask[block.start : block.end, start:end] = part
        return mask[None, None]


def pack(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor) -> Packed:
    """Packs left-padded prompts (B, P) and right-padded completions (B, T) with their masks."""
    return pack_rows(_rows(prompt_ids, prompt_mask), _rows(completion_ids, completion_mask))


def pack_rows(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Packed:
    """Packs token lists; completion b stands behind prompt b. Prompts have at least one token."""
    rows: dict[Tokens, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(tuple(prompt), []).append(row)
    tree, ends = prefix_tree(list(rows))
    columns: list[list[int]] = [[] for _ in prompts]
    for prompt, numbers in rows.items():
        last, start = tree.columns(ends[prompt])[-1], len(tree.ids)
        for row in numbers:  # the last token of a completion predicts nothing
            size = max(len(completions[row]) - 1, 0)
            columns[row] = [last, *range(start, start + size)][: len(completions[row])]
            start += size
        segments = [completions[row][:-1] for row in numbers if len(completions[row]) > 1]
        if segments:
            tree.add(segments, (*tree.blocks[ends[prompt]].path, ends[prompt]))
    return Packed(torch.tensor([tree.ids]), tree.positions()[None], tree.blocks, columns)


def packed_logprobs(
    model: Any, packed: Packed, completion_ids: Tensor, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each completion token (B, T) and, if asked, the entropy of its distribution (B, T), nats.

    Values at padding are meaningless. Calls `model(...)` itself, so that wrappers (DDP, PEFT) see the pass.
    """
    kept = sorted({column for row in packed.columns for column in row})
    index = {column: i for i, column in enumerate(kept)}
    width, device = completion_ids.shape[1], completion_ids.device
    picks = torch.tensor([[index[c] for c in row] + [0] * (width - len(row)) for row in packed.columns]).to(device)
    with FastProducts(), _along_the_tree(model, packed, device) as attention:
        out = model(
            input_ids=packed.ids.to(device),
            position_ids=packed.positions.to(device),
            logits_to_keep=torch.tensor(kept, device=device),
            use_cache=False,
            **attention,
        )
    logits = out.logits[0].float()
    total = torch.logsumexp(logits, dim=-1)
    logprobs = logits[picks, completion_ids] - total[picks]
    if not entropy:
        return logprobs, None
    with torch.no_grad():
        entropies = total - torch.linalg.vecdot(torch.softmax(logits, dim=-1), logits)
    return logprobs, entropies[picks]


@contextmanager
def _along_the_tree(model: Any, packed: Packed, device: torch.device) -> Iterator[dict[str, Any]]:
    """What `model(...)` must be given, while its attention follows the tree."""
    inner = unwrap(model)
    if not attends_freely(inner):
        yield {"attention_mask": tree_masks(inner.config, packed, device)}
        return
    before = inner.config._attn_implementation
    inner.config._attn_implementation = _ATTENTION
    try:
        yield {"attention_mask": None, "branches": Branches(packed.blocks, device)}
    finally:
        inner.config._attn_implementation = before


def tree_masks(config: Any, packed: Packed, device: torch.device) -> Any:
    """The tree as a mask, as a model of this configuration takes it: one with layers of several types one for each."""
    config = config.get_text_config()
    eager, window = config._attn_implementation == "eager", getattr(config, "sliding_window", None)
    if foreign := set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"layers of type {sorted(foreign)[0]} cannot be trained: rows share a pass, which they would mix up",
            hint="take a model whose layers are all attention",
        )

    def mask(width: int | None) -> Tensor:
        sees = packed.mask_within(width).to(device)
        return torch.where(sees, 0.0, torch.finfo(torch.float32).min) if eager else sees

    if getattr(config, "layer_types", None) and window:
        return {"full_attention": mask(None), "sliding_attention": mask(window)}
    return mask(window)


def _rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)]
