"""Builds the table of evaluation suites: held-out starter prompts and the user's files, clustered by behaviour.

Suites of the starter set: `starter-harmful` (slices vanilla, adversarial), `starter-benign` (lookalike, plain,
adversarial) and `starter-capability` (choice, nll).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from sparring.config.run import DataConfig, SuiteSource
from sparring.data import starter
from sparring.data.load import PromptRow, evenly, load_prompts
from sparring.data.text import content_id, normalise
from sparring.errors import DataError

SUITES_SCHEMA = pa.schema(
    [
        pa.field("suite", pa.string(), nullable=False),
        pa.field("slice", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("behavior", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("choices", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
        pa.field("answer", pa.int32()),
        pa.field("target", pa.string(), nullable=False),
    ],
    metadata={"sparring.schema": "1"},
)
"""One row a prompt. `prompt_id` is unique in the table. Capability rows have label "": slice `choice` has `choices`
and the index `answer` of the right one; slice `nll` has the good answer in `target`. Elsewhere `choices` is empty,
`answer` null and `target` empty."""


@dataclass(frozen=True)
class SuiteRow:
    """One row of the table, and `intent`: the plain request behind an adversarial prompt."""

    suite: str
    slice: str
    kind: str
    prompt_id: str
    behavior: str
    category: str
    label: str
    prompt: str
    intent: str
    choices: tuple[str, ...] = ()
    answer: int | None = None
    target: str = ""


@dataclass(frozen=True)
class Suites:
    """All suite rows, clustered, and what was left out: {suite/slice: {reason: count}}."""

    rows: tuple[SuiteRow, ...]
    left_out: dict[str, dict[str, int]]

    def table(self) -> pa.Table:
        """The rows under SUITES_SCHEMA."""
        names = SUITES_SCHEMA.names
        return pa.Table.from_pylist([{name: _cell(row, name) for name in names} for row in self.rows], SUITES_SCHEMA)

    def texts(self) -> tuple[list[str], list[str]]:
        """Every text that may not train, none twice: the prompts and the intents behind them, with a prompt id each."""
        ids = {text: row.prompt_id for row in reversed(self.rows) for text in (row.intent, row.prompt)}
        return list(ids.values()), list(ids)


def build_suites(config: DataConfig) -> Suites:
    """The suites that `config` asks for. Raises DataError (file, row) and when a suite has no prompt of its kind."""
    rows = list(starter_rows()) if config.starter_suites else []
    left_out: dict[str, dict[str, int]] = {}
    for source in config.suites:
        found, why = user_rows(source, config.max_prompt_chars)
        rows += found
        if why:
            left_out[f"{source.name}/{source.slice}"] = why
    return Suites(tuple(_cluster(rows)), left_out)


def starter_rows() -> Iterator[SuiteRow]:
    """The starter set's held-out rows."""
    yield from _starter_harmful()
    yield from _starter_benign()
    yield from _starter_capability()


def _starter_harmful() -> Iterator[SuiteRow]:
    for row in starter.harmful("heldout"):
        place = ("starter-harmful", "vanilla", "harmful", row.id, row.behavior, row.category, "harmful")
        yield SuiteRow(*place, prompt=row.prompt, intent=row.prompt)
    for jailbreak in starter.jailbreaks():
        place = (
            "starter-harmful",
            "adversarial",
            "harmful",
            jailbreak.id,
            jailbreak.behavior,
            jailbreak.category,
            "harmful",
        )
        yield SuiteRow(*place, prompt=jailbreak.prompt, intent=jailbreak.seed_text)


def _starter_benign() -> Iterator[SuiteRow]:
    kinds: tuple[starter.BenignKind, ...] = ("lookalike", "plain", "adversarial")
    for kind in kinds:
        for row in starter.benign(kind, "heldout"):
            place = ("starter-benign", kind, "benign", row.id, row.behavior, row.category, "benign")
            yield SuiteRow(*place, prompt=row.prompt, intent=row.prompt)


def _starter_capability() -> Iterator[SuiteRow]:
    suite = "starter-capability"
    for item in starter.capability():
        place = (suite, "choice", "capability", item.id, item.behavior, item.category, "", item.question, item.question)
        yield SuiteRow(*place, choices=item.choices, answer=item.answer)
    for row in starter.helpful_answers():
        place = (suite, "nll", "capability", row.id, row.behavior, "", "", row.prompt, row.prompt)
        yield SuiteRow(*place, target=row.answer)


def user_rows(source: SuiteSource, max_chars: int) -> tuple[list[SuiteRow], dict[str, int]]:
    """Rows of one of the user's suites, and how many were left out and why (`other label`, `duplicate`)."""
    adversarial = source.slice == "adversarial"
    loaded = load_prompts(source.path, column=source.column, adversarial=adversarial, max_chars=max_chars)
    labelled = [row for row in loaded if row.label in (None, source.kind)]
    if not labelled:
        raise DataError(f"suite {source.name}: no row of {source.path} is labelled {source.kind}")
    first: dict[str, PromptRow] = {}
    for row in labelled:
        first.setdefault(normalise(row.prompt), row)
    unique = list(first.values())
    why = Counter({"other label": len(loaded) - len(labelled), "duplicate": len(labelled) - len(unique)})
    return [_user_row(source, row) for row in evenly(unique, source.limit)], dict(+why)


def _user_row(source: SuiteSource, row: PromptRow) -> SuiteRow:
    return SuiteRow(
        suite=source.name,
        slice=source.slice,
        kind=source.kind,
        prompt_id=f"{source.name}:{source.slice}:{content_id(row.prompt)}",
        behavior=f"{source.name}:{row.behavior}" if row.behavior else "",
        category=row.category,
        label=source.kind,
        prompt=row.prompt,
        intent=row.intent,
    )


def _cluster(rows: Sequence[SuiteRow]) -> Iterator[SuiteRow]:
    """Rows of one behaviour, or of one intent in the same words, get one behaviour name, across all suites.

    Public suites overlap (WildJailbreak's vanilla behaviours are HarmBench's): rows counted as independent that are
    not make intervals too narrow (arXiv 2411.00640).
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parent.setdefault(key, key)) != key:
            key = above
        return key

    keys = [(f"text {normalise(row.intent)}", f"id {row.behavior}" if row.behavior else "") for row in rows]
    for text, behavior in keys:
        if behavior:
            parent[root(text)] = root(behavior)
    names: dict[str, str] = {}
    for row, (text, _) in zip(rows, keys, strict=True):
        name = names.setdefault(root(text), row.behavior or content_id(normalise(row.intent)))
        yield replace(row, behavior=name)


def _cell(row: SuiteRow, name: str) -> object:
    value = getattr(row, name)
    return list(value) if name == "choices" else value
