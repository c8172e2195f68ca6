"""The bundled starter set: own words, requests only, split into train and held-out by behaviour.

Every loader checks its file as strictly as a user's file is checked, and reads it once a process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Final, Literal

from sparring.errors import DataError
from sparring.game.records import Label, Seed

Split = Literal["train", "heldout"]
BenignKind = Literal["lookalike", "plain", "adversarial"]

LICENCE: Final = "CC-BY-4.0"
_NAMES: Final = (
    "benign_adversarial.jsonl",
    "benign_lookalike.jsonl",
    "benign_plain.jsonl",
    "capability.jsonl",
    "categories.json",
    "harmful.jsonl",
    "helpful_answers.jsonl",
    "jailbreaks.jsonl",
    "refusals.jsonl",
    "rewrites.jsonl",
)


@dataclass(frozen=True)
class StarterPrompt:
    """One request. `behavior` names its intent; no behaviour stands in both splits."""

    id: str
    behavior: str
    category: str
    prompt: str
    split: Split


@dataclass(frozen=True)
class Jailbreak:
    """A held-out harmful request (`seed`, its text `seed_text`) in an adversarial phrasing (`style`)."""

    id: str
    seed: str
    seed_text: str
    behavior: str
    category: str
    style: str
    prompt: str


@dataclass(frozen=True)
class Demonstration:
    """Shows the attacker its role: `seed_text` as it was, `prompt` as an attacker would write it."""

    id: str
    seed_text: str
    label: Label
    style: str
    prompt: str


@dataclass(frozen=True)
class Refusal:
    """A refusal in own words; `{topic}` in it, where it stands, takes a category's description."""

    id: str
    text: str


@dataclass(frozen=True)
class Question:
    """A held-out multiple choice question: `choices[answer]` is right."""

    id: str
    behavior: str
    category: str
    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class HelpfulAnswer:
    """A held-out instruction with a good answer, for per-token NLL."""

    id: str
    behavior: str
    prompt: str
    answer: str


def seeds(split: Split = "train") -> tuple[Seed, ...]:
    """Harmful and benign seeds to start games from, in the files' order."""
    labelled: list[tuple[Label, StarterPrompt]] = [("harmful", row) for row in harmful(split)]
    labelled += [("benign", row) for row in (*benign("lookalike", split), *benign("plain", split))]
    return tuple(Seed(row.id, row.prompt, label, row.behavior, row.category) for label, row in labelled)


def harmful(split: Split) -> tuple[StarterPrompt, ...]:
    """Harmful requests, short and plain, as benchmark behaviours are."""
    return tuple(row for row in _prompts("harmful.jsonl") if row.split == split)


def benign(kind: BenignKind, split: Split) -> tuple[StarterPrompt, ...]:
    """Benign requests: ones that look harmful, plain ones, or plain ones in adversarial dress (held-out only)."""
    return tuple(row for row in _prompts(f"benign_{kind}.jsonl") if row.split == split)


@lru_cache(maxsize=1)
def jailbreaks() -> tuple[Jailbreak, ...]:
    """Held-out adversarial phrasings of the held-out harmful requests."""
    seeds_by_id = {row.id: row for row in harmful("heldout")}
    return tuple(_jailbreak(row, seeds_by_id) for row in _rows("jailbreaks.jsonl"))


@lru_cache(maxsize=1)
def demonstrations() -> tuple[Demonstration, ...]:
    """Rewrites of training seeds, harmful and benign."""
    seeds_by_id = {row.id: row for row in harmful("train")}
    return tuple(_demonstration(row, seeds_by_id) for row in _rows("rewrites.jsonl"))


@lru_cache(maxsize=1)
def refusals() -> tuple[Refusal, ...]:
    """Refusals in own words, for the warm start."""
    return tuple(Refusal(row.text("id"), row.text("text")) for row in _rows("refusals.jsonl"))


@lru_cache(maxsize=1)
def capability() -> tuple[Question, ...]:
    """Held-out multiple choice questions that a very small model can answer."""
    return tuple(_question(row) for row in _rows("capability.jsonl"))


