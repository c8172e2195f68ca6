"""Inspect's logs: `.eval` (a zip of JSON, `zipped`) or `.json` (inspect_ai 0.3, log version 2).

`eval` names task, model, scorers and dataset, each sample has `scores` by scorer: C, I, P, N, a number, a yes or no,
or an object of those. NaN is Inspect's "not scored" (an unparsable grade, for example): void. A sample with `error`, or
without a score, is void; a log whose `status` is not success, or that lacks samples, is refused, or with `partial`
void as a whole.

Guesses: an object with the keys refused, harmful, passed or degenerate gives the labels; `metadata.kind` or
`metadata.label` the kind; the scorers `choice`, `match`, `exact`, `includes`, `pattern`, `answer`, `math` are
capability. A model-graded C may mean "complied" as well as "refused": that is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparring.errors import DataError
from sparring.evaluate.tables import KINDS
from sparring.importers.verdicts.base import (
    Found,
    Guess,
    Item,
    Record,
    as_record,
    canonical,
    checked,
    described,
    digest,
    read_document,
    whole,
)
from sparring.importers.verdicts.mapping import MappingFile, Reading
from sparring.importers.verdicts.zipped import read_zipped

_LOG_VERSIONS: Final = (2,)
_LABELS: Final = ("refused", "harmful", "passed", "degenerate")
_CAPABILITY: Final = {
    "choice": "choice",
    "match": "number",
    "exact": "number",
    "includes": "number",
    "pattern": "number",
    "answer": "number",
    "math": "number",
}
_BEHAVIOR: Final = ("behavior", "behavior_id", "BehaviorID", "behaviour")
_BY_RUN: Final = ("id", "model", "source", "internal", "metadata")
"""Keys of a chat message that differ from run to run."""
_ATTACHED: Final = "attachment://"


@dataclass(frozen=True)
class _Log:
    place: str
    task: str
    judge: str
    values: frozenset[str]
    """Names of all values that any sample has: how labels are read may not depend on the sample, or one without a
    score would look as if another judge had judged it."""


def read_inspect(path: Path, mapping: MappingFile) -> Found:
    """The samples of a log, all epochs. Raises DataError."""
    header, samples = _parts(path)
    version = whole(header, "version")
    if version not in _LOG_VERSIONS:
        raise DataError(f"{path}: log version {version}; version 2 is read", hint="`inspect log convert` renews it")
    run = header.record("eval")
    _refuse_twice(samples)
    values = frozenset(name for sample in samples for name, _ in _signals(sample))
    log = _Log(str(path), run.text("task").rpartition("/")[2], _judge(run), values)
    items = [_item(sample, log) for sample in samples]
    model = described(run.text("model"), _model_facts(run), f"{path}: `model`")
    return Found(items, model, _incomplete(header, run, samples))


def _parts(path: Path) -> tuple[Record, list[Record]]:
    """The header and the samples, of either format."""
    if path.suffix.lower() == ".eval":
        header, found = read_zipped(path)
        return header, found
    if path.suffix.lower() != ".json":
        raise DataError(f"{path}: an Inspect log ends in .eval or .json")
    document = as_record(read_document(path), f"{path}: the document")
    if document.fields.get("samples") is None:
        return document, []
    listed = document.list("samples")
    return document, [as_record(one, f"{path}: sample {number}") for number, one in enumerate(listed, start=1)]


def _incomplete(header: Record, run: Record, samples: list[Record]) -> str | None:
    status = header.text("status")
    if status != "success":
        return f"{header.place}: the log's status is {status!r}, not success"
    if header.fields.get("invalidated") is True:
        return f"{header.place}: the log was invalidated"
    epochs = run.maybe("config").fields.get("epochs", 1)
    ids = run.record("dataset").fields.get("sample_ids")
    count = len(ids) if isinstance(ids, list) else header.maybe("results").fields.get("total_samples")
    if isinstance(ids, list):
        count = len(ids) * (epochs if isinstance(epochs, int) and not isinstance(epochs, bool) else 1)
    if count != len(samples):
        return f"{header.place}: {len(samples)} samples are logged, the run had {count}"
    return None


def _refuse_twice(samples: list[Record]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for sample in samples:
        key = (repr(sample.fields.get("id")), whole(sample, "epoch", least=1))
        if key in seen:
            raise DataError(f"{sample.place}: sample {key[0]}, epoch {key[1]} is there twice (first {seen[key]})")
        seen[key] = sample.place


def _model_facts(run: Record) -> Mapping[str, object]:
    """Name, base url, arguments and how it generates; a mock's prepared answers are no setting."""
    arguments = {key: value for key, value in run.maybe("model_args").fields.items() if key != "custom_outputs"}
    settings = {key: value for key, value in run.maybe("model_generate_config").fields.items() if value is not None}
    return {"model": run.text("model"), "url": run.fields.get("model_base_url"), "args": arguments, "config": settings}


