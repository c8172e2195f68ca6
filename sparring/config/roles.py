"""Keys of section `selfplay` about who plays the roles and what samples their words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.section import Section, Share


class LoraConfig(Section):
    """The adapters of `adapters: per_role` (LoRA without dropout)."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of an adapter.")
    alpha: float = Field(32.0, gt=0, description="An adapter's product is scaled by alpha / rank.")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="Linear layers that get an adapter, by the end of their names; `lm_head` cannot be one.",
    )


class PlayersConfig(Section):
    """Who plays the roles in self-play."""

    adapters: Literal["none", "per_role"] = Field(
        "none",
        description="`none`: both roles train the same weights. `per_role`: one LoRA adapter a role on a frozen base; "
        "the candidate is the base with the defender's. Adapters want about ten times the learning rate.",
    )
    lora: LoraConfig = LoraConfig()
    opponent: Literal["current", "start", "league"] = Field(
        "current",
        description="Who plays a role that is not trained: the policy as it is, or as the round began. `league`: a "
        "share of the generated games has a past champion in one role; the other role learns from them.",
    )
    league_share: Share = Field(0.25, description="`league`: share of the generated games.")
    league_champions: int = Field(
        4, ge=1, description="`league`: the last so many champions; `sparring gc --keep-champions` must keep as many."
    )
