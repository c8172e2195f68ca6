"""Queues of a round's answers and calibrations from their labels: no step of a round, two commands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.config.run import JudgeConfig
from sparring.errors import UsageError
from sparring.evaluate.calibrate import Compared, Labelled, compare, measure
from sparring.evaluate.labelled import read_labelled, without_repeats
from sparring.evaluate.labels import (
    Item,
    LabelLog,
    Queue,
    agreement,
    draw_queue,
    labelled_rows,
    load_queue,
    queues,
    save_queue,
)
from sparring.evaluate.tables import KEY, read_verdicts
from sparring.judge import load_gate_judge, load_judge
from sparring.judge.calibration import Calibration
from sparring.judge.protocol import Judge
from sparring.registry import rounds
from sparring.steps.results import AnswerResult, JudgeResult
from sparring.store.base import Store
from sparring.store.canonical import sha256_file


def open_judge(config: JudgeConfig, name: str | None = None, store: Store | None = None) -> Judge:
    """The judge of that name, else the gate's (a panel where it has several): the one place that makes judges here.

    `store` keeps an endpoint's verdicts. Raises ConfigError.
    """
    return load_judge(name, config, store) if name else load_gate_judge(config, store)


def calibrate_files(judge: Judge, paths: Sequence[Path], model: str | None = None) -> Calibration:
    """A calibration from labelled files. Raises DataError."""
    rows, repeated = without_repeats([row for path in paths for row in read_labelled(path, model)])
    files = {path.name: sha256_file(path) for path in paths}
    return _calibration(judge.id, compare(judge, rows), origin="file", files=files, repeated=repeated)


def calibrate_labels(judge: Judge, store: Store, queue: Queue) -> Calibration:
    """A calibration from what people said of a queue; the queue's own judge is not asked again.

    Raises UsageError while labels are missing.
    """
    labels = LabelLog(store, queue, "nobody").labels()
    pairs, strata = labelled_rows(queue, labels)
    rows = [row for _, row in pairs]
    found = [_stored(item, row) for item, row in pairs] if judge.id == queue.judge else compare(judge, rows)
    agreed = agreement(labels)
    return _calibration(
        judge.id,
        found,
        origin="labelling",
        files={queue.id: queue.digest},
        round=queue.round,
        labellers=sorted({one.labeller for said in labels.values() for one in said}),
        agreement=agreed[0] if agreed else None,
        kappa=agreed[1] if agreed else None,
        strata=strata,
    )


def open_queue(store: Store, number: int | None, sample: int) -> Queue:
    """The queue of a round's answers (None: of the last round that was judged), drawn now if it is not there yet.

    Raises UsageError for a round without answers or verdicts.
    """
    found = _judged_round(store, number)
    answered = rounds.load_result(store, found, "answer", AnswerResult)
    judged = rounds.load_result(store, found, "judge", JudgeResult)
    if answered is None or judged is None:
        raise UsageError(f"round {found} has no judged answers", hint="label a round whose judge step is done")
    items: dict[tuple[Any, ...], Item] = {}
    for role, key in answered.answers.items():
        answers = pq.read_table(pa.BufferReader(store.get(key)))
        verdicts = read_verdicts(store, judged.verdicts[role])[0]
        items.update(_items(answers.to_pylist(), verdicts.to_pylist()))  # roles that share a model share its answers
    if not items:
        raise UsageError(f"round {found} has no answers to harmful or benign prompts")
    return save_queue(store, draw_queue(list(items.values()), round=found, judge=judged.judge, sample=sample))


def last_queue(store: Store, name: str | None = None) -> Queue:
    """The queue of that name, or the line's latest. Raises UsageError when there is none."""
    known = queues(store)
    if not known or (name is not None and name not in known):
        what = f"queue {name!r} is not there" if name else "nothing was labelled yet"
        raise UsageError(what, hint="name a labelled file, or begin with `sparring judge label`")
    return load_queue(store, name or known[-1])


def _judged_round(store: Store, number: int | None) -> int:
    if number is not None:
        return number
    for found in range(rounds.last_round(store), 0, -1):
        if rounds.load_result(store, found, "judge", JudgeResult) is not None:
            return found
    raise UsageError(f"no round of {store.url} was judged yet", hint="run a round first")


def _items(answers: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], Item]:
    """Answers that a judge reads, by model and key, beside their verdicts."""
    said = {tuple(row[name] for name in KEY): row for row in verdicts}
    found = {}
    for row in answers:
        key = tuple(row[name] for name in KEY)
        if row["kind"] in ("harmful", "benign") and key in said:
            kept = {name: row[name] for name in Item.model_fields if name in row}
            verdict = {name: said[key][name] for name in ("refused", "harmful", "status")}
            found[(row["model"], *key)] = Item.model_validate({"id": "-", **kept, **verdict})
    return found


def _stored(item: Item, row: Labelled) -> Compared:
    if item.status != "ok":
        return Compared(row, None, None)
    return Compared(row, item.refused, item.harmful)


def _calibration(judge: str, rows: Sequence[Compared], **known: Any) -> Calibration:
    return Calibration(
        judge=judge,
        time=datetime.now(UTC),
        models=sorted({row.truth.model for row in rows}),
        answers=len(rows),
        cells=measure(rows),
        **known,
    )
