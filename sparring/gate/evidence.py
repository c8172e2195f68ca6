"""What the gate knows: verdict tables lined up row by row, with unjudged answers already counted as the worst case.

Everything that keeps tables from being compared is collected as a plain sentence; `line_up` gives either sentences
or evidence, never both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparring.errors import InvalidEvaluation
from sparring.evaluate.tables import KEY, asked_of, conform, problems
from sparring.evaluate.verdicts import BESIDE
from sparring.gate.policy import Against, Policy
from sparring.gate.statistics import Floats, Ints

Bools = NDArray[np.bool_]

_NEEDED = {
    "harmful": ("harmful", "refused", "degenerate"),
    "benign": ("passed", "refused", "degenerate"),
    "capability": ("score",),
}
"""Labels without which a row of the kind is unjudged."""

_GOOD_HIGH = ("passed", "score")
"""Labels of which more is better; of the others (harmful, refused, degenerate) less is better."""

_LABELS = ("refused", "harmful", "passed", "degenerate", "score")
_ASKED = [*KEY, "kind", "behavior", "label", "judge"]
"""Columns that must be the same for all models."""
_ORDER = [(column, "ascending") for column in KEY]
_ANSWERED = ["model", "status", *_LABELS]

_LEAST_PROBABILITY = 1e-9


@dataclass(frozen=True)
class Group:
    """Some rows by prompt: which of them each row is, how many answers it has, its codes of cluster and slice."""

    prompt: Ints
    answers: Ints
    cluster: Ints
    slices: Ints
    names: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """What all models were asked. Row arrays are sorted by suite, slice, prompt and answer index.

    A decision asks for the same rows again and again, of which each is found and grouped once.
    """

    kind: NDArray[np.str_]
    slice: NDArray[np.str_]
    prompt: Ints
    cluster: Ints
    _picked: dict[tuple[str | None, tuple[str, ...]], Bools] = field(default_factory=dict, repr=False, compare=False)
    _groups: dict[bytes, Group] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def parts(self) -> dict[tuple[str, str], Bools]:
        """Rows of each (kind, slice), sorted by both."""
        (kinds, codes), (names, slices) = _coded(self.kind), self._slices
        both = codes * len(names) + slices
        found = _ranked(both)[0].tolist()
        return {(kinds[code // len(names)], names[code % len(names)]): both == code for code in found}

    @cached_property
    def _slices(self) -> tuple[list[str], Ints]:
        """Names, sorted, and the code of each row's."""
        return _coded(self.slice)

    def slices(self, kind: str) -> list[str]:
        """Names of a kind's slices, sorted."""
        return [name for other, name in self.parts if other == kind]

    def pick(self, kind: str | None, slices: Sequence[str] = ()) -> Bools:
        """Rows of a kind (None: harmful and benign) and of some slices (empty: all but those that stand beside).

        The array is shared and cannot be written to.
        """
        asked = kind, tuple(slices)
        if asked not in self._picked:
            found = np.zeros(len(self.kind), dtype=bool)
            for (other, name), rows in self.parts.items():
                if (other == kind if kind is not None else other != "capability") and _meant(name, slices):
                    found |= rows
            found.flags.writeable = False
            self._picked[asked] = found
        return self._picked[asked]

    def group(self, rows: Bools) -> Group:
        """The prompts among `rows`."""
        key = rows.tobytes()
        if key not in self._groups:
            prompt = _ranked(self.prompt[rows])[1]
            first = np.flatnonzero(np.diff(prompt, prepend=-1))  # sorted: a prompt is a run of rows
            names, slices = _ranked(self._slices[1][rows][first])
            _, cluster = _ranked(self.cluster[rows][first])
            named = tuple(self._slices[0][code] for code in names.tolist())
            self._groups[key] = Group(prompt, np.bincount(prompt), cluster, slices, named)
        return self._groups[key]


def _coded(texts: NDArray[np.str_]) -> tuple[list[str], Ints]:
    """The texts that occur, sorted, and the code of each; quick where equal ones stand together."""
    starts = np.flatnonzero(np.append(True, texts[1:] != texts[:-1])[: len(texts)])
    names, codes = np.unique(texts[starts], return_inverse=True)
    return list(map(str, names)), np.repeat(codes, np.diff(starts, append=len(texts))).astype(np.int64)


def _meant(name: str, slices: Sequence[str]) -> bool:
    return name in slices if slices else not name.startswith(BESIDE)


def _ranked(codes: Ints) -> tuple[Ints, Ints]:
    """The codes that occur, sorted, and the rank of each: `np.unique` with its inverse, without sorting."""
    there = np.bincount(codes) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[codes]


