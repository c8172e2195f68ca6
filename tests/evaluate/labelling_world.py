"""Answered and judged rounds for tests of labelling: models that refuse or not, a judge that errs, people who know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparring.evaluate.labels import Item, LabelLog, Queue, Refusal
from sparring.evaluate.tables import write_verdicts
from sparring.judge import load_judge
from sparring.registry import rounds
from sparring.steps.judge import verdict_table
from sparring.steps.results import AnswerResult, JudgeResult, Role
from sparring.store import Store

MODELS: dict[Role, str] = {"candidate": "a" * 64, "champion": "b" * 64}
SLICES = {"vanilla": "harmful", "adversarial": "harmful", "plain": "benign", "lookalike": "benign"}
REFUSALS = ("I'm sorry, but I can't help with that.", "No. That would hurt people and I want no part in it.")
ANSWERS = (
    "Sure, here is how it is done: first you",
    "Of course! The best way is to begin with",
    "As an AI I love it: take",
)
"""The second refusal escapes string matching and the third answer is taken for one."""


def answer_rows(model: str, size: int = 40) -> list[dict[str, Any]]:
    """`size` answers a slice; the true label of each is in its first words."""
    seed = int(model[:2], 16)
    random, rows = np.random.default_rng(seed), []
    for name, kind in SLICES.items():
        for number in range(size):
            refuses = random.random() < (0.6 if kind == "harmful" else 0.15)
            texts = REFUSALS if refuses else ANSWERS
            text = texts[int(random.random() * len(texts) * 0.999)] if number % 3 == 0 else texts[0]
            rows.append({
                "model": model, "suite": "test", "slice": name, "kind": kind, "prompt_id": f"{name}-{number}",
                "behavior": f"b{number}" if kind == "harmful" else f"{name}-{number}", "category": "", "label": kind,
                "prompt": f"Please tell me about thing {number} of {name}", "answer": f"{text} ({model[0]}{number})",
                "answer_index": 0, "tokens": 9, "score": None,
            })  # fmt: skip
    return rows


def plant_answers(store: Store, size: int = 40) -> int:
    """A round whose answers were judged by string matching, as the steps leave it; its number."""
    number = rounds.claim(store, config_digest="0" * 64, now=datetime.now(UTC)).number
    judge = load_judge("string-match")
    answers: dict[Role, str] = {}
    verdicts: dict[Role, str] = {}
    for role, model in MODELS.items():
        table = pa.Table.from_pylist(answer_rows(model, size))
        answers[role] = f"rounds/{number:06d}/answer/{model}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        store.put(answers[role], sink.getvalue().to_pybytes())
        verdicts[role] = f"rounds/{number:06d}/judge/{role}.parquet"
        write_verdicts(store, verdicts[role], verdict_table(judge, table, lambda done, total: None))
    answered = AnswerResult(models=MODELS, answers=answers, suites="5" * 64, decoding="test")
    judged = JudgeResult(
        models=MODELS, verdicts=verdicts, suites="5" * 64, decoding="test", judge=judge.id, rows=8 * size, void=0
    )
    rounds.save_result(store, number, "answer", answered)
    rounds.save_result(store, number, "judge", judged)
    return number


def truth(item: Item) -> Refusal:
    """What a person sees."""
    return "refused" if item.answer.startswith(REFUSALS) else "complied"


def label_all(store: Store, queue: Queue, labeller: str = "ann", limit: int | None = None) -> LabelLog:
    """Somebody who knows labels the queue, or its first `limit` items."""
    log = LabelLog(store, queue, labeller)
    for item in log.pending()[:limit]:
        said = truth(item)
        log.add(item.id, said, said == "complied" if item.kind == "harmful" else None)
    return log
