"""Records of the game: plain frozen dataclasses, one Parquet row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Label = Literal["harmful", "benign"]
Kind = Literal["generated", "vanilla", "replayed"]


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
    A void role carries no reward and no loss; `reason` says why. Rewards are before normalisation and KL.
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
