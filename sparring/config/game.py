"""Section `game`: what one game is."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from pydantic import Field, field_validator

from sparring.config.section import Section, Share

REWARD_FORMS: Final = ("general_sum_guarded", "general_sum", "zero_sum", "graded")
"""Reward forms in the package (`sparring.game.rewards`)."""


def reward_plugins() -> dict[str, EntryPoint]:
    """Reward forms of other installed packages, by name; nothing of them is imported. Built-in names stay ours."""
    return {found.name: found for found in entry_points(group="sparring.rewards") if found.name not in REWARD_FORMS}


class GameConfig(Section):
    """One game: attacker writes, defender answers, the judge labels, rewards follow."""

    cot: bool = Field(
        False, description="Hidden chain of thought: both roles think in private, and only the answer is passed on."
    )
    thought_tokens: int = Field(
        64, ge=4, le=8192, description="`cot`: tokens to think in, in addition to attack_tokens or answer_tokens."
    )
    generated_share: Share = Field(
        0.1, description="Share of fresh seeds that the attacker rewrites; the rest is vanilla."
    )
    harmful_share: Share = Field(
        0.35,
        description="Share of harmful seeds among the fresh ones. It sets how much is refused in the end: less "
        "teaches to help, more to refuse.",
    )
    turns: int = Field(
        1, ge=1, le=4, description="Turns of a written attack; the attacker sees the answer to each before the next."
    )
    attack_tokens: int = Field(32, ge=4, le=1024, description="Most tokens of an attack.")
    answer_tokens: int = Field(16, ge=4, le=1024, description="Most tokens of an answer.")
    max_prompt_tokens: int = Field(160, ge=32, description="Longer prompts are cut so that the chat header survives.")
    temperature: float = Field(
        1.0, gt=0, le=2, description="Sampling temperature of both roles; 1 where steps are trained."
    )
    reward: str = Field(
        "general_sum_guarded",
        description="Reward form: `general_sum_guarded` (pays nothing for label drift), `general_sum`, `zero_sum`, "
        "`graded` (by harm score), or one of an installed package (entry point group `sparring.rewards`).",
    )
    audit_games: int = Field(
        16, ge=0, description="Games a step that the gate's judge labels as well, to see how far the judges are apart."
    )
    topic_threshold: Share = Field(0.3, description="A rewrite under this cosine to its seed has left the topic.")

    @field_validator("reward")
    @classmethod
    def _known_form(cls, name: str) -> str:
        if name in REWARD_FORMS:
            return name
        known = [*REWARD_FORMS, *sorted(reward_plugins())]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            raise ValueError(f"no known form; did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}")
        return name

    @property
    def attack_room(self) -> int:
        """Most tokens of one attacker's completion, thought included."""
        return self.attack_tokens + (self.thought_tokens if self.cot else 0)

    @property
    def answer_room(self) -> int:
        """Most tokens of one defender's completion, thought included."""
        return self.answer_tokens + (self.thought_tokens if self.cot else 0)
