"""Section `game`: what one game is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.section import Section, Share


class GameConfig(Section):
    """One game: attacker writes, defender answers, the judge labels, rewards follow."""

    cot: Literal[False] = Field(False, description="Hidden chain of thought; this release plays without it.")
    generated_share: Share = Field(
        0.25, description="Share of fresh seeds that the attacker rewrites; the rest is vanilla."
    )
    harmful_share: Share = Field(0.27, description="Share of harmful seeds among the fresh ones.")
    attack_tokens: int = Field(32, ge=4, le=1024, description="Most tokens of an attack.")
    answer_tokens: int = Field(28, ge=4, le=1024, description="Most tokens of an answer.")
    max_prompt_tokens: int = Field(160, ge=32, description="Longer prompts are cut so that the chat header survives.")
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature of both roles.")
    reward: Literal["general_sum_guarded", "general_sum", "zero_sum"] = Field(
        "general_sum_guarded", description="Reward form (selfplay rewards; guarded pays nothing for label drift)."
    )
    topic_threshold: Share = Field(0.3, description="A rewrite under this cosine to its seed has left the topic.")
