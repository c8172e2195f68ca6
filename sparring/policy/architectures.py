"""The decoder architectures that the fast loop knows, as a table, and the reading of their weights.

What differs between them is read from the modules themselves: biases, norms (called as they are), activation, scaled
embeddings, rotary embedding, attention scale, sliding windows and soft caps. A model behind wrappers (DDP, PEFT) is
looked at through them; a LoRA adapter in use is added to the weights that are read, never merged into the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """`head_norms`: queries and keys are normed for each head. `sandwich`: norms behind attention and MLP too.

    `bent`: attention scores have a soft cap. `rotary_by_layer`: each type of layer has its own rotary embedding.
    """

    head_norms: bool = False
    sandwich: bool = False
    bent: bool = False
    rotary_by_layer: bool = False


KNOWN = {
    "llama": Architecture(),
    "mistral": Architecture(),
    "qwen2": Architecture(),  # also Qwen 2.5
    "qwen3": Architecture(head_norms=True),
    "gemma": Architecture(),
    "gemma2": Architecture(sandwich=True, bent=True),
    "gemma3_text": Architecture(head_norms=True, sandwich=True, rotary_by_layer=True),
}
_ROPES = {"default", "linear", "llama3", "yarn"}  # the others change with the length of what is seen
_PRODUCTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def unwrap(model: Any) -> Any:
    """The causal language model inside torch.compile, DDP and PEFT wrappers. PEFT's layers stay in their places."""
    for _ in range(4):
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif hasattr(model, "module") and not hasattr(model, "config"):
            model = model.module
    return model


def supports(model: Any) -> bool:
    """Whether the fast loop reads this model right: a known architecture, plain layers, all on one device."""
    inner = unwrap(model)
    if inner.config.model_type not in KNOWN or not _plain_rope(inner.config):
        return False
    if getattr(inner.config, "use_bidirectional_attention", False):
        return False
    products = [layer.get_submodule(name) for layer in inner.model.layers for name in (*_PRODUCTS, *_MLP)]
    readable = all(_readable(module) for module in [*products, inner.lm_head])
    devices = {parameter.device for parameter in inner.parameters()}
    return readable and isinstance(inner.model.embed_tokens, nn.Embedding) and len(devices) == 1


def attends_freely(inner: Any) -> bool:
    """Whether another attention may be put into the (unwrapped) model for the time of one forward pass.

    Not under gradient checkpointing, which computes the pass again when that time is over.
    """
    return inner.config.model_type in KNOWN and not inner.is_activation_checkpointing


def weights(module: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer, with the LoRA adapters in use added."""
    if isinstance(module, nn.Linear):
        return module.weight, module.bias
    base = module.base_layer
    weight: Tensor = base.weight
    if not module.disable_adapters and not module.merged:
        for name in module.active_adapters:
            if name in module.lora_A:
                weight = weight + module.get_delta_weight(name)
    return weight, base.bias


def window_of(inner: Any, layer: Any) -> int | None:
    """How many positions a token of this layer sees at most; None: all."""
    attention = layer.self_attn
    owner = attention if hasattr(attention, "sliding_window") else inner.config
    found = getattr(owner, "sliding_window", None)
    return int(found) if found is not None else None


def _plain_rope(config: Any) -> bool:
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    return all(kind.get("rope_type", "default") in _ROPES for kind in kinds)


def _readable(module: Any) -> bool:
    if isinstance(module, nn.Linear):  # sharded weights (FSDP, DeepSpeed) have another shape
        return tuple(module.weight.shape) == (module.out_features, module.in_features)
    if not hasattr(module, "lora_A") or not isinstance(getattr(module, "base_layer", None), nn.Linear):
        return False
    plain = not module.lora_variant and not any(module.lora_bias.values())
    return plain and _readable(module.base_layer) and torch.is_floating_point(module.base_layer.weight)
