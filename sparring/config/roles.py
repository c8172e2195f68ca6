"""Keys of section `selfplay` about who plays the roles and what samples their words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.section import Depth, Section, Share


class LoraConfig(Section):
    """The adapters of `adapters: shared` and `per_role` (LoRA without dropout)."""

    rank: int = Field(8, ge=1, le=1024, description="Rank of an adapter.")
    alpha: float = Field(8.0, gt=0, description="An adapter's product is scaled by alpha / rank.")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="Linear layers that get an adapter, by the end of their names; `lm_head` cannot be one.",
    )
    layers: Depth = Field(
        (0.45, 0.67),
        description="Part of the model's depth that gets adapters, from its lowest layer, 0, to its highest, 1.",
    )


class VllmConfig(Section):
    """vLLM as the sampler of `rollouts: vllm_colocate` and `vllm_server` (through TRL)."""

    memory: float = Field(
        0.35, gt=0, lt=1, description="`vllm_colocate`: share of a GPU's memory for vLLM; training has the rest."
    )
    server: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",
        description="`vllm_server`: its address. Start it with `--logprobs-mode processed_logprobs` on other GPUs.",
    )
    timeout: float = Field(240.0, gt=0, description="`vllm_server`: seconds to wait for it to be up.")
    group_port: int = Field(
        51216, ge=1024, le=65535, description="`vllm_server`: port over which the weights are sent to it."
    )


class PlayersConfig(Section):
    """Who plays the roles in self-play."""

    adapters: Literal["none", "shared", "per_role"] = Field(
        "shared",
        description="`none`: both roles train all weights. `shared`: both train one LoRA adapter, which the candidate "
        "has merged. `per_role`: one adapter a role on a frozen base; the candidate is the base with the defender's. "
        "Without adapters a hundredth of the learning rate is enough.",
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
    rollouts: Literal["auto", "cpu", "vllm_colocate", "vllm_server"] = Field(
        "auto",
        description="What samples in the games: `cpu` is this package's own loop, `vllm_colocate` vLLM on the training "
        "GPUs, `vllm_server` a vLLM server. `auto`: `vllm_colocate` where there is a GPU and vLLM, else `cpu`.",
    )
    vllm: VllmConfig = VllmConfig()
