"""Builds the table of evaluation suites: held-out starter prompts and the user's files, clustered by behaviour.

Suites of the starter set: `starter-harmful` (slices vanilla, adversarial), `starter-benign` (lookalike, plain,
adversarial), `starter-capability` (choice, nll) and `starter-attacker` (attacker-role).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import pyarrow as pa

from sparring.config.run import DataConfig, SuiteSource
from sparring.data import attacker_role, starter
from sparring.data.capability import ScoredRow, scored_rows
from sparring.data.load import PromptRow, data_files, evenly, files_digest, prompts_of
from sparring.data.text import content_id, normalise
from sparring.errors import CorruptError, DataError

SUITES_VERSION: Final = "2"
"""Version of the table's columns and of the bundled suites: a round that finds another's datasets builds its own."""

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
        pa.field("form", pa.string(), nullable=False),
    ],
    metadata={"sparring.schema": SUITES_VERSION},
)
"""One row a prompt. `prompt_id` is unique in the table. Capability rows have label "": slice `choice` has `choices`
and the index `answer` of the right one; slice `number` has the right number in `target`, slice `nll` the good answer.
`form` says how they are asked (`sparring.evaluate.capability`). Elsewhere `choices` is empty, `answer` null, `target`
and `form` are empty. Version 1 had no `form` and no slice `number`: `read_suites` fills it in."""


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
    form: str = ""


@dataclass(frozen=True)
class Suites:
    """All suite rows, clustered, what was left out ({suite/slice: {reason: count}}), and the SHA-256 of each suite's
    files ({suite/slice: hex})."""

    rows: tuple[SuiteRow, ...]
    left_out: dict[str, dict[str, int]]
    files: dict[str, str] = field(default_factory=dict)

    def digests(self) -> dict[str, dict[str, str]]:
        """The data hash of every suite, by suite/slice: `files`, of its files' bytes, and `rows`, of its rows.

        The files of the starter set's suites are those of the whole starter set.
        """
        states = {f"{row.suite}/{row.slice}": sha256() for row in self.rows}
        for row in self.rows:
            states[f"{row.suite}/{row.slice}"].update(json.dumps(asdict(row)).encode() + b"\n")
        return {
            name: {"files": self.files.get(name, starter.digest()), "rows": state.hexdigest()}
            for name, state in states.items()
        }

    def table(self) -> pa.Table:
        """The rows under SUITES_SCHEMA."""
        names = SUITES_SCHEMA.names
        return pa.Table.from_pylist([{name: _cell(row, name) for name in names} for row in self.rows], SUITES_SCHEMA)

    def texts(self) -> tuple[list[str], list[str]]:
        """Every text that may not train, none twice: the prompts and the intents behind them, with a prompt id each.

        Of the attacker's role only the intents: its prompt is what self-play itself asks.
        """
        ids = {text: row.prompt_id for row in reversed(self.rows) for text in _unseen(row)}
        return list(ids.values()), list(ids)


def build_suites(config: DataConfig) -> Suites:
    """The suites that `config` asks for. Raises DataError (file, row) and when a suite has no prompt of its kind."""
    rows = list(starter_rows(config.starter_attacker)) if config.starter_suites else []
    left_out: dict[str, dict[str, int]] = {}
    files: dict[str, str] = {}
    for source in config.suites:
        name = f"{source.name}/{source.slice}"
        found, why, files[name] = user_rows(source, config.max_prompt_chars)
        rows += found
        if why:
            left_out[name] = why
    return Suites(tuple(_cluster(rows)), left_out, files)


def read_suites(table: pa.Table) -> pa.Table:
    """A stored suites table under SUITES_SCHEMA: this release's, or one of version 1. Raises CorruptError."""
    # version 1 asked choices written out, helpful answers as chat
    if "form" not in table.column_names and "slice" in table.column_names:
        forms = [{"choice": "text", "nll": "chat"}.get(part, "") for part in table["slice"].to_pylist()]
        table = table.append_column(SUITES_SCHEMA.field("form"), pa.array(forms, pa.string()))
    try:
        return table.select(SUITES_SCHEMA.names).cast(SUITES_SCHEMA)
    except (KeyError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptError(f"the suites' table is of no known version: {reason}") from error


def starter_rows(attacker: bool = True) -> Iterator[SuiteRow]:
    """The starter set's held-out rows. `attacker`: with those that ask for attacks."""
    yield from _starter_harmful()
    yield from _starter_benign()
    yield from _starter_capability()
    if attacker:
        yield from _starter_attacker()


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
        yield SuiteRow(*place, choices=item.choices, answer=item.answer, form="text")
    for row in starter.helpful_answers():
        place = (suite, "nll", "capability", row.id, row.behavior, "", "", row.prompt, row.prompt)
        yield SuiteRow(*place, target=row.answer, form="chat")


def _starter_attacker() -> Iterator[SuiteRow]:
    for row, prompt in attacker_role.attacker_requests():
        name = attacker_role.prompt_id(row)
        place = (attacker_role.SUITE, attacker_role.SLICE, "harmful", name, row.behavior, row.category)
        yield SuiteRow(*place, label="harmful", prompt=prompt, intent=row.prompt)


def user_rows(source: SuiteSource, max_chars: int) -> tuple[list[SuiteRow], dict[str, int], str]:
    """Rows of one of the user's suites, how many were left out and why (`other label`, `duplicate`), and the SHA-256
    of its files. Raises DataError (file, row)."""
    with data_files(source.path) as files:
        rows, why = (_capability_rows if source.kind == "capability" else _labelled_rows)(source, files, max_chars)
        return rows, why, files_digest(files)


def _capability_rows(
    source: SuiteSource, files: Sequence[tuple[str, Path]], max_chars: int
) -> tuple[list[SuiteRow], dict[str, int]]:
    loaded = scored_rows(files, source, max_chars)
    first: dict[str, ScoredRow] = {}
    for row in loaded:
        first.setdefault(_question(row), row)
    rows = [_scored_row(source, key, row) for key, row in evenly(list(first.items()), source.limit)]
    return rows, dict(+Counter({"duplicate": len(loaded) - len(first)}))


def _question(row: ScoredRow) -> str:
    """What makes a question: "Which of these is true?" is another one with other choices."""
    return "\n".join([normalise(row.prompt), *row.choices])


def _scored_row(source: SuiteSource, key: str, row: ScoredRow) -> SuiteRow:
    return SuiteRow(
        suite=source.name,
        slice=source.slice,
        kind=source.kind,
        prompt_id=f"{source.name}:{source.slice}:{content_id(key)}",
        behavior=f"{source.name}:{row.behavior}" if row.behavior else "",
        category=row.category,
        label="",
        prompt=row.prompt,
        intent=row.prompt,
        choices=row.choices,
        answer=row.answer,
        target=row.target,
        form=source.asked,
    )


def _labelled_rows(
    source: SuiteSource, files: Sequence[tuple[str, Path]], max_chars: int
) -> tuple[list[SuiteRow], dict[str, int]]:
    loaded = prompts_of(files, column=source.column, adversarial=source.slice == "adversarial", max_chars=max_chars)
    if not loaded:
        raise DataError(f"{source.path}: no prompts in it")
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


def _unseen(row: SuiteRow) -> tuple[str, ...]:
    return (row.intent,) if row.suite == attacker_role.SUITE else (row.intent, row.prompt)


def _cell(row: SuiteRow, name: str) -> object:
    value = getattr(row, name)
    return list(value) if name == "choices" else value
