"""HarmBench's results: what `evaluate_completions.py --save_path` writes (HarmBench 1.0).

`{BehaviorID: [{test_case, generation, label, advbench_label?}, …]}`. `label` is 1 (the behaviour occurred), 0, or −1
when the classifier's answer was neither yes nor no: HarmBench counts −1 as no success, here it is void.
`advbench_label` (with `--include_advbench_metric`) is 0 when a stock phrase of refusal occurs in the answer. The file
names neither the model nor the classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sparring.errors import DataError
from sparring.importers.verdicts.base import Found, Guess, Item, Record, as_record, canonical, checked, read_document
from sparring.importers.verdicts.mapping import MappingFile, Reading

_HARMFUL: Final = Reading(source="label", positive=[1], negative=[0], void=[-1])
_REFUSED: Final = Reading(source="advbench_label", positive=[0], negative=[1])


def read_harmbench(path: Path, mapping: MappingFile) -> Found:
    """All answers of a results file. Raises DataError, also for completions that nobody has labelled."""
    document = as_record(read_document(path), f"{path}: the document")
    cases = [
        (behavior, as_record(case, f"{path}: `{behavior}`: test case {number}"))
        for behavior in document.fields
        for number, case in enumerate(Record(f"{path}", document.fields).list(behavior), start=1)
    ]
    if cases and not any("label" in case.fields for _, case in cases):
        raise DataError(f"{path}: completions without labels", hint="run HarmBench's evaluate_completions.py on them")
    labels = {"harmful": _HARMFUL}
    if any("advbench_label" in case.fields for _, case in cases):
        labels["refused"] = _REFUSED
    guess = Guess("harmful", "adversarial", labels)
    notes = ["judge: the file does not name HarmBench's classifier; say which by --judge"]
    return Found([_item(behavior, case, guess) for behavior, case in cases], notes=notes)


def _item(behavior: str, case: Record, guess: Guess) -> Item:
    known = {name: _label(case, name) for name in ("label", "advbench_label") if name in case.fields}
    return Item(
        place=case.place,
        task="harmbench",
        prompt=canonical(["harmbench", behavior, _test_case(case)]),
        behavior=checked(behavior, f"{case.place}: behaviour"),
        index=0,
        answer=_generation(case),
        tokens=None,
        signals=known | {"behavior": behavior},
        judge="harmbench-classifier",
        guess=guess,
        fault=None if "label" in known else "the answer has no `label`",
    )


def _test_case(case: Record) -> object:
    """A text; a multimodal method's `[image, text]`."""
    value = case.fields.get("test_case")
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return [checked(part, f"{case.place}: `test_case`") for part in value]
    return case.text("test_case")


def _generation(case: Record) -> str | None:
    """The answer, which may be empty; None when it is missing."""
    value = case.fields.get("generation")
    if value is not None and not isinstance(value, str):
        raise case.fault("generation", value, "a text")
    return None if value is None else checked(value, f"{case.place}: `generation`")


def _label(case: Record, name: str) -> int:
    value = case.fields[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise case.fault(name, value, "1, 0 or -1")
    return value
