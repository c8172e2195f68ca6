"""A fast forward pass for Llama-type checkpoints on CPU: the live weights, a preallocated key-value cache.

Hugging Face's `generate` concatenates the cache at every token and expands grouped-query heads; this loop writes into
a preallocated cache and attends grouped heads as extra queries. Greedy output equals Hugging Face's (tested).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SUPPORTED = frozenset({"llama"})


def supports(model: Any) -> bool:
    """Whether this module knows the model's architecture (no biases, plain rotary embedding)."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    plain = rope.get("rope_type", "default") == "default" and not getattr(config, "attention_bias", False)
    return config.model_type in SUPPORTED and plain and not getattr(config, "mlp_bias", False)


@dataclass
class Cache:
    """Keys and values, each (layers, B, kv heads, T, head dim); `mask` (B, T) is True at columns that hold a token."""

    keys: Tensor
    values: Tensor
    mask: Tensor
    filled: int

    def select(self, rows: Tensor) -> None:
        """Keeps only the given batch rows, in that order (also repeats rows)."""
        self.keys, self.values, self.mask = self.keys[:, rows], self.values[:, rows], self.mask[rows]


class FastLlama:
    """Forward passes on the weights of a `LlamaForCausalLM`; holds views, so that training steps are seen at once."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.layers = list(model.model.layers)
        self.embed, self.norm, self.head = model.model.embed_tokens, model.model.norm, model.lm_head
        self.heads, self.kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.rotary = model.model.rotary_emb

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows and `length` columns."""
        shape = (len(self.layers), batch, self.kv_heads, length, self.head_dim)
        return Cache(torch.empty(shape), torch.empty(shape), torch.zeros(batch, length, dtype=torch.bool), 0)

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Appends `ids` (B, S) to the cache and returns the last column's logits (B, vocabulary).

        `mask` (B, S) is False at padding, `positions` (B, S) are rotary positions.
        """
        start, end = cache.filled, cache.filled + ids.shape[1]
        cache.mask[:, start:end] = mask
        cache.filled = end
        hidden = self.embed(ids)
        rotary = self.rotary(hidden, positions)
        allowed = self._allowed(cache, start, end)
        for index, layer in enumerate(self.layers):
            hidden = hidden + self._attend(layer, index, layer.input_layernorm(hidden), rotary, allowed, cache)
            hidden = hidden + _mlp(layer.mlp, layer.post_attention_layernorm(hidden))
        logits: Tensor = self.head(self.norm(hidden[:, -1]))
        return logits

    def _allowed(self, cache: Cache, start: int, end: int) -> Tensor:
        allowed = cache.mask[:, None, None, :end]
        if end - start == 1:
            return allowed
        causal = torch.ones(end - start, end, dtype=torch.bool).tril(start)
        # a padded query attends to itself, else its softmax is empty and NaN spreads
        return (allowed & causal) | torch.eye(end, dtype=torch.bool)[start:end]

    def _attend(
        self, layer: Any, index: int, x: Tensor, rotary: tuple[Tensor, Tensor], allowed: Tensor, cache: Cache
    ) -> Tensor:
        attention, (batch, length, _) = layer.self_attn, x.shape
        q = attention.q_proj(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = attention.k_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = attention.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = _rotate(q, *rotary), _rotate(k, *rotary)
        end = cache.filled
        cache.keys[index, :, :, end - length : end] = k
        cache.values[index, :, :, end - length : end] = v
        keys, values = cache.keys[index, :, :, :end], cache.values[index, :, :, :end]
        group = self.heads // self.kv_heads
        if length == 1:  # the heads of a group are extra queries of one key-value head: nothing is expanded
            grouped = q.view(batch, self.kv_heads, group, self.head_dim)
            out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=allowed)
            return attention.o_proj(out.reshape(batch, 1, -1))  # type: ignore[no-any-return]
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=allowed)
        return attention.o_proj(out.transpose(1, 2).reshape(batch, length, -1))  # type: ignore[no-any-return]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    out: Tensor = mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    return out
