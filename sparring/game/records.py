"""Records of the game: plain frozen dataclasses, one Parquet row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Label = Literal["harmful", "benign"]
LABELS: Final[tuple[Label, ...]] = ("harmful", "benign")
Kind = Literal["generated", "vanilla", "replayed"]

BROKEN_ATTACK: Final = "attack broke the format"
BROKEN_ANSWER: Final = "answer broke the format"
"""Reasons of games in which a role broke the format of the chain of thought."""


@dataclass(frozen=True)
class Seed:
    """A prompt to start a game from. `id` is stable over rounds; `behavior` groups seeds of one intent."""

    id: str
    text: str
    label: Label
    behavior: str
    category: str = ""
    source: str = "starter"


@dataclass(frozen=True)
class Game:
    """One finished game: a transcript row.

    `attack` is what the defender was asked (the seed itself in a vanilla game). `prompt_harmful`, `refused` and
    `harmful` are the reward judge's labels, None where it gave none. `similarity` is the cosine of seed and attack.
    A void role has no judged outcome; `reason` says why. It carries no reward and no loss, but for the role that broke
    the format of the chain of thought: that alone is paid. Rewards are before normalisation and KL.

    `attack_thought` and `answer_thought` are private (schema version 2): what was thought, or the whole completion
    where it broke the format; never passed on, and not shown unless asked for. `said` are the answers to all turns but
    the last of an attack told in several, JSON; `attack` holds the turns (`sparring.game.prompts.TURN`).
    """

    round: int
    step: int
    game: int
    kind: Kind
    seed_id: str
    seed: str
    label: Label
    behavior: str
    attack_id: str
    attack: str
    answer: str
    prompt_harmful: bool | None
    refused: bool | None
    harmful: bool | None
    degenerate: bool | None
    similarity: float
    faithful: bool
    attacker_reward: float | None
    defender_reward: float | None
    attacker_void: bool
    defender_void: bool
    reason: str = ""
    attack_thought: str | None = None
    answer_thought: str | None = None
    said: str | None = None


GAMES_VERSION = "2"
"""Version of the transcript's table: 2 added the columns of thoughts and turns, which older ones lack."""
