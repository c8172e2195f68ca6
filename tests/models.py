"""Small real models for tests: a random Llama with the packaged model's own tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sparring.policy.packaged import packaged_file


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """A two-layer Llama with grouped heads, random weights, and SmolLM2's tokenizer."""
    gguf = packaged_file()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # spread the logits: near-ties would make greedy decoding a coin toss
        model.model.embed_tokens.weight.mul_(20.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
