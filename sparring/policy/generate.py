"""Sampling answers: the fast loop for the architectures it knows, the model's own forward pass otherwise.

Randomness is drawn up front, one row of uniforms a prompt, so that a row's
answer does not depend on when its neighbours finish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.policy.architectures import supports, unwrap
from sparring.policy.fast import FastModel
from sparring.policy.products import FastProducts

log = logging.getLogger(__name__)

MAX_BATCH = 96
_BLOCK = 256
_told: set[str] = set()


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
    max_new_tokens: int | Sequence[int],
    temperature: float,
    seed: int,
    skip: int = 0,
    batch: int = MAX_BATCH,
    on_progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Samples one answer for each prompt. `temperature` 0 is greedy. The same seed gives the same answers.

    `max_new_tokens`: one number for all prompts, or one for each.

    `skip`: how many prompts of the same draw come before these, for who samples only a part of them.
    `on_progress` is called with the number of prompts answered after each batch.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    most = max_new_tokens if isinstance(max_new_tokens, int) else max(limits, default=0)
    uniforms = torch.rand(skip + len(prompts), most, generator=torch.Generator().manual_seed(seed))[skip:]
    ids: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with _sampling(model) as sample:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            part = sample([prompts[i] for i in rows], [limits[i] for i in rows], eos, temperature, uniforms[rows])
            for row, tokens, values in zip(rows, part.ids, part.logprobs, strict=True):
                ids[row], logprobs[row] = tokens, values
            if on_progress:
                on_progress(start + len(rows))
    return Sampled(ids, logprobs)


@contextmanager
def _sampling(model: Any) -> Iterator[Callable[..., Sampled]]:
    """The loop that samples from this model, without dropout and without gradients."""
    with torch.inference_mode():
        if supports(model):
            yield partial(_sample_fast, FastModel(model))
            return
        _say_once(unwrap(model).config.model_type)
        training = model.training
        model.eval()
        try:
            with FastProducts():
                yield partial(_sample_hf, model)
        finally:
            model.train(training)


def _say_once(kind: str) -> None:
    if kind not in _told:
        _told.add(kind)
        log.info("model type %s (as it is configured): answers are sampled through its own forward pass", kind)


def _sample_fast(
    fast: FastModel,
    prompts: list[Sequence[int]],
    limits: list[int],
    eos: frozenset[int],
    temperature: float,
    uniforms: Tensor,
) -> Sampled:
    steps, device, most = max(limits), fast.device, torch.tensor(limits)
    decoding = fast.prefill(prompts, steps)
    ends = torch.tensor(sorted(eos), device=device)
    tokens = torch.zeros(len(prompts), steps, dtype=torch.long)
    values = torch.zeros(len(prompts), steps)
    lengths = torch.full((len(prompts),), steps)
    for step in range(steps):
        rows = decoding.rows
        chosen, value = choose(decoding.logits, temperature, uniforms[rows, step].to(device))
        tokens[rows, step], values[rows, step] = chosen.cpu(), value.cpu()
        ended = torch.isin(chosen, ends) | (most[rows] <= step + 1).to(device)
        lengths[rows[ended.cpu()]] = step + 1
        if step + 1 == steps or bool(ended.all()):
            break
        if bool(ended.any()):
            decoding.drop(~ended)
        decoding.step(chosen[~ended])
    sizes = lengths.tolist()
    return Sampled(
        [row[:n] for row, n in zip(tokens.tolist(), sizes, strict=True)],
        [row[:n] for row, n in zip(values.tolist(), sizes, strict=True)],
    )


def choose(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Next tokens (B,) by inverse transform sampling and their log-probabilities at temperature 1 (B,)."""
    if temperature == 0:
        chosen, total = logits.argmax(dim=-1), torch.logsumexp(logits, dim=-1)
        return chosen, logits.gather(1, chosen[:, None]).squeeze(1) - total
    top = logits.amax(dim=-1, keepdim=True)
    weights = ((logits - top) / temperature).exp_()
    chosen, total = _draw(weights, uniform)
    total = top.squeeze(1) + total.log() if temperature == 1.0 else torch.logsumexp(logits, dim=-1)
    return chosen, logits.gather(1, chosen[:, None]).squeeze(1) - total


def _draw(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (B,) drawn in proportion to weights (B, V), and the weights' sums (B,).

    First the block of `_BLOCK` neighbours that the draw falls into, then its place there: a cumulative sum over a whole
    vocabulary costs many times as much. A weight of zero is never drawn.
    """
    blocks = F.pad(weights, (0, -weights.shape[1] % _BLOCK)).view(len(weights), -1, _BLOCK)
    sums = blocks.sum(-1).cumsum(-1)
    target = uniform[:, None] * sums[:, -1:]
    number = _first_above(sums, target)
    before = torch.where(number > 0, sums.gather(1, (number - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(weights), device=weights.device), number.squeeze(1)].cumsum(-1)
    return (number * _BLOCK + _first_above(inside, target - before)).squeeze(1), sums[:, -1]


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """Where a cumulative sum (B, N) first exceeds `target` (B, 1); rounding may have left the target at its end."""
    below_end = torch.minimum(target, torch.nextafter(cumulative[:, -1:], torch.zeros_like(target)))
    return torch.searchsorted(cumulative, below_end, right=True).clamp(max=cumulative.shape[1] - 1)


def _sample_hf(
    model: Any,
    prompts: list[Sequence[int]],
    limits: list[int],
    eos: frozenset[int],
    temperature: float,
    uniforms: Tensor,
) -> Sampled:
    steps, device = max(limits), next(model.parameters()).device
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
        inputs = {"attention_mask": mask.to(device), "position_ids": positions.to(device), "past_key_values": cache}
        out = model(step_ids.to(device), **inputs, use_cache=True)
        cache = out.past_key_values
        chosen, value = choose(out.logits[:, -1].float(), temperature, uniforms[:, step].to(device))
        for row, (token, logprob) in enumerate(zip(chosen.tolist(), value.tolist(), strict=True)):
            if live[row]:
                tokens[row].append(token)
                values[row].append(logprob)
                live[row] = token not in eos and step + 1 < limits[row]
        if not any(live):
            break
        step_ids = chosen[:, None].cpu()
        mask = torch.cat([mask, torch.ones(len(prompts), 1, dtype=torch.long)], dim=1)
    return Sampled(tokens, values)
