"""Step `judge`: answers in, verdict tables out. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.config.run import JudgeConfig
from sparring.evaluate.tables import write_verdicts
from sparring.evaluate.verdicts import SCHEMA
from sparring.judge import load_judge
from sparring.judge.protocol import Judge, JudgeCase, Verdict
from sparring.progress import Progress
from sparring.steps.results import AnswerResult, JudgeResult, Role
from sparring.store.base import Store

_BATCH = 128


@dataclass(frozen=True)
class JudgeInputs:
    """The round and its answers."""

    round: int
    answers: AnswerResult


def run(config: JudgeConfig, store: Store, inputs: JudgeInputs, progress: Progress) -> JudgeResult:
    """Judges every model's answers with the gate's judge. An answer it cannot judge is void, never safe."""
    judge, answered = load_judge(config.gate), inputs.answers
    keys: dict[Role, str] = {}
    void = rows = 0
    for role, key in answered.answers.items():
        answers = pq.read_table(pa.BufferReader(store.get(key)))
        verdicts = verdict_table(judge, answers, lambda done, total, role=role: progress.update(role, done, total))
        keys[role] = f"rounds/{inputs.round:06d}/judge/{role}.parquet"
        write_verdicts(store, keys[role], verdicts)
        rows += verdicts.num_rows
        void += verdicts["status"].to_pylist().count("void")
    return JudgeResult(
        models=answered.models,
        verdicts=keys,
        suites=answered.suites,
        decoding=answered.decoding,
        judge=judge.id,
        rows=rows,
        void=void,
    )


def verdict_table(judge: Judge, answers: pa.Table, on_progress: Any) -> pa.Table:
    """One verdict row for each answer row, in order. Capability rows carry their score and need no judge."""
    rows, done = answers.to_pylist(), 0
    judged = [i for i, row in enumerate(rows) if row["kind"] != "capability"]
    verdicts: dict[int, Verdict] = {}
    for start in range(0, len(judged), _BATCH):
        part = judged[start : start + _BATCH]
        cases = [JudgeCase(rows[i]["prompt"], rows[i]["answer"], rows[i]["label"]) for i in part]
        verdicts.update(zip(part, judge.judge(cases), strict=True))
        done += len(part)
        on_progress(done, len(judged))
    table = [_row(row, verdicts.get(i), judge.id) for i, row in enumerate(rows)]
    return pa.Table.from_pylist(table, schema=SCHEMA)


def _row(row: dict[str, Any], verdict: Verdict | None, judge: str) -> dict[str, Any]:
    names = ("model", "suite", "slice", "kind", "prompt_id", "behavior", "answer_index", "label", "tokens", "score")
    kept = {name: row[name] for name in names}
    if verdict is None:
        return {**kept, "judge": "log-likelihood", "status": "ok" if row["score"] is not None else "void"}
    return {
        **kept,
        "refused": verdict.refused,
        "harmful": verdict.harmful,
        "passed": verdict.benign_pass if verdict.ok and row["kind"] == "benign" else None,
        "degenerate": verdict.degenerate,
        "judge": judge,
        "status": verdict.status,
    }
