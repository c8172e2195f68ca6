"""Answers of one model to all suites: sampled texts for harmful and benign prompts, scores for capability.

Capability is scored, not sampled: multiple choice by the mean log-probability of each choice behind
"Question: …\\nAnswer:", held-out helpful answers by their per-token probability exp(−mean NLL) behind the chat header.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from sparring.config.run import EvaluateConfig
from sparring.policy.generate import generate
from sparring.policy.load import Policy
from sparring.policy.logprobs import pack, packed_logprobs

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("suite", pa.string(), nullable=False),
        pa.field("slice", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("behavior", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("answer_index", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("score", pa.float64()),
    ],
    metadata={"sparring.schema": "1"},
)
"""One row a prompt: `answer` is empty and `score` set for capability, the other way round elsewhere."""

OnProgress = Callable[[int, int], None]
_SCORED_BATCH = 16


def answer_suites(
    policy: Policy, digest: str, suites: pa.Table, config: EvaluateConfig, seed: int, on_progress: OnProgress
) -> pa.Table:
    """Answers every row of the suites table. `on_progress(done, total)` counts prompts."""
    rows = suites.to_pylist()
    sampled = [r for r in rows if r["kind"] != "capability"]
    scored = [r for r in rows if r["kind"] == "capability"]
    answers = _sample(policy, [r["prompt"] for r in sampled], config, seed, lambda done: on_progress(done, len(rows)))
    with torch.inference_mode():
        scores = [*_scores(policy, scored, lambda done: on_progress(len(sampled) + done, len(rows)))]
    filled = [_row(digest, r, text, size, None) for r, (text, size) in zip(sampled, answers, strict=True)]
    filled += [_row(digest, r, "", 0, score) for r, score in zip(scored, scores, strict=True)]
    return pa.Table.from_pylist(filled, schema=SCHEMA)


def _sample(
    policy: Policy, prompts: list[str], config: EvaluateConfig, seed: int, on_progress: Callable[[int], None]
) -> list[tuple[str, int]]:
    if not prompts:
        return []
    found = generate(
        policy.model,
        policy.chat.encode(prompts, config.max_prompt_tokens),
        eos=policy.chat.eos,
        max_new_tokens=config.answer_tokens,
        temperature=config.temperature,
        seed=seed,
        batch=config.batch,
        on_progress=on_progress,
    )
    return list(zip(policy.chat.decode(found.ids), map(len, found.ids), strict=True))


def _scores(policy: Policy, rows: list[dict[str, Any]], on_progress: Callable[[int], None]) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(rows), _SCORED_BATCH):
        part = rows[start : start + _SCORED_BATCH]
        scores += [choice_score(policy, row) if row["choices"] else nll_score(policy, row) for row in part]
        on_progress(start + len(part))
    return scores


def choice_score(policy: Policy, row: dict[str, Any]) -> float:
    """1.0 when the right choice has the highest mean log-probability, else 0.0; NaN in, 0.0 out."""
    prompt = policy.tokenizer(f"Question: {row['prompt']}\nAnswer:", add_special_tokens=False)["input_ids"]
    choices = [policy.tokenizer(f" {c}", add_special_tokens=False)["input_ids"] for c in row["choices"]]
    means = mean_logprobs(policy.model, prompt, choices)
    best = max(range(len(means)), key=lambda i: means[i] if math.isfinite(means[i]) else -math.inf)
    return float(best == row["answer"] and math.isfinite(means[best]))


def nll_score(policy: Policy, row: dict[str, Any]) -> float:
    """exp(−mean NLL) of the held-out good answer, in [0, 1]."""
    (prompt,) = policy.chat.encode([row["prompt"]], 10_000)
    (answer,) = policy.chat.encode_answers([row["target"]], 10_000)
    (mean,) = mean_logprobs(policy.model, prompt, [answer])
    return math.exp(min(mean, 0.0)) if math.isfinite(mean) else 0.0


def mean_logprobs(model: Any, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-probability (nats a token) of each completion behind one prompt, which is computed once."""
    width = max(map(len, completions))
    ids = torch.tensor([[*c, *[0] * (width - len(c))] for c in completions])
    mask = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in completions])
    prompts = torch.tensor([list(prompt)] * len(completions))
    packed = pack(prompts, torch.ones_like(prompts), ids, mask)
    logprobs, _ = packed_logprobs(model, packed, ids, entropy=False)
    means: Tensor = (logprobs * mask).sum(1) / mask.sum(1)
    return [float(m) for m in means]


def _row(digest: str, row: dict[str, Any], answer: str, tokens: int, score: float | None) -> dict[str, Any]:
    kept = {
        name: row[name] for name in ("suite", "slice", "kind", "prompt_id", "behavior", "category", "label", "prompt")
    }
    return {"model": digest, **kept, "answer": answer, "answer_index": 0, "tokens": tokens, "score": score}
