"""Finds the prompt, its behaviour, category and label in the columns of the usual public files.

| file | prompt | behaviour | category | label |
|---|---|---|---|---|
| this project's own | prompt | behavior | category | label |
| HarmBench | ContextString and Behavior | BehaviorID | SemanticCategory | |
| JailbreakBench | Goal | Behavior | Category | |
| StrongREJECT | forbidden_prompt | | category | |
| XSTest | prompt | | type | label (safe, unsafe), or the type |
| OR-Bench | prompt | | category | |
| WildJailbreak | vanilla or adversarial | | | data_type |
| GSM8K, MMLU | question | | subject | |

Capability files hold the right answer too:

| file | choices | answer |
|---|---|---|
| MMLU | choices (a list), options (lettered lines) or columns A, B, C, D | answer: index from 0, letter or choice |
| GSM8K | | answer: worked out, ending in `#### 42` |
| helpful answers | | target, answer, completion, response or output |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sparring.game.records import Label

PROMPTS: Final = (
    "prompt",
    "forbidden_prompt",
    "Goal",
    "goal",
    "Behavior",
    "vanilla",
    "question",
    "instruction",
    "request",
    "text",
)
"""Usual names of the prompt's column, the first present wins."""
ADVERSARIAL: Final = "adversarial"
"""WildJailbreak's column of adversarial phrasings, beside `vanilla`."""
CONTEXT: Final = "ContextString"
_BEHAVIORS: Final = ("BehaviorID", "behavior", "behavior_id")
_CATEGORIES: Final = ("SemanticCategory", "category", "Category", "type", "data_type", "subject")
_LABELS: Final = ("label", "prompt_harm_label", "data_type")
CHOICES: Final = ("choices", "options")
"""Usual names of the column of choices, the first present wins."""
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names of the columns when each choice has its own, and of the choices."""
_ANSWERS: Final[Mapping[str, tuple[str, ...]]] = {
    "choice": ("answer", "answer_index", "answerKey", "target", "gold"),
    "number": ("answer", "target", "solution"),
    "nll": ("target", "answer", "completion", "response", "output"),
}
_MEANING: Final[Mapping[str, Label]] = {
    "safe": "benign",
    "benign": "benign",
    "unharmful": "benign",
    "harmless": "benign",
    "vanilla_benign": "benign",
    "adversarial_benign": "benign",
    "unsafe": "harmful",
    "harmful": "harmful",
    "toxic": "harmful",
    "vanilla_harmful": "harmful",
    "adversarial_harmful": "harmful",
}
_SAFE_TYPES: Final = frozenset(
    {
        "definitions",
        "figurative_language",
        "historical_events",
        "homonyms",
        "nons_group_real_discr",
        "privacy_fictional",
        "privacy_public",
        "real_group_nons_discr",
        "safe_contexts",
        "safe_targets",
    }
)
"""XSTest's types of safe prompts: its files of completions have no other label."""


def prompt_column(names: Collection[str], adversarial: bool) -> str | None:
    """The column that holds the prompt, or None. `adversarial` prefers WildJailbreak's adversarial phrasings."""
    if adversarial and ADVERSARIAL in names:
        return ADVERSARIAL
    return next((name for name in PROMPTS if name in names), ADVERSARIAL if ADVERSARIAL in names else None)


def answer_column(names: Collection[str], part: str) -> str | None:
    """The column that holds the right answer of a capability slice, or None."""
    return next((name for name in _ANSWERS[part] if name in names), None)


def answer_names(part: str) -> str:
    """The usual names of that column, for messages."""
    return ", ".join(_ANSWERS[part])


def behavior_of(fields: Mapping[str, object], column: str) -> str:
    """The file's own name of the intent, or empty."""
    names = ("Behavior", *_BEHAVIORS) if column in ("Goal", "goal") else _BEHAVIORS
    return _first(fields, names, column)


def category_of(fields: Mapping[str, object], column: str) -> str:
    """The file's category of the prompt, or empty."""
    return _first(fields, _CATEGORIES, column)


def label_of(fields: Mapping[str, object], column: str) -> Label | None:
    """The file's label of the prompt, or None where it has none that is understood."""
    for name in _LABELS:
        meaning = _MEANING.get(str(fields.get(name, "")).strip().lower())
        if meaning and name != column:
            return meaning
    kind = str(fields.get("type", ""))
    return "harmful" if kind.startswith("contrast_") else "benign" if kind in _SAFE_TYPES else None


def _first(fields: Mapping[str, object], names: Collection[str], column: str) -> str:
    values = (fields.get(name) for name in names if name != column)
    return next((str(value).strip() for value in values if isinstance(value, str | int) and str(value).strip()), "")