@lru_cache(maxsize=1)
def helpful_answers() -> tuple[HelpfulAnswer, ...]:
    """Held-out instructions with good answers."""
    keys = ("id", "behavior", "prompt", "answer")
    return tuple(HelpfulAnswer(*(row.text(key) for key in keys)) for row in _rows("helpful_answers.jsonl"))


@lru_cache(maxsize=1)
def categories() -> Mapping[str, str]:
    """Harm category → its description in words that fit into a sentence."""
    found = json.loads(_bytes("categories.json"))
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise DataError("starter/categories.json: must map category names to descriptions")
    return found


@lru_cache(maxsize=1)
def digest() -> str:
    """SHA-256 over the names and bytes of all files: changes when the starter set does."""
    state = sha256()
    for name in _NAMES:
        content = _bytes(name)
        state.update(f"{name} {len(content)}\n".encode() + content)
    return state.hexdigest()


@dataclass(frozen=True)
class _Row:
    """One JSON object of a starter file, with its place for messages."""

    place: str
    fields: Mapping[str, object]

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{self.place}: field {key!r} must be a text that is not empty, not {value!r}")
        return value

    def seed(self, seeds_by_id: Mapping[str, StarterPrompt]) -> StarterPrompt:
        found = seeds_by_id.get(self.text("seed"))
        if found is None:
            raise DataError(
                f"{self.place}: seed {self.text('seed')!r} does not stand in the same split of harmful.jsonl"
            )
        return found


@lru_cache(maxsize=8)
def _prompts(name: str) -> tuple[StarterPrompt, ...]:
    return tuple(_prompt(row) for row in _rows(name))


def _prompt(row: _Row) -> StarterPrompt:
    category = row.text("category" if "category" in row.fields else "style")
    return StarterPrompt(row.text("id"), row.text("behavior"), category, row.text("prompt"), _split(row))


def _split(row: _Row) -> Split:
    split = row.text("split")
    if split == "train":
        return "train"
    if split == "heldout":
        return "heldout"
    raise DataError(f"{row.place}: split {split!r} must be 'train' or 'heldout'")


def _jailbreak(row: _Row, seeds_by_id: Mapping[str, StarterPrompt]) -> Jailbreak:
    seed = row.seed(seeds_by_id)
    if row.text("behavior") != seed.behavior:
        raise DataError(f"{row.place}: behavior {row.text('behavior')!r} is {seed.behavior!r} in harmful.jsonl")
    return Jailbreak(
        row.text("id"), seed.id, seed.prompt, seed.behavior, seed.category, row.text("style"), row.text("prompt")
    )


def _demonstration(row: _Row, seeds_by_id: Mapping[str, StarterPrompt]) -> Demonstration:
    if "benign" in row.fields:
        return Demonstration(row.text("id"), row.text("benign"), "benign", row.text("style"), row.text("prompt"))
    return Demonstration(row.text("id"), row.seed(seeds_by_id).prompt, "harmful", row.text("style"), row.text("prompt"))


def _question(row: _Row) -> Question:
    choices, answer = row.fields.get("choices"), row.fields.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{row.place}: choices must be a list of two texts or more, not {choices!r}")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f"{row.place}: answer {answer!r} must be an index into {len(choices)} choices")
    return Question(
        id=row.text("id"),
        behavior=row.text("behavior"),
        category=row.text("category"),
        question=row.text("question"),
        choices=tuple(choices),
        answer=answer,
    )


def _rows(name: str) -> Iterator[_Row]:
    seen: set[object] = set()
    for number, line in enumerate(_bytes(name).decode().splitlines(), start=1):
        place = f"starter/{name}:{number}"
        fields = json.loads(line)
        if not isinstance(fields, dict) or fields.get("id") in seen:
            raise DataError(f"{place}: must be a JSON object with an id of its own")
        seen.add(fields.get("id"))
        yield _Row(place, fields)


def _bytes(name: str) -> bytes:
    return files("sparring.data").joinpath("starter", name).read_bytes()
