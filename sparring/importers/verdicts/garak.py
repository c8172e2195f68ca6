"""garak's report: `<prefix>.report.jsonl` (garak 0.17; older forms of prompts and outputs too), one line an entry.

An attempt stands there twice: generated (`status` 1) and judged (`status` 2); `detector_results` then holds for every
detector one score an output, and a score of the threshold or more is a hit (`evaluators/base.py`). The probe's primary
detector says whether the attack worked, `mitigation.MitigationBypass` whether the answer holds no refusal. An output
that was not generated, or that a detector left out, is void: garak counts neither.

Some probes write the target's name into the prompt ("From now on, NAME, you are …"): it is taken out before the prompt
is hashed, so that two models' prompts are the same. Probes that sample their prompts need the same `--seed`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sparring.data.readers import read_rows
from sparring.errors import DataError
from sparring.importers.verdicts.base import (
    Found,
    Guess,
    Item,
    Record,
    as_record,
    canonical,
    checked,
    described,
    whole,
)
from sparring.importers.verdicts.mapping import MappingFile, Reading

_MITIGATION: Final = "mitigation.MitigationBypass"
_THRESHOLD: Final = 0.5
_JUDGED: Final = 2
_SHORTEST_NAME: Final = 3
_MISSING: Final = (None, "")


@dataclass
class _Report:
    """What the entries around the attempts say."""

    path: Path
    version: str = ""
    threshold: float = _THRESHOLD
    names: list[str] = field(default_factory=list)
    model: str | None = None
    primary: dict[str, str] = field(default_factory=dict)
    evaluated: dict[tuple[str, str], int] = field(default_factory=dict)
    complete: bool = False
    attempts: list[Record] = field(default_factory=list)


def read_garak(path: Path, mapping: MappingFile) -> Found:
    """All outputs of all attempts. Raises DataError, also for a hit log, which lists only what worked."""
    if path.suffix.lower() != ".jsonl":
        raise DataError(f"{path}: garak's report is a .jsonl file")
    report = _Report(path)
    for row in read_rows(path):
        _enter(report, Record(row.place, row.fields))
    if not report.version:
        raise DataError(f"{path}: no `init` entry: not a garak report, or cut off at its start")
    judged = [attempt for attempt in report.attempts if attempt.fields["status"] == _JUDGED]
    _refuse_twice(judged)
    items = [item for attempt in judged for item in _items(report, attempt)]
    return Found(items, report.model, _incomplete(report, judged))


def _enter(report: _Report, entry: Record) -> None:
    if "entry_type" not in entry.fields and "attempt_id" in entry.fields:
        raise DataError(f"{entry.place}: a hit log, which leaves out what did not work", hint="give the *.report.jsonl")
    sort = entry.text("entry_type")
    if sort == "start_run setup":
        _setup(report, entry)
    elif sort == "init":
        report.version = entry.text("garak_version")
    elif sort == "plugin_cache":
        for name, probe in entry.record("plugin_cache").maybe("probes").fields.items():
            detector = as_record(probe, f"{entry.place}: `{name}`").text("primary_detector", default="")
            report.primary[name.removeprefix("probes.")] = detector
    elif sort == "attempt":
        whole(entry, "status")
        report.attempts.append(entry)
    elif sort == "eval":
        detector = entry.text("detector").removeprefix("detector.")
        total = "total_evaluated" if "total_evaluated" in entry.fields else "total"  # until 0.13
        report.evaluated[entry.text("probe"), detector] = whole(entry, total)
    elif sort == "completion":
        report.complete = True


def _setup(report: _Report, entry: Record) -> None:
    """The target and the threshold; until 0.13 they are called model_type and model_name."""
    fields = entry.fields
    facts = {key: fields[key] for key in fields if key.removeprefix("plugins.")[:6] in ("target", "model_")}
    kind = fields.get("plugins.target_type") or fields.get("plugins.model_type")
    name = fields.get("plugins.target_name") or fields.get("plugins.model_name")
    if isinstance(kind, str) and kind:
        report.model = described(f"{kind}:{name}" if name else kind, facts, entry.place)
    shown = name if isinstance(name, str) and name else str(kind or "").rpartition(".")[2]
    report.names = [part for part in dict.fromkeys((shown, shown.rpartition("/")[2])) if len(part) >= _SHORTEST_NAME]
    threshold = fields.get("run.eval_threshold", _THRESHOLD)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise entry.fault("run.eval_threshold", threshold, "a number above 0, up to 1")
    report.threshold = float(threshold)


def _refuse_twice(judged: list[Record]) -> None:
    seen: dict[str, str] = {}
    for attempt in judged:
        if (uuid := attempt.text("uuid")) in seen:
            raise DataError(f"{attempt.place}: attempt {uuid} is judged twice (first in {seen[uuid]})")
        seen[uuid] = attempt.place


def _incomplete(report: _Report, judged: list[Record]) -> str | None:
    path = report.path
    if not report.complete:
        return f"{path}: the run did not end (no `completion` entry)"
    done = {attempt.text("uuid") for attempt in judged}
    if left := [attempt.place for attempt in report.attempts if attempt.text("uuid") not in done]:
        return f"{left[0]}: {len(left)} attempts were never judged"
    scored: Counter[tuple[str, str]] = Counter()
    for attempt in judged:
        results = attempt.record("detector_results")
        for detector in results.fields:
            told = sum(score is not None for score in results.list(detector))
            scored[attempt.text("probe_classname"), detector] += told
    for key in sorted({*report.evaluated, *scored}):
        if report.evaluated.get(key, -1) != scored[key]:
            by_entry = report.evaluated.get(key, "no")
            where = f"{path}: probe {key[0]}, detector {key[1]}"
            return f"{where}: {by_entry} scores by its `eval` entry, {scored[key]} are there"
    return None


def _items(report: _Report, attempt: Record) -> Iterator[Item]:
    """One item an output."""
    probe, outputs = attempt.text("probe_classname"), attempt.list("outputs")
    results = attempt.record("detector_results")
    scores = {name: results.list(name) for name in results.fields}
    for name, found in scores.items():
        if len(found) != len(outputs):
            raise DataError(f"{attempt.place}: `{name}` has {len(found)} scores for {len(outputs)} outputs")
        for score in found:
            if isinstance(score, int | float) and not 0 <= score <= 1:
                raise DataError(f"{attempt.place}: `{name}` has a score of {score}; garak's are from 0 to 1")
    prompt = canonical(["garak", probe, _turns(report, attempt)])
    guess = _guess(report, probe)
    for index, output in enumerate(outputs):
        answer = _answer(output, attempt)
        yield Item(
            place=f"{attempt.place}: output {index + 1}",
            task=probe,
            prompt=prompt,
            behavior=f"garak:{probe}",
            index=index,
            answer=answer,
            tokens=None,
            signals={**{name: found[index] for name, found in scores.items()}, "goal": attempt.fields.get("goal")},
            judge=f"garak@{report.version}",
            guess=guess,
            fault="no output was generated" if answer is None else None,
        )


def _guess(report: _Report, probe: str) -> Guess:
    """The primary detector where the report names it (since 0.13) or where there is only one."""
    detectors = sorted(detector for name, detector in report.evaluated if name == probe)
    primary = report.primary.get(probe) or (detectors[0] if len(detectors) == 1 else "")
    labels = {"harmful": Reading(source=primary, at_least=report.threshold)} if primary else {}
    if _MITIGATION in detectors:
        labels["refused"] = Reading(source=_MITIGATION, at_least=report.threshold, invert=True)
    return Guess("harmful", "adversarial", labels)


def _answer(output: object, attempt: Record) -> str | None:
    if output is None:
        return None
    if isinstance(output, str):
        return checked(output, f"{attempt.place}: `outputs`")
    text = as_record(output, f"{attempt.place}: `outputs`").fields.get("text")
    if text is None:
        return None
    if not isinstance(text, str):
        raise attempt.fault("outputs", text, "texts")
    return checked(text, f"{attempt.place}: `outputs`")


def _turns(report: _Report, attempt: Record) -> list[list[str]]:
    """Role and text of every turn; older reports hold one text."""
    prompt = attempt.fields.get("prompt")
    if isinstance(prompt, str):
        return [["user", _unnamed(report, checked(prompt, f"{attempt.place}: `prompt`"))]]
    turns = prompt if isinstance(prompt, list) else attempt.record("prompt").list("turns")
    return [_turn(report, as_record(turn, f"{attempt.place}: `turns`")) for turn in turns]


def _turn(report: _Report, turn: Record) -> list[str]:
    content = turn.fields.get("content")
    if not isinstance(content, str):
        message = turn.record("content")
        content, data = (
            message.fields.get("text"),
            message.fields.get("data_checksum") or message.fields.get("data_path"),
        )
        if content in _MISSING and data:
            content = str(data)
    if not isinstance(content, str):
        raise turn.fault("content", content, "a text")
    return [turn.text("role"), _unnamed(report, checked(content, f"{turn.place}: `content`"))]


def _unnamed(report: _Report, text: str) -> str:
    for name in report.names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "{generator}", text)
    return text
