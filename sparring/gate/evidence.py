"""What the gate knows: verdict tables lined up row by row, with unjudged answers already counted as the worst case.

Everything that keeps tables from being compared is collected as a plain sentence; `line_up` gives either sentences
or evidence, never both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
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

_LEAST_PROBABILITY = 1e-9


@dataclass(frozen=True)
class Design:
    """What all models were asked. Row arrays are sorted by suite, slice, prompt and answer index."""

    suite: NDArray[np.str_]
    kind: NDArray[np.str_]
    slice: NDArray[np.str_]
    prompt: Ints
    cluster: Ints

    def pick(self, kind: str | None, slices: Sequence[str] = ()) -> Bools:
        """Rows of a kind (None: harmful and benign) and of some slices (empty: all but those that stand beside)."""
        mask: Bools = self.kind != "capability" if kind is None else self.kind == kind
        if slices:
            return mask & np.isin(self.slice, list(slices))
        for name in BESIDE:
            mask = mask & ~np.char.startswith(self.slice, name)
        return mask


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
    prompts, first, inverse = np.unique(design.prompt[rows], return_index=True, return_inverse=True)
    means = np.bincount(inverse, weights=values[rows], minlength=len(prompts)) / np.bincount(inverse)
    names, slices = np.unique(design.slice[rows][first], return_inverse=True)
    _, cluster = np.unique(design.cluster[rows][first], return_inverse=True)
    return Units(means, cluster.astype(np.int64), slices.astype(np.int64), tuple(map(str, names)))


def line_up(policy: Policy, tables: Mapping[str, pa.Table], *, first_run: bool) -> tuple[Evidence | None, list[str]]:
    """Evidence from tables by role, or everything that is missing. `tables` holds candidate and champion at least."""
    conformed, missing = _conformed(tables)
    missing += _asked_differently(tables)
    if missing:
        return None, missing
    tables = {role: table.sort_by([(column, "ascending") for column in KEY]) for role, table in conformed.items()}
    others = [role for role in tables if role != "candidate"]
    missing = [line for role in others for line in _differences(tables["candidate"], tables[role], role)]
    if missing:
        return None, missing
    design = _design(tables["candidate"])
    answers = {role: _answers(table) for role, table in tables.items()}
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
    for role, table in tables.items():
        name = f"{role}'s verdict table"
        try:
            conformed[role] = conform(table, name)
        except InvalidEvaluation as error:
            missing.append(error.message)
            continue
        missing += problems(conformed[role], name)
    return conformed, missing


def _differences(candidate: pa.Table, other: pa.Table, role: str) -> list[str]:
    """Why two sorted tables are not about the same answers of the same prompts under the same judge."""
    columns = [*KEY, "kind", "behavior", "label", "judge"]
    if candidate.select(columns).equals(other.select(columns)):
        return []
    mine, theirs = (sorted(table["judge"].unique().to_pylist()) for table in (candidate, other))
    judges = f"candidate and {role} were judged by different judges ({', '.join(mine)} and {', '.join(theirs)})"
    return [judges] * (mine != theirs) + _unequal(candidate, other, role, columns[:-1])


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
    suite, part, prompt = (np.array(table[name].to_pylist(), dtype=object) for name in ("suite", "slice", "prompt_id"))
    starts = np.ones(len(prompt), dtype=bool)  # sorted: a prompt is a run of rows
    starts[1:] = (suite[1:] != suite[:-1]) | (part[1:] != part[:-1]) | (prompt[1:] != prompt[:-1])
    cluster = table["behavior"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return Design(
        suite=suite.astype(np.str_),
        kind=np.array(table["kind"].to_pylist(), dtype=np.str_),
        slice=part.astype(np.str_),
        prompt=(np.cumsum(starts) - 1).astype(np.int64),
        cluster=cluster,
    )


def _answers(table: pa.Table) -> Answers:
    names = ("refused", "harmful", "passed", "degenerate", "score")
    labels = {name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64) for name in names}
    kind = np.array(table["kind"].to_pylist(), dtype=np.str_)
    unjudged: Bools = np.array([status != "ok" for status in table["status"].to_pylist()])
    for name, needed in _NEEDED.items():
        lacks = np.isnan(np.stack([labels[label] for label in needed])).any(axis=0)
        unjudged = unjudged | ((kind == name) & lacks)
    binary = (kind != "capability") | np.isin(labels["score"], (0.0, 1.0)) | unjudged
    return Answers(table["model"][0].as_py(), labels, unjudged, binary)


def _sizes(policy: Policy, design: Design) -> list[str]:
    """Required slices that are absent, have too few prompts or rest on too few behaviours."""
    found = []
    for item in policy.required:
        rows = design.pick(item.kind, (item.slice,))
        n = len(np.unique(design.prompt[rows]))
        if n < item.min:
            what = "is missing" if n == 0 else f"has {n} prompts"
            found.append(
                f"{item.kind} slice {item.slice} {what}, policy {policy.name} needs {item.min}: {item.min - n} more"
            )
    for kind in ("harmful", "benign", "capability"):
        clusters = len(np.unique(design.cluster[design.pick(kind)]))
        if clusters < policy.min_clusters:
            found.append(
                f"{kind} prompts are of {clusters} behaviours, policy {policy.name} needs {policy.min_clusters}"
            )
    return found


def _failures(policy: Policy, design: Design, answers: Answers, role: str) -> list[str]:
    found = []
    for kind in ("harmful", "benign", "capability"):
        for part in np.unique(design.slice[design.kind == kind]):
            rows = design.pick(kind, (str(part),))
            failed, n = int(answers.unjudged[rows].sum()), int(rows.sum())
            if failed > policy.judge_failure_cap * n:
                found.append(
                    f"{failed} of {n} answers of the {role} in {kind} slice {part} are not judged,"
                    f" the cap is {policy.judge_failure_cap:.1%}"
                )
    return found
