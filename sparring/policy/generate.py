"""Sampling answers: the CPU loop for the architectures it knows, Hugging Face `generate` otherwise.

What the prompts of a batch begin with alike (system prompt, role prompt) is computed once; equal prompts are computed
once; finished rows leave the batch. Randomness is drawn up front, one row of uniforms a prompt, so that a row's
answer does not depend on when its neighbours finish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparring.policy.llama import Cache, FastLlama, supports
from sparring.policy.logprobs import common_prefix

log = logging.getLogger(__name__)

MAX_BATCH = 96
_COMPACT_SHARE = 0.75


@dataclass(frozen=True)
class Sampled:
    """Answers as token ids, with the end-of-turn token where it was reached, and each token's log-probability.

    `logprobs` are natural logarithms at temperature 1, whatever temperature was sampled at.
    """

    ids: list[list[int]]
    logprobs: list[list[float]]


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    eos: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch: int = MAX_BATCH,
    on_progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Samples one answer for each prompt. `temperature` 0 is greedy. The same seed gives the same answers.

    `on_progress` is called with the number of prompts answered after each batch.
    """
    uniforms = torch.rand(len(prompts), max_new_tokens, generator=torch.Generator().manual_seed(seed))
    sample = _sample_fast if supports(model) else _sample_hf
    if sample is _sample_hf:
        log.info("model type %s: answers are sampled by Hugging Face generate", model.config.model_type)
    ids: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            part = sample(model, [prompts[i] for i in rows], eos, max_new_tokens, temperature, uniforms[rows])
            for row, tokens, values in zip(rows, part.ids, part.logprobs, strict=True):
                ids[row], logprobs[row] = tokens, values
            if on_progress:
                on_progress(start + len(rows))
    return Sampled(ids, logprobs)


def _sample_fast(
    model: Any, prompts: list[Sequence[int]], eos: frozenset[int], steps: int, temperature: float, uniforms: Tensor
) -> Sampled:
    fast = FastLlama(model)
    logits, cache, positions = _prefill(fast, prompts, steps)
    rows = torch.arange(len(prompts))
    live = torch.ones(len(prompts), dtype=torch.bool)
    ends = torch.tensor(sorted(eos))
    tokens = torch.zeros(len(prompts), steps, dtype=torch.long)
    values = torch.zeros(len(prompts), steps)
    lengths = torch.full((len(prompts),), steps)
    for step in range(steps):
        chosen, value = _choose(logits, temperature, uniforms[rows, step])
        tokens[rows, step], values[rows, step] = chosen, value
        ended = torch.isin(chosen, ends) & live
        lengths[rows[ended]] = step + 1
        live &= ~ended
        if step + 1 == steps or not bool(live.any()):
            break
        if float(live.float().mean()) < _COMPACT_SHARE:
            keep = live.nonzero().squeeze(1)
            cache.select(keep)
            rows, chosen, positions, live = rows[keep], chosen[keep], positions[keep], live[keep]
        logits = fast.forward(chosen[:, None], torch.ones(len(rows), 1, dtype=torch.bool), positions[:, None], cache)
        positions = positions + 1
    sizes = lengths.tolist()
    return Sampled(
        [row[:n] for row, n in zip(tokens.tolist(), sizes, strict=True)],
        [row[:n] for row, n in zip(values.tolist(), sizes, strict=True)],
    )


def _prefill(fast: FastLlama, prompts: list[Sequence[int]], steps: int) -> tuple[Tensor, Cache, Tensor]:
    """Fills a cache with all prompts: the common beginning once, equal prompts once.

    Returns the last logits (B, vocabulary), the cache for B rows and each row's next rotary position (B,).
    """
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    index = {prompt: i for i, prompt in enumerate(distinct)}
    shared = common_prefix(distinct)
    longest = max(len(p) for p in distinct) - shared
    cache = fast.cache(1 if shared else len(distinct), shared + longest + steps)
    if shared:
        head = torch.tensor([distinct[0][:shared]])
        fast.forward(head, torch.ones_like(head, dtype=torch.bool), torch.arange(shared)[None], cache)
        cache.select(torch.zeros(len(distinct), dtype=torch.long))
    ids = torch.zeros(len(distinct), longest, dtype=torch.long)
    mask = torch.zeros(len(distinct), longest, dtype=torch.bool)
    for i, prompt in enumerate(distinct):
        rest = prompt[shared:]
        ids[i, longest - len(rest) :] = torch.tensor(rest)
        mask[i, longest - len(rest) :] = True
    positions = shared + (mask.cumsum(1) - 1).clamp(min=0)
    logits = fast.forward(ids, mask, positions, cache)
    expand = torch.tensor([index[tuple(p)] for p in prompts])
    if len(distinct) < len(prompts):
        cache.select(expand)
    return logits[expand], cache, torch.tensor([len(p) for p in prompts])


def _choose(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Next tokens (B,) by inverse transform sampling and their log-probabilities at temperature 1 (B,)."""
    logprobs = torch.log_softmax(logits, dim=-1)
    if temperature == 0:
        chosen = logits.argmax(dim=-1)
    else:
        scaled = logprobs if temperature == 1.0 else torch.log_softmax(logits / temperature, dim=-1)
        cumulative = scaled.exp().cumsum(dim=-1)
        target = uniform[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, target).squeeze(1).clamp(max=logits.shape[-1] - 1)
    return chosen, logprobs.gather(1, chosen[:, None]).squeeze(1)


def _sample_hf(
    model: Any, prompts: list[Sequence[int]], eos: frozenset[int], steps: int, temperature: float, uniforms: Tensor
) -> Sampled:
    longest = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[i, longest - len(prompt) :] = 1
    tokens: list[list[int]] = [[] for _ in prompts]
    values: list[list[float]] = [[] for _ in prompts]
    cache: Any = None
    step_ids, live = ids, [True] * len(prompts)
    for step in range(steps):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -step_ids.shape[1] :]
        out = model(step_ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        chosen, value = _choose(out.logits[:, -1].float(), temperature, uniforms[:, step])
        for row, (token, logprob) in enumerate(zip(chosen.tolist(), value.tolist(), strict=True)):
            if live[row]:
                tokens[row].append(token)
                values[row].append(logprob)
                live[row] = token not in eos
        if not any(live):
            break
        step_ids = chosen[:, None]
        mask = torch.cat([mask, torch.ones(len(prompts), 1, dtype=torch.long)], dim=1)
    return Sampled(tokens, values)
