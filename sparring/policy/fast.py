"""A fast sampling loop over the live weights of a known decoder architecture, made for CPUs.

Hugging Face's `generate` concatenates the cache at every token, expands grouped-query heads, pads prompts and carries
finished rows along. Here tokens go through the layers in one row without padding; what prompts begin with alike is
computed once; rows are kept in buckets of like lengths whose caches are allocated once; finished rows leave. Greedy
output equals Hugging Face's (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparring.policy.architectures import KNOWN, unwrap, weights, window_of
from sparring.policy.bucket import Bucket, bucket_rows
from sparring.policy.products import linear
from sparring.policy.tree import Branches, Tokens, prefix_tree

LEAST_SHARED = 16
"""A beginning of fewer tokens than this is computed again rather than given a block of its own."""

CHUNK = 256
"""Tokens that go through the products and norms at a time."""

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One decoder layer, ready to be computed."""

    number: int
    kind: str
    norms: tuple[Product, Product, Product, Product]
    head_norms: tuple[Product, Product] | None
    qkv: tuple[Product, Product, Product]
    out: Product
    gate: Product
    up: Product
    down: Product
    act: Product
    scale: float
    softcap: float | None
    window: int | None


class FastModel:
    """Forward passes on a snapshot of a model's weights: build one for each call, after each training step."""

    def __init__(self, model: Any) -> None:
        inner = unwrap(model)
        config = inner.config
        self.known = KNOWN[config.model_type]
        self.kv_heads = int(config.num_key_value_heads)
        self.heads = int(config.num_attention_heads)
        self.head_dim = int(inner.model.layers[0].self_attn.head_dim)
        self.embed, self.norm, self.rotary = inner.model.embed_tokens, inner.model.norm, inner.model.rotary_emb
        self.head = _product(inner.lm_head)
        self.device = self.embed.weight.device
        self._final_cap = getattr(config, "final_logit_softcapping", None)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(inner.model.layers)
        self.layers = [self._layer(inner, i, kind) for i, kind in enumerate(kinds)]

    def _layer(self, inner: Any, number: int, kind: str) -> Layer:
        layer = inner.model.layers[number]
        attention, mlp = layer.self_attn, layer.mlp
        after = layer.post_attention_layernorm
        if self.known.sandwich:
            norms = (layer.input_layernorm, after, layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm)
        else:
            norms = (layer.input_layernorm, _same, after, _same)
        return Layer(
            number,
            kind,
            norms,
            (attention.q_norm, attention.k_norm) if self.known.head_norms else None,
            (_product(attention.q_proj), _product(attention.k_proj), _product(attention.v_proj)),
            _product(attention.o_proj),
            _product(mlp.gate_proj),
            _product(mlp.up_proj),
            _product(mlp.down_proj),
            mlp.act_fn,
            float(attention.scaling),
            attention.attn_logit_softcapping if self.known.bent else None,
            window_of(inner, layer),
        )

    def prefill(self, prompts: Sequence[Sequence[int]], steps: int) -> Decoding:
        """Reads all prompts and returns the state from which up to `steps` tokens can be decoded for each."""
        keys = [tuple(prompt) for prompt in prompts]
        tree, ends = prefix_tree(keys, LEAST_SHARED)
        paths = {key: tuple(tree.columns(end)) for key, end in ends.items()}
        groups = bucket_rows(keys, {key: tree.blocks[end].path for key, end in ends.items()})
        buckets = [Bucket([paths[keys[row]] for row in group], steps, self.device) for group in groups]
        branches = Branches(tree.blocks, self.device)

        def attend(layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for bucket in buckets:
                bucket.fill(k, v)
            q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
            out = branches.attend(q, k, v, scale=layer.scale, window=layer.window, softcap=layer.softcap)
            return out[0].transpose(0, 1)

        hidden = self.forward(torch.tensor(tree.ids, device=self.device), tree.positions().to(self.device), attend)
        rows = [row for group in groups for row in group]
        last = [paths[keys[row]][-1] for row in rows]
        lengths = torch.tensor([len(prompts[row]) for row in rows], device=self.device)
        return Decoding(self, buckets, torch.tensor(rows), lengths, self.logits(hidden[last]))

    def forward(
        self, ids: Tensor, positions: Tensor, attend: Callable[[Layer, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Last hidden states (N, width) of N tokens; `attend` computes a layer's attention from (N, heads, D)."""
        hidden: Tensor = self.embed(ids)
        rotary = self._rotary(hidden, positions)
        for layer in self.layers:
            q, k, v = self._heads(layer, hidden, rotary[layer.kind])
            hidden = self._rest(layer, hidden, attend(layer, q, k, v).reshape(len(ids), -1))
        return hidden

    def _rest(self, layer: Layer, hidden: Tensor, mixed: Tensor) -> Tensor:
        """What follows a layer's attention, in chunks that stay in the processor's cache."""
        _, after, before_mlp, after_mlp = layer.norms
        out = []
        for x, y in zip(torch.split(hidden, CHUNK), torch.split(mixed, CHUNK), strict=True):
            middle = x + after(layer.out(y))
            normed = before_mlp(middle)
            out.append(middle + after_mlp(layer.down(layer.act(layer.gate(normed)).mul_(layer.up(normed)))))
        return out[0] if len(out) == 1 else torch.cat(out)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (N, vocabulary), float32."""
        found = self.head(self.norm(hidden)).float()
        return found if self._final_cap is None else torch.tanh(found / self._final_cap) * self._final_cap

    def _rotary(self, hidden: Tensor, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines (N, 1, D) for each type of layer."""
        kinds = {layer.kind for layer in self.layers}
        extra = {kind: {"layer_type": kind} if self.known.rotary_by_layer else {} for kind in kinds}
        found = {kind: self.rotary(hidden[None], positions[None], **extra[kind]) for kind in kinds}
        return {kind: (cos[0][:, None], sin[0][:, None]) for kind, (cos, sin) in found.items()}

    def _heads(self, layer: Layer, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, heads, D) of a layer, turned by their positions; in chunks like `_rest`."""
        out = [
            self._turned(layer, *part) for part in zip(*(torch.split(x, CHUNK) for x in (hidden, *rotary)), strict=True)
        ]
        both, v = out[0] if len(out) == 1 else (torch.cat(parts) for parts in zip(*out, strict=True))
        q, k = torch.split(both, [self.heads, self.kv_heads], dim=1)
        return q, k, v

    def _turned(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        x = layer.norms[0](hidden)
        q, k, v = (product(x).reshape(len(x), -1, self.head_dim) for product in layer.qkv)
        if layer.head_norms:
            q, k = layer.head_norms[0](q), layer.head_norms[1](k)
        both, half = torch.cat((q, k), dim=1), self.head_dim // 2
        return both * cos + torch.cat((-both[..., half:], both[..., :half]), dim=-1) * sin, v


class Decoding:
    """A batch while it is decoded. `rows` are the numbers of the prompts that still go on, `logits` what comes next."""

    def __init__(self, model: FastModel, buckets: list[Bucket], rows: Tensor, lengths: Tensor, logits: Tensor) -> None:
        self.model, self.rows, self.logits = model, rows, logits
        self._buckets, self._positions = buckets, lengths

    def drop(self, keep: Tensor) -> None:
        """Goes on only with the rows where `keep` (N,) bool is True."""
        sizes = [len(bucket) for bucket in self._buckets]
        for bucket, part in zip(self._buckets, torch.split(keep, sizes), strict=True):
            bucket.drop(part)
        self._buckets = [bucket for bucket in self._buckets if len(bucket)]
        self.rows, self._positions = self.rows[keep.to(self.rows.device)], self._positions[keep]

    def step(self, tokens: Tensor) -> None:
        """Appends one token to each row (N,) and computes the logits of the next."""
        for bucket in self._buckets:
            bucket.advance()
        sizes = [len(bucket) for bucket in self._buckets]

        def attend(layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            parts = zip(self._buckets, *(torch.split(x, sizes) for x in (q, k, v)), strict=True)
            bent = layer.scale, layer.window, layer.softcap
            return torch.cat([bucket.attend(layer.number, *new, *bent) for bucket, *new in parts])

        self.logits = self.model.logits(self.model.forward(tokens, self._positions, attend))
        self._positions = self._positions + 1


def _same(x: Tensor) -> Tensor:
    return x


def _product(module: Any) -> Product:
    weight, bias = weights(module)
    return lambda x: linear(x, weight, bias)


def prompt_tokens(prompts: Sequence[Tokens]) -> int:
    """How many prompt tokens are really computed for these prompts."""
    return len(prefix_tree(prompts, LEAST_SHARED)[0].ids)
