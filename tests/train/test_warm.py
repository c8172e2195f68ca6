"""The warm start: what its lessons weigh, and what they do to a model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from sparring.config.run import WarmStartConfig
from sparring.errors import TrainingError
from sparring.policy.load import Policy
from sparring.train.supervised import Example, Lessons, collate, warm_batches
from sparring.train.warm import middle, warm_start


def test_warm_start_mixes_its_kinds_and_refuses_one_kind_alone() -> None:
    lessons = Lessons([Example([1], [2])] * 3, [Example([3], [4])] * 3, [Example([5], [6])] * 3)
    config = WarmStartConfig(steps=3, batch=10, attacker_share=0.2, refusal_share=0.5)
    batches = warm_batches(lessons, config, random.Random(0))
    assert [sorted(e.prompt[0] for e in batch) for batch in batches] == [[1] * 4 + [3] * 4 + [5] * 2] * 3
    with pytest.raises(TrainingError, match="3 refusals and 0 own helpful answers"):
        warm_batches(Lessons(lessons.refusals, [], []), config, random.Random(0))


def test_labels_cover_answers_alone() -> None:
    batch = collate([Example([1, 2], [3]), Example([1, 7], [4, 5, 6])], LlamaConfig())
    assert batch["input_ids"].tolist() == [[1, 2, 7, 4, 5]]  # what both begin with stands once, last tokens not at all
    assert batch["position_ids"].tolist() == [[0, 1, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, 3, 4, 5, 6]]
    assert batch["logits_to_keep"].tolist() == [1, 2, 3, 4, 4]
    assert batch["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 1, 1, 1],
    ]


def lesson_rows(policy: Policy, own: bool) -> list[Example]:
    prompts = policy.chat.encode(["Name a river.", "Name a long, long river.", "Name a sea.", "Name two seas."], 64)
    answers = policy.chat.encode_answers(["The Rhine.", "The Nile.", "The Baltic Sea.", "Two."], 8)
    return [Example(p, a, own=own, decay=0.5) for p, a in zip(prompts, answers, strict=True)]


def padded_loss(model: Any, rows: list[Example]) -> float:
    """Row by row, without packing: the mean over rows of each one's falling mean of its tokens' loss."""
    losses = []
    for row in rows:
        logits = model(torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]
        said = torch.log_softmax(logits, 1)[range(len(row.answer)), row.answer]
        weights = torch.tensor([row.decay**i for i in range(len(row.answer))])
        losses.append(float(-(said * weights).sum().detach() / weights.sum()))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_warm_start_learns_its_answers(policy: Policy, tmp_path: Path, bf16: bool) -> None:
    rows = lesson_rows(policy, own=False)
    config, losses = WarmStartConfig(steps=20, batch=4, layers=(0, 1)), list[float]()
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    first = padded_loss(policy.model, rows)

    def on_step(_: int, logs: dict[str, float]) -> None:
        losses.append(logs["loss"])

    warm_start(policy.model, [rows] * 20, config, tmp_path, 0, on_step, bf16=bf16)
    assert len(losses) == 20 and losses[-1] < 0.8 * losses[0]
    assert losses[0] == pytest.approx(first, rel=0.02 if bf16 else 1e-4)
    after = policy.model.state_dict()
    assert after.keys() == before.keys() and all(p.dtype == torch.float32 for p in policy.model.parameters())
    assert all(p.requires_grad for p in policy.model.parameters())
    assert padded_loss(policy.model, rows) < 0.8 * first  # what was learnt is in the plain model's weights
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(".layers." in name and name.endswith("_proj.weight") for name in moved)


def test_own_words_cost_nothing_while_nothing_has_changed(policy: Policy, tmp_path: Path) -> None:
    rows, losses = lesson_rows(policy, own=True), list[float]()
    config = WarmStartConfig(steps=1, batch=4, layers=(0, 1))
    warm_start(policy.model, [rows], config, tmp_path, 0, lambda _, logs: losses.append(logs["loss"]))
    assert losses == pytest.approx([0.0], abs=1e-6)


def test_own_words_hold_a_model_where_it_was(policy: Policy, tmp_path: Path) -> None:
    taught, own = lesson_rows(policy, own=False)[:2], lesson_rows(policy, own=True)[2:]
    start = policy.model.state_dict()
    start = {name: value.clone() for name, value in start.items()}

    def drift(rows: list[Example]) -> float:
        policy.model.load_state_dict(start)
        before = [torch.log_softmax(policy.model(torch.tensor([e.prompt])).logits[0, -1], 0).detach() for e in own]
        config = WarmStartConfig(steps=40, batch=len(rows), layers=(0, 1))
        warm_start(policy.model, [rows] * 40, config, tmp_path, 0, lambda *_: None)
        after = [torch.log_softmax(policy.model(torch.tensor([e.prompt])).logits[0, -1], 0).detach() for e in own]
        return sum(float((b.exp() * (b - a)).sum()) for b, a in zip(before, after, strict=True))

    assert drift([*taught, *own]) < 0.5 * drift(taught)


@given(st.floats(0, 0.95), st.floats(0.01, 1))
def test_the_adapter_is_in_the_asked_part_of_the_depth(low: float, width: float) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=10, hidden_size=8, intermediate_size=8, vocab_size=8,
                                             num_attention_heads=2, num_key_value_heads=1))  # fmt: skip
    high = min(1.0, low + width)
    layers = sorted({int(name.split(".")[2]) for name in middle(model, (low, high))})
    first = min(round(low * 10), 9)
    assert layers == list(range(first, max(round(high * 10), first + 1)))
    assert len(middle(model, (low, high))) == 7 * len(layers)


def test_a_warm_start_that_loses_its_numbers_is_an_error(policy: Policy, tmp_path: Path) -> None:
    config = WarmStartConfig(steps=4, batch=4, layers=(0, 1), learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"warm start, step \d: the loss or its gradient is not finite"):
        warm_start(policy.model, [lesson_rows(policy, own=False)] * 4, config, tmp_path, 0, lambda *_: None)


def test_the_warm_start_ends_where_it_is_told_to(policy: Policy, tmp_path: Path) -> None:
    prompts, answers = policy.chat.encode(["Name a river."], 64), policy.chat.encode_answers(["The Rhine."], 8)
    config, steps = WarmStartConfig(steps=6, batch=2), list[int]()
    rows = [Example(prompts[0], answers[0])] * 2
    warm_start(
        policy.model, [rows] * 6, config, tmp_path, 0, lambda step, _: steps.append(step), stop=lambda: len(steps) == 2
    )
    assert steps == [1, 2]