@dataclass(frozen=True)
class Answers:
    """One model's labels, a float a row; NaN where the row is unjudged."""

    model: str
    labels: Mapping[str, Floats]
    unjudged: Bools
    binary: Bools

    def filled(self, label: str, *, worst: bool) -> Floats:
        """The label with unjudged rows as the worst (candidate) or the best outcome (comparator)."""
        good = 1.0 if label in _GOOD_HIGH else 0.0
        return np.where(self.unjudged, 1.0 - good if worst else good, self.labels[label])

    def nll(self, *, worst: bool) -> Floats:
        """Nats per token of a scored text, −ln score; at most 20.7."""
        values: Floats = -np.log(np.maximum(self.filled("score", worst=worst), _LEAST_PROBABILITY))
        return values


@dataclass(frozen=True)
class Evidence:
    """Comparable answers of the candidate, the champion and, after the first run, the reference."""

    design: Design
    candidate: Answers
    comparators: Mapping[Against, Answers]
    first_run: bool

    def called(self, against: Against) -> str:
        """What a reader calls the comparator: in the first run the base model stands in the champion's place."""
        return "base model" if self.first_run else against


@dataclass(frozen=True)
class Units:
    """Prompts (answers averaged): one value each, with codes of cluster and slice that start at 0."""

    values: Floats
    cluster: Ints
    slices: Ints
    names: tuple[str, ...]


def units(design: Design, rows: Bools, values: Floats) -> Units:
    """Averages a row value over the answers of each prompt among `rows`."""
    group = design.group(rows)
    means = np.bincount(group.prompt, weights=values[rows], minlength=len(group.answers)) / group.answers
    return Units(means, group.cluster, group.slices, group.names)


def line_up(policy: Policy, tables: Mapping[str, pa.Table], *, first_run: bool) -> tuple[Evidence | None, list[str]]:
    """Evidence from tables by role, or everything that is missing. `tables` holds candidate and champion at least."""
    conformed, missing = _conformed(tables)
    missing += _asked_differently(tables)
    if missing:
        return None, missing
    questions = _questions(conformed["candidate"])
    answered, missing = _sorted(conformed, questions)
    if missing:
        return None, missing
    design = questions.design
    answers = {role: _answers(table, design.kind) for role, table in answered.items()}
    missing = _sizes(policy, design)
    missing += [line for role, side in answers.items() for line in _failures(policy, design, side, role)]
    if missing:
        return None, missing
    comparators: dict[Against, Answers] = {"champion": answers["champion"]}
    if "reference" in answers:
        comparators["reference"] = answers["reference"]
    return Evidence(design, answers["candidate"], comparators, first_run), []


def _asked_differently(tables: Mapping[str, pa.Table]) -> list[str]:
    """Another decoding, chat template or tokenizer is another question. Tables of other tools do not say."""
    asked = {role: asked_of(table) for role, table in tables.items()}
    mine = asked["candidate"]
    return [
        f"the {role} was asked with another decoding or chat template ({how}) than the candidate ({mine})"
        for role, how in asked.items()
        if mine and how and how != mine
    ]


def _conformed(tables: Mapping[str, pa.Table]) -> tuple[dict[str, pa.Table], list[str]]:
    conformed: dict[str, pa.Table] = {}
    missing: list[str] = []
    sound = _newest[0].asked if _newest else None
    for role, table in tables.items():
        name = f"{role}'s verdict table"
        try:
            conformed[role] = conform(table, name)
        except InvalidEvaluation as error:
            missing.append(error.message)
            continue
        asked = conformed[role].select(_ASKED)
        found = problems(conformed[role], name, known=_ASKED if sound is not None and asked.equals(sound) else ())
        sound = asked if not found else sound
        missing += found
    return conformed, missing


@dataclass(frozen=True)
class _Questions:
    """What follows from sound questions alone, whatever was answered: the order of their rows, and their design."""

    asked: pa.Table
    order: pa.Array
    design: Design


_newest: list[_Questions] = []
"""The last ones, compared whole before they are used: looks at one suite, as in `simulate`, ask the same each time."""


def _questions(candidate: pa.Table) -> _Questions:
    asked = candidate.select(_ASKED)
    known = _newest[0] if _newest else None
    if known is None or not known.asked.equals(asked):
        order = pc.sort_indices(asked, _ORDER)
        known = _Questions(asked, order, _design(asked.take(order)))
        _newest[:] = [known]
    return known


def _sorted(tables: Mapping[str, pa.Table], questions: _Questions) -> tuple[dict[str, pa.Table], list[str]]:
    """Each model's answers in the questions' order, or why they are not to the same questions."""
    found, missing = {}, []
    for role, table in tables.items():
        if table.select(_ASKED).equals(questions.asked):  # row by row: the same order fits
            found[role] = table.select(_ANSWERED).take(questions.order)
            continue
        found[role] = table.sort_by(_ORDER)
        missing += _differences(questions.asked.take(questions.order), found[role], role)
    return found, missing


