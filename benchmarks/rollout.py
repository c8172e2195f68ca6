"""Sampling a batch of mixed prompt lengths with early stops, against Hugging Face: `python -m benchmarks rollout`.

Both sides get the same prompts (a chat header of 24 tokens and 16 to 96 of their own) and the same forced lengths
(4 to 28 tokens), float32, the same threads, T = 1. The peer is `generate` in one batch, with its
dynamic or its static cache, whichever was faster in a turn before. "groups" are four rows of each prompt, as GRPO and
the games sample; "distinct" has no prompt twice. The share of the roofline is the time that the necessary work would
take at this machine's measured rates (matrix product, memory read; both in this run) over the time it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._engine import (
    SEED,
    Prompts,
    compare,
    finish,
    hf_generate,
    left_padded,
    load,
    model_folder,
    parse,
    right_padded,
    seconds,
    take_turns,
)
from sparring.policy.fast import prompt_tokens
from sparring.policy.generate import generate
from sparring.policy.products import linear

BATCHES = (16, 32, 64)
GROUP = 4


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/rollout.json` unless `quick`."""
    model = load(model_folder(quick))
    rates = roofline()
    cells = [measure(model, rows, group, rates) for rows in BATCHES[: 2 if quick else 3] for group in (GROUP, 1)
             if group == GROUP or rows == 32]  # fmt: skip
    wide = [cell for cell in cells if cell["rows"] >= 32 and cell["group"] == GROUP]
    worst = min(wide, key=lambda cell: cell["ratio"])
    result = {
        "bench": "rollout",
        "peer": f"transformers generate, {worst['cache']} cache",
        **{key: worst[key] for key in ("ratio", "spread", "ratio_cpu", "n")},
        "checks": checks(model),
        "rates": rates,
        "cells": cells,
    }
    show(cells)
    return finish(result, quick=quick)


def workload(rows: int, group: int) -> tuple[list[list[int]], list[int]]:
    """Prompts and forced lengths."""
    prompts = Prompts(SEED + rows)
    asked = [prompts.user(16, 96) for _ in range(rows // group)]
    return [prompt for prompt in asked for _ in range(group)], prompts.lengths(rows, 4, 28)


def measure(model: Any, rows: int, group: int, rates: dict[str, float]) -> dict[str, Any]:
    """One batch size: seconds, tokens a second and shares of the roofline of both sides."""
    prompts, lengths = workload(rows, group)
    caches = {cache: seconds(partial(hf_generate, model, prompts, lengths, cache))[0] for cache in CACHES}
    cache = min(caches, key=lambda name: caches[name])
    times = take_turns(
        {"peer": lambda: hf_generate(model, prompts, lengths, cache), "ours": lambda: ours(model, prompts, lengths)}, 5
    )
    found = {"rows": rows, "group": group, "cache": cache, **compare(times["peer"], times["ours"])}
    least = floor(model, prompts, lengths, rates)
    for side in ("peer", "ours"):
        found[f"{side}_tokens_s"] = round(sum(lengths) / found[f"{side}_s"], 1)
        found[f"{side}_roofline"] = round(least / found[f"{side}_s"], 3)
    return found


CACHES = ("dynamic", "static")


def ours(model: Any, prompts: list[list[int]], lengths: list[int]) -> Any:
    """Our side."""
    return generate(model, prompts, eos=frozenset(), max_new_tokens=lengths, temperature=1.0, seed=SEED)


def checks(model: Any) -> dict[str, Any]:
    """Greedy tokens against `generate`, our log-probabilities against one padded forward pass."""
    prompts, lengths = workload(8, 2)
    greedy = generate(model, prompts, eos=frozenset(), max_new_tokens=lengths, temperature=0.0, seed=0)
    sampled = ours(model, prompts, lengths)
    ids, mask = left_padded(prompts)
    answers, answered = right_padded(sampled.ids)
    seen = torch.cat([mask, answered], dim=1)
    with torch.inference_mode():
        logits = model(
            torch.cat([ids, answers], dim=1), attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0)
        ).logits[:, ids.shape[1] - 1 : -1]
    theirs = torch.log_softmax(logits, dim=-1).gather(2, answers[..., None]).squeeze(2)
    gaps = (theirs - right_padded(sampled.logprobs)[0]) * answered
    return {
        "max_abs_logp_diff": float(gaps.abs().max()),
        "greedy_tokens_equal": greedy.ids == hf_generate(model, prompts, lengths, "dynamic", greedy=True),
    }


def roofline() -> dict[str, float]:
    """This machine's rates now: matrix product (the faster of torch's and oneDNN's) in GFLOP/s, memory read in GB/s;
    the best of five."""
    a, b, wide = torch.randn(1536, 1536), torch.randn(1536, 1536), torch.randn(64 * 2**20)
    product = min(seconds(partial(multiply, a, b))[0] for _ in range(5) for multiply in (torch.mm, linear))
    read = min(seconds(wide.sum)[0] for _ in range(5))
    return {"gflops": round(2 * 1536**3 / product / 1e9, 1), "gb_s": round(wide.numel() * 4 / read / 1e9, 1)}


def floor(model: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int], rates: dict[str, float]) -> float:
    """Seconds that the necessary products and reads take at these rates: shared beginnings once, live rows only."""
    head = model.lm_head.weight.numel()
    body = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    config = model.config
    a_token = 8 * config.num_hidden_layers * config.num_key_value_heads * model.model.layers[0].self_attn.head_dim
    peak, read = rates["gflops"] * 1e9, rates["gb_s"] * 1e9
    total: float = (2 * body * prompt_tokens([tuple(p) for p in prompts]) + 2 * head * len(prompts)) / peak
    for step in range(1, max(lengths)):
        live = [len(p) + step for p, n in zip(prompts, lengths, strict=True) if n > step]
        total += max(2 * (body + head) * len(live) / peak, (4 * (body + head) + a_token * sum(live)) / read)
    return total


def show(cells: Sequence[dict[str, Any]]) -> None:
    """The table for people."""
    table = Table("rows", "prompts", "peer s", "ours s", "ratio", "quartiles", "by CPU time", "tokens/s", "of roofline")
    for cell in cells:
        name = f"groups of {cell['group']}" if cell["group"] > 1 else "distinct"
        pairs = [f"{cell[f'peer_{key}']} → {cell[f'ours_{key}']}" for key in ("tokens_s", "roofline")]
        table.add_row(str(cell["rows"]), name, *(f"{cell[key]:.2f}" for key in ("peer_s", "ours_s")),
                      f"{cell['ratio']}×", str(cell["spread"]), f"{cell['ratio_cpu']}×", *pairs)  # fmt: skip
    Console(width=130).print(table)


if __name__ == "__main__":
    main(parse(__doc__, "a model of three layers, no file").quick)
