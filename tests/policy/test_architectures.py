"""Every architecture of the table against Hugging Face: greedy tokens, log-probabilities, gradients of packed rows."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from sparring.policy.architectures import attends_freely, supports, unwrap
from sparring.policy.generate import generate
from sparring.policy.logprobs import pack_rows, packed_logprobs
from sparring.train.supervised import Example, collate

SIZE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MIXED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "llama, linear rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}},
    ),
    "llama, yarn": ("llama", {"rope_parameters": LLAMA3 | {"rope_type": "yarn"}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, sliding window": ("mistral", {"sliding_window": 8}),
    "qwen2": ("qwen2", {}),
    "qwen2, sliding window": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 8}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {"hidden_activation": "gelu_pytorch_tanh"}),
    "gemma 2": (
        "gemma2",
        {"query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0, **MIXED},
    ),
    "gemma 3": ("gemma3_text", {"query_pre_attn_scalar": 24, **MIXED}),
}
PROMPTS = [
    [1, 7, 8, 9, *range(20, 50)],
    [1, 7, 8, 9, 10],
    [1, 7, 8, 9, *range(20, 38), 99],
    [1, 7, 8, 9, 10],
    [5],
    [1, 7, 8, 9],
]


def make(name: str) -> Any:
    """A random model whose weights are all worth something: biases and norms too, logits spread."""
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZE, **settings))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.3 if "norm" in key or "bias" in key else 0.15))
    return model.eval()


def stock(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """Log-probabilities of one answer: a row of its own, no padding, no packing."""
    logits = model(torch.tensor([prompt + answer])).logits[0].float()
    table = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
    return table.gather(1, torch.tensor(answer)[:, None]).squeeze(1)


def gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).detach().abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_the_fast_loop_equals_hugging_face(name: str) -> None:
    model = make(name)
    assert supports(model)
    ours = generate(model, PROMPTS, eos=frozenset({2}), max_new_tokens=12, temperature=0.0, seed=0)
    for prompt, answer, values in zip(PROMPTS, ours.ids, ours.logprobs, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert theirs[0, len(prompt) :].tolist() == answer
        assert gap(stock(model, prompt, answer), torch.tensor(values)) < 1e-4
    assert len({tuple(answer) for answer in ours.ids}) >= 4  # not one answer to everything


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("masked", [False, True], ids=["along the tree", "as a mask"])
def test_packed_rows_equal_single_rows(name: str, masked: bool) -> None:
    model = make(name)
    answers = generate(model, PROMPTS, eos=frozenset({2}), max_new_tokens=12, temperature=1.0, seed=4).ids
    if masked:
        model.activation_checkpointing_enable()
        assert not attends_freely(model)
    width = max(map(len, answers))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in answers])
    found, entropy = packed_logprobs(model, pack_rows(PROMPTS, answers), ids, entropy=True)
    ours = torch.cat([row[: len(answer)] for row, answer in zip(found, answers, strict=True)])
    theirs = torch.cat([stock(model, p, a) for p, a in zip(PROMPTS, answers, strict=True)])
    assert gap(ours, theirs) < 1e-4
    assert entropy is not None and bool((entropy >= -1e-4).all())
    assert model.config._attn_implementation in {"sdpa", "eager"}
    mine, stocks = (torch.autograd.grad(x.sum(), list(model.parameters())) for x in (ours, theirs))
    apart = sum(float((a - b).square().sum()) for a, b in zip(mine, stocks, strict=True))
    assert (apart / sum(float(b.square().sum()) for b in stocks)) ** 0.5 < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_lessons_see_what_the_architecture_shows_them(name: str) -> None:
    model = make(name)
    answers = generate(model, PROMPTS, eos=frozenset({2}), max_new_tokens=12, temperature=1.0, seed=4).ids
    rows = [Example(list(p), list(a)) for p, a in zip(PROMPTS, answers, strict=True)]
    theirs = torch.cat([stock(model, p, a) for p, a in zip(PROMPTS, answers, strict=True)])
    assert gap(model(**collate(rows, model.config)).loss, -theirs.mean()) < 1e-4


def test_other_architectures_sample_through_their_own_forward_pass(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt_neox", **(SIZE | {"max_position_embeddings": 64}))
    model: Any = AutoModelForCausalLM.from_config(config)
    model.train()
    assert not supports(model)
    with caplog.at_level(logging.INFO, logger="sparring.policy.generate"):
        for _ in range(2):
            ours = generate(model, PROMPTS[:3], eos=frozenset({2}), max_new_tokens=6, temperature=0.0, seed=0)
    assert [r.getMessage().split(" (")[0] for r in caplog.records] == ["model type gpt_neox"]  # once
    assert model.training
    model.eval()
    ids = torch.tensor([PROMPTS[0]])
    theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    assert theirs[0, len(PROMPTS[0]) :].tolist() == ours.ids[0]


def test_rotary_embeddings_that_change_with_length_are_left_to_their_model() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    config = AutoConfig.for_model("llama", **SIZE, rope_parameters=rope)
    assert not supports(AutoModelForCausalLM.from_config(config))


def test_an_adapter_in_use_is_added_and_the_model_stays_as_it_is() -> None:
    peft = pytest.importorskip("peft", reason="needs the extra with peft")
    base = make("llama")
    plain = generate(base, PROMPTS, eos=frozenset({2}), max_new_tokens=8, temperature=0.0, seed=0).ids
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "o_proj", "up_proj", "down_proj"])
    model = peft.get_peft_model(base, settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    model.eval()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    assert supports(model) and unwrap(model).config.model_type == "llama"
    ours = generate(model, PROMPTS, eos=frozenset({2}), max_new_tokens=8, temperature=0.0, seed=0)
    assert ours.ids != plain
    for prompt, answer, values in zip(PROMPTS, ours.ids, ours.logprobs, strict=True):
        assert gap(stock(model, prompt, answer), torch.tensor(values)) < 1e-4
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    with model.disable_adapter():
        off = generate(model, PROMPTS, eos=frozenset({2}), max_new_tokens=8, temperature=0.0, seed=0)
    assert off.ids == plain