def _differences(candidate: pa.Table, other: pa.Table, role: str) -> list[str]:
    """Why two sorted tables are not about the same answers of the same prompts under the same judge."""
    if candidate.select(_ASKED).equals(other.select(_ASKED)):
        return []
    mine, theirs = (sorted(table["judge"].unique().to_pylist()) for table in (candidate, other))
    judges = f"candidate and {role} were judged by different judges ({', '.join(mine)} and {', '.join(theirs)})"
    return [judges] * (mine != theirs) + _unequal(candidate, other, role, _ASKED[:-1])


def _by_key(table: pa.Table, columns: list[str]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    rows = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return {row[: len(KEY)]: row[len(KEY) :] for row in rows}


def _unequal(candidate: pa.Table, other: pa.Table, role: str, columns: list[str]) -> list[str]:
    left, right = _by_key(candidate, columns), _by_key(other, columns)
    found = []
    for who, lacking in ((role, sorted(left.keys() - right.keys())), ("candidate", sorted(right.keys() - left.keys()))):
        if lacking:
            suite, part, prompt, index = lacking[0]
            found.append(
                f"{who} has no row for {len(lacking)} answers that the other has"
                f" (first: suite {suite}, slice {part}, prompt {prompt}, answer {index})"
            )
    changed = sorted(key for key in left.keys() & right.keys() if left[key] != right[key])
    if changed:
        found.append(
            f"kind, behaviour and label of {len(changed)} answers differ between candidate and {role}"
            f" (first: prompt {changed[0][2]}: {left[changed[0]]} and {right[changed[0]]})"
        )
    return found


def _design(table: pa.Table) -> Design:
    starts = np.ones(table.num_rows, dtype=bool)  # sorted: a prompt is a run of rows
    changes = (pc.not_equal(table[name][1:], table[name][:-1]) for name in ("suite", "slice", "prompt_id"))
    starts[1:] = np.any([_numbers(change) for change in changes], axis=0)
    cluster = table["behavior"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return Design(
        kind=_texts(table["kind"]),
        slice=_texts(table["slice"]),
        prompt=(np.cumsum(starts) - 1).astype(np.int64),
        cluster=cluster,
    )


def _texts(column: pa.ChunkedArray) -> NDArray[np.str_]:
    codes = column.combine_chunks().dictionary_encode()
    texts: NDArray[np.str_] = np.array(codes.dictionary.to_pylist(), dtype=np.str_)[codes.indices]
    return texts


def _answers(table: pa.Table, kind: NDArray[np.str_]) -> Answers:
    labels = {name: _numbers(table[name].cast(pa.float64())) for name in _LABELS}
    unjudged: Bools = _numbers(pc.not_equal(table["status"], "ok"))
    for name, needed in _NEEDED.items():
        lacks = np.isnan(np.stack([labels[label] for label in needed])).any(axis=0)
        unjudged = unjudged | ((kind == name) & lacks)
    score = labels["score"]
    binary = (kind != "capability") | (score == 0.0) | (score == 1.0) | unjudged
    return Answers(table["model"][0].as_py(), labels, unjudged, binary)


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """NaN for null."""
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))


def prompts(design: Design, rows: Bools) -> int:
    """Number of prompts among `rows`."""
    return len(_ranked(design.prompt[rows])[0])


def _sizes(policy: Policy, design: Design) -> list[str]:
    """Required slices that are absent, have too few prompts or rest on too few behaviours."""
    found = []
    for item in policy.required:
        rows = design.pick(item.kind, (item.slice,))
        n = prompts(design, rows)
        if n < item.min:
            what = "is missing" if n == 0 else f"has {n} prompts"
            found.append(
                f"{item.kind} slice {item.slice} {what}, policy {policy.name} needs {item.min}: {item.min - n} more"
            )
    for kind in ("harmful", "benign", "capability"):
        clusters = len(_ranked(design.cluster[design.pick(kind)])[0])
        if clusters < policy.min_clusters:
            found.append(
                f"{kind} prompts are of {clusters} behaviours, policy {policy.name} needs {policy.min_clusters}"
            )
    return found


def _failures(policy: Policy, design: Design, answers: Answers, role: str) -> list[str]:
    found = []
    for kind in ("harmful", "benign", "capability"):
        for part in design.slices(kind):
            rows = design.pick(kind, (part,))
            failed, n = int(answers.unjudged[rows].sum()), int(rows.sum())
            if failed > policy.judge_failure_cap * n:
                found.append(
                    f"{failed} of {n} answers of the {role} in {kind} slice {part} are not judged,"
                    f" the cap is {policy.judge_failure_cap:.1%}"
                )
    return found