def _judge(run: Record) -> str:
    """Tool, version and every scorer with its options, in which a grader's model stands."""
    version = run.maybe("packages").text("inspect_ai", default="unknown")
    listed = run.list("scorers") if run.fields.get("scorers") is not None else []
    names = [_scorer(as_record(one, f"{run.place}: `scorers`")) for one in listed]
    return f"inspect@{version} {' + '.join(names) or 'no scorer'}"


def _scorer(scorer: Record) -> str:
    options = {key: value for key, value in scorer.maybe("options").fields.items() if value is not None}
    grader = options.get("model")
    by = f" by {_grader(grader)}" if grader is not None else ""
    try:
        return f"{scorer.text('name')}{by}" + (f" #{digest(_stable(options), 8)}" if options else "")
    except ValueError as error:
        raise DataError(f"{scorer.place}: options that are not finite") from error


def _grader(model: object) -> str:
    """A grader is logged by name, or as an object with a name."""
    name = model.get("model", "?") if isinstance(model, Mapping) else model
    return str(name)[:80]


def _stable(options: Mapping[str, object]) -> str:
    kept = {key: _grader(value) if key == "model" else value for key, value in options.items()}
    return canonical(kept)


def _item(sample: Record, log: _Log) -> Item:
    place = f"{sample.place} (id {str(sample.fields.get('id'))[:40]!r}, epoch {whole(sample, 'epoch', least=1)})"
    asked = {name: _resolved(sample, sample.fields.get(name)) for name in ("input", "target", "choices")}
    try:
        prompt = canonical(["inspect", log.task, asked])
    except ValueError as error:
        raise DataError(f"{place}: `input` holds a number that is not finite") from error
    metadata = sample.maybe("metadata").fields
    signals = dict(_signals(sample)) | {f"metadata.{key}": value for key, value in metadata.items()}
    answer, tokens = _output(sample)
    return Item(
        place=place,
        task=log.task,
        prompt=prompt,
        behavior=_behavior(metadata) or f"{log.task}:{digest(prompt)}",
        index=whole(sample, "epoch", least=1) - 1,
        answer=answer,
        tokens=tokens,
        signals=signals,
        judge=log.judge,
        guess=_guess(log.values, metadata),
        fault=_fault(sample),
    )


def _fault(sample: Record) -> str | None:
    if sample.fields.get("error") is not None:
        return "the sample ended in an error"
    if sample.fields.get("invalidation") is not None:
        return "the sample was invalidated"
    return None if sample.maybe("scores").fields else "the sample has no score"


def _signals(sample: Record) -> Iterator[tuple[str, object]]:
    """Every score under its scorer's name, those of an object as `scorer.key`."""
    scores = sample.maybe("scores")
    for name in scores.fields:
        value = scores.record(name).fields.get("value")
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", part) for key, part in value.items())
        else:
            yield name, value


def _guess(values: frozenset[str], metadata: Mapping[str, object]) -> Guess:
    labels = {label: _reading(values, label) for label in _LABELS}
    known = {label: reading for label, reading in labels.items() if reading is not None}
    told = [value for key in ("kind", "label") if (value := metadata.get(key)) in KINDS]
    part = metadata.get("slice")
    kept = part if isinstance(part, str) and part else None
    scorers = [name for name in _CAPABILITY if name in values]
    if told and (known or told[0] != "capability"):
        return Guess(str(told[0]), kept, known)
    if len(scorers) == 1 and not known:
        return Guess("capability", kept or _CAPABILITY[scorers[0]], {"score": Reading(source=scorers[0])})
    return Guess(None, kept, known)


def _reading(values: frozenset[str], label: str) -> Reading | None:
    """The one value with the label's name, if there is exactly one."""
    names = [name for name in values if name == label or name.endswith(f".{label}")]
    return Reading(source=names[0]) if len(names) == 1 else None


def _behavior(metadata: Mapping[str, object]) -> str | None:
    found = (metadata.get(key) for key in _BEHAVIOR)
    return next((value for value in found if isinstance(value, str) and value.strip()), None)


def _output(sample: Record) -> tuple[str | None, int | None]:
    output = sample.maybe("output")
    text = _resolved(sample, output.fields.get("completion"))
    if text is not None and not isinstance(text, str):
        raise output.fault("completion", text, "a text")
    usage = output.maybe("usage")
    counted = whole(usage, "output_tokens") if usage.fields.get("output_tokens") is not None else None
    return (None if text is None else checked(text, f"{sample.place}: `completion`")), counted


def _resolved(sample: Record, value: object, depth: int = 0) -> object:
    """Long texts are kept aside as attachments; ids of messages differ from run to run and are left out."""
    if depth > 32:
        raise DataError(f"{sample.place}: nested more than 32 deep")
    if isinstance(value, str):
        if value.startswith(_ATTACHED):
            return sample.record("attachments").text(value.removeprefix(_ATTACHED))
        return checked(value, f"{sample.place}: a text")
    if isinstance(value, list):
        return [_resolved(sample, part, depth + 1) for part in value]
    if isinstance(value, Mapping):
        kept = {key: part for key, part in value.items() if key not in _BY_RUN and part is not None}
        return {key: _resolved(sample, part, depth + 1) for key, part in kept.items()}
    return value
