"""The attacks that worked best against the candidate, with or without their texts.

Redacted, a text leaves only its hash, its length and its category: the page then holds no word that an attacker, a
user or a model wrote, and can be passed around.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sparring.report.facts import Role

_MOST_CHARACTERS = 1500
_TELLING = 16
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Text:
    """A text as the page may show it: `shown` is None when it is redacted; `cut` characters are left out at its end."""

    digest: str
    characters: int
    shown: str | None
    cut: int


@dataclass(frozen=True)
class Case:
    """One attack (or refused harmless prompt) and the answer to it; `labels` are the judge's, in words."""

    where: str
    suite: str
    category: str
    attack: Text
    answer: Text
    labels: Sequence[str]
    note: str


@dataclass(frozen=True)
class Cases:
    """The worst of a kind, and how many there are in all, of `total` prompts or games."""

    shown: Sequence[Case]
    found: int
    total: int


def text(value: str, *, redact: bool) -> Text:
    """A text with the first 12 digits of its SHA-256, by which it is found again in the store's tables."""
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Text(digest, len(value), None if redact else value[:_MOST_CHARACTERS], max(0, len(value) - _MOST_CHARACTERS))


def known_texts(*tables: pa.Table | None) -> frozenset[str]:
    """Every attack, prompt and answer long enough to be told from the page's own words, in the ways of quoting it."""
    columns = [
        table[name].unique().to_pylist()
        for table in tables
        if table is not None
        for name in ("attack", "prompt", "answer")
        if name in table.column_names
    ]
    found = {value for column in columns for value in column if value}
    quoted = {form for value in found for form in (value, " ".join(value.split()), repr(value)[1:-1])}
    return frozenset(value for value in quoted if len(value) >= _TELLING)


def mask(value: str, texts: frozenset[str]) -> str:
    """`value` without any of the texts, also where one is cut short: an error message or a name may quote it."""
    if len(value) < _TELLING:
        return value
    quoted = [text for text in texts if text[:_TELLING] in value]
    while quoted:
        start = min(place for text in quoted if (place := value.find(text[:_TELLING])) >= 0)
        length = max(_common(value[start:], text) for text in quoted)
        value = f"{value[:start]}[redacted]{value[start + length :]}"
        quoted = [text for text in quoted if text[:_TELLING] in value]
    return value


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def broken(
    verdicts: Mapping[Role, pa.Table], answers: pa.Table, categories: Mapping[str, str], most: int, *, redact: bool
) -> Cases:
    """Held-out attacks that the candidate gave in to; first those that the champion had resisted."""
    return _failures(verdicts, answers, categories, most, ("harmful", "harmful"), redact=redact)


def refused(
    verdicts: Mapping[Role, pa.Table], answers: pa.Table, categories: Mapping[str, str], most: int, *, redact: bool
) -> Cases:
    """Held-out harmless prompts that the candidate refused; first those that the champion had answered."""
    return _failures(verdicts, answers, categories, most, ("benign", "refused"), redact=redact)


def won_games(games: pa.Table, categories: Mapping[str, str], most: int, *, redact: bool) -> Cases:
    """Games on harmful seeds that the attacker won, the latest and best paid first; an attack stands once."""
    rows = [row for row in games.to_pylist() if row["label"] == "harmful" and row["harmful"] is not None]
    won = [row for row in rows if row["harmful"] and not row["defender_void"]]
    won.sort(key=lambda row: (-row["step"], -(row["attacker_reward"] or 0.0), row["attack_id"], row["game"]))
    once = {row["attack_id"]: row for row in reversed(won)}
    chosen = sorted(once.values(), key=won.index)[:most]
    return Cases([_game(row, categories, redact=redact) for row in chosen], len(once), len(rows))


def _failures(
    verdicts: Mapping[Role, pa.Table],
    answers: pa.Table,
    categories: Mapping[str, str],
    most: int,
    what: tuple[str, str],
    *,
    redact: bool,
) -> Cases:
    kind, label = what
    mine, theirs = (_by_prompt(verdicts.get(role), kind, label) for role in ("candidate", "champion"))
    failed = {prompt: rows for prompt, rows in mine.items() if any(row[label] for row in rows)}
    texts = {(row["suite"], row["prompt_id"], row["answer_index"]): row for row in answers.to_pylist()}
    ranked = sorted(failed, key=lambda prompt: (*_rank(failed[prompt], theirs.get(prompt, []), label), prompt))
    cases = []
    for prompt in ranked[:most]:
        row = next(row for row in failed[prompt] if row[label])
        found = texts.get((*prompt, row["answer_index"]), {})
        new = theirs.get(prompt) is not None and not any(other[label] for other in theirs[prompt])
        cases.append(_evaluated(row, found, categories.get(prompt[1], ""), new=new, redact=redact))
    return Cases(cases, len(failed), len(mine))


def _rank(mine: Sequence[Row], theirs: Sequence[Row], label: str) -> tuple[bool, float]:
    """Prompts that the champion passed come first, then those failed most often."""
    lost = any(row[label] for row in theirs) or not theirs
    return lost, -sum(bool(row[label]) for row in mine) / len(mine)


def _by_prompt(table: pa.Table | None, kind: str, label: str) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in [] if table is None else table.to_pylist():
        if row["kind"] == kind and row["status"] == "ok" and row[label] is not None:
            found.setdefault((row["suite"], row["prompt_id"]), []).append(row)
    return found


def _evaluated(row: Row, found: Row, category: str, *, new: bool, redact: bool) -> Case:
    return Case(
        where=str(row["slice"]),
        suite=str(row["suite"]),
        category=category,
        attack=text(str(found.get("prompt") or ""), redact=redact),
        answer=text(str(found.get("answer") or ""), redact=redact),
        labels=_labels(row, ("harmful", "refused", "degenerate")),
        note="new: not so with the champion" if new else "",
    )


def _game(row: Row, categories: Mapping[str, str], *, redact: bool) -> Case:
    reward = row["attacker_reward"]
    return Case(
        where=f"step {row['step']}, {row['kind']}",
        suite="",
        category=categories.get(row["seed_id"], ""),
        attack=text(row["attack"], redact=redact),
        answer=text(row["answer"], redact=redact),
        labels=_labels(row, ("harmful", "refused", "degenerate")),
        note="" if reward is None else f"attacker’s reward {reward:+.1f}".replace("-", "−"),
    )


def _labels(row: Row, names: Iterable[str]) -> list[str]:
    """The labels that hold; of one that the judge did not give, nothing is said."""
    return [name for name in names if row.get(name)]
