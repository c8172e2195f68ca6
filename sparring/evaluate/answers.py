"""Answers of one model to all suites: sampled texts for harmful and benign prompts, scores for capability.

Capability is scored, not sampled (`sparring.evaluate.capability`): the same weights always get the same scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import torch

from sparring.config.run import EvaluateConfig
from sparring.data.suites import read_suites
from sparring.evaluate.capability import number_answers, number_score, score
from sparring.policy.generate import generate
from sparring.policy.load import Policy

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
        pa.field("broken", pa.bool_()),
    ],
    metadata={"sparring.schema": "2"},
)
"""One row a prompt: `score` is set for capability and nothing else; `answer` is empty for slices choice and nll.

`broken` (version 2): the model thinks first and broke the format, so that there is no answer; null without thoughts.
"""

OnProgress = Callable[[int, int], None]
_SCORED_BATCH = 16


def answer_suites(
    policy: Policy, digest: str, suites: pa.Table, config: EvaluateConfig, seed: int, on_progress: OnProgress
) -> pa.Table:
    """Answers every row of the suites table. `on_progress(done, total)` counts prompts. Raises CorruptError."""
    rows = read_suites(suites).to_pylist()
    total = len(rows)
    sampled = [r for r in rows if r["kind"] != "capability"]
    worked = [r for r in rows if r["kind"] == "capability" and r["slice"] == "number"]
    scored = [r for r in rows if r["kind"] == "capability" and r["slice"] != "number"]
    answers = _sample(policy, [r["prompt"] for r in sampled], config, seed, lambda done: on_progress(done, total))
    numbers = _numbers(policy, worked, config, lambda done: on_progress(len(sampled) + done, total))
    with torch.inference_mode():
        scores = _scores(policy, scored, lambda done: on_progress(total - len(scored) + done, total))
    filled = [
        {**_row(digest, r, text or "", size, None), "broken": text is None if policy.chat.thinks else None}
        for r, (text, size) in zip(sampled, answers, strict=True)
    ]
    filled += [_row(digest, r, text, size, value) for r, (text, size, value) in zip(worked, numbers, strict=True)]
    filled += [_row(digest, r, "", 0, value) for r, value in zip(scored, scores, strict=True)]
    return pa.Table.from_pylist(filled, schema=SCHEMA)


def _sample(
    policy: Policy, prompts: list[str], config: EvaluateConfig, seed: int, on_progress: Callable[[int], None]
) -> list[tuple[str | None, int]]:
    """Text and tokens of each answer; the text is None where a model that thinks broke the format."""
    if not prompts:
        return []
    found = generate(
        policy.model,
        policy.chat.encode(prompts, config.max_prompt_tokens + policy.chat.overhead),
        eos=policy.chat.eos,
        max_new_tokens=config.answer_tokens + (config.thought_tokens if policy.chat.thinks else 0),
        temperature=config.temperature,
        seed=seed,
        batch=config.batch,
        on_progress=on_progress,
    )
    return [(text, len(ids)) for (_, text), ids in zip(policy.chat.read(found.ids), found.ids, strict=True)]


def _numbers(
    policy: Policy, rows: list[dict[str, Any]], config: EvaluateConfig, on_progress: Callable[[int], None]
) -> list[tuple[str, int, float]]:
    """Text, tokens and score of each worked answer."""
    if not rows:
        return []
    tokens = config.number_tokens + (config.thought_tokens if policy.chat.thinks else 0)
    told = number_answers(policy, rows, tokens=tokens, batch=config.batch, on_progress=on_progress)
    return [(text, size, number_score(row, text)) for row, (text, size) in zip(rows, told, strict=True)]


def _scores(policy: Policy, rows: list[dict[str, Any]], on_progress: Callable[[int], None]) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(rows), _SCORED_BATCH):
        part = rows[start : start + _SCORED_BATCH]
        scores += [score(policy, row) for row in part]
        on_progress(start + len(part))
    return scores


def _row(digest: str, row: dict[str, Any], answer: str, tokens: int, score: float | None) -> dict[str, Any]:
    kept = {
        name: row[name] for name in ("suite", "slice", "kind", "prompt_id", "behavior", "category", "label", "prompt")
    }
    return {"model": digest, **kept, "answer": answer, "answer_index": 0, "tokens": tokens, "score": score}
