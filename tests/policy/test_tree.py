"""The tree of prompts and the two-step draw, against what they replace."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.policy.bucket import ROWS, bucket_rows
from sparring.policy.generate import choose
from sparring.policy.logprobs import pack_rows
from sparring.policy.tree import prefix_tree

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)
PROMPTS = st.lists(TOKENS, min_size=1, max_size=12)


@settings(deadline=None)
@given(PROMPTS, st.integers(1, 5))
def test_every_prompt_reads_along_its_path_and_nothing_worth_sharing_is_there_twice(
    prompts: list[tuple[int, ...]], least: int
) -> None:
    tree, ends = prefix_tree(prompts, least)
    assert set(ends) == set(prompts)
    positions = tree.positions().tolist()
    for prompt, end in ends.items():
        columns = tree.columns(end)
        assert tuple(tree.ids[c] for c in columns) == prompt
        assert [positions[c] for c in columns] == list(range(len(prompt)))
    prefixes = {prompt[:size] for prompt in prompts for size in range(1, len(prompt) + 1)}
    assert len(tree.ids) >= len(prefixes)
    if least == 1:
        assert len(tree.ids) == len(prefixes)


@settings(deadline=None)
@given(st.data(), PROMPTS)
def test_a_packed_token_sees_its_prompt_and_its_own_completion_only(
    data: st.DataObject, prompts: list[tuple[int, ...]]
) -> None:
    answers = [data.draw(TOKENS) for _ in prompts]
    packed = pack_rows(prompts, answers)
    ids, mask = packed.ids[0].tolist(), packed.mask[0, 0]
    for prompt, answer, columns in zip(prompts, answers, packed.columns, strict=True):
        assert len(columns) == len(answer)
        for size, column in enumerate(columns):
            seen = mask[column].nonzero().squeeze(1).tolist()
            assert tuple(ids[c] for c in seen) == prompt + answer[:size]
            assert packed.positions[0, column] == len(prompt) + size - 1


@given(PROMPTS)
def test_buckets_hold_every_row_once(prompts: list[tuple[int, ...]]) -> None:
    tree, ends = prefix_tree(prompts, 2)
    groups = bucket_rows(prompts, {prompt: tree.blocks[end].path for prompt, end in ends.items()})
    assert sorted(row for group in groups for row in group) == list(range(len(prompts)))
    assert max(map(len, groups)) <= ROWS


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 700), st.sampled_from([1.0, 0.5, 2.0]))
def test_a_draw_is_the_inverse_of_the_distribution(seed: int, size: int, temperature: float) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(64, size) * 3
    uniform = torch.rand(64)
    chosen, values = choose(logits, temperature, uniform)
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    rows, slack = torch.arange(64), 1e-5
    assert bool((uniform <= cumulative[rows, chosen] + slack).all())
    below = torch.where(chosen > 0, cumulative[rows, chosen - 1], 0.0)
    assert bool((uniform >= below - slack).all())
    assert torch.allclose(values, torch.log_softmax(logits, dim=-1)[rows, chosen], atol=1e-4)


def test_the_ends_of_the_unit_interval_draw_tokens_that_can_occur() -> None:
    logits = torch.full((2, 600), -1e9)
    logits[:, [3, 599]] = 0.0
    chosen, _ = choose(logits, 1.0, torch.tensor([0.0, 1.0]))
    assert chosen.tolist() == [3, 599]
