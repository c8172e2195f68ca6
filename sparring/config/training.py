"""Sections `warm_start` and `selfplay`: how the policy is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.section import Section, Share


class WarmStartConfig(Section):
    """Supervised start before the first round: own refusals and self-distilled helpful answers."""

    steps: int = Field(100, ge=0, description="Optimizer steps; 0 leaves the warm start out.")
    batch: int = Field(16, ge=2, description="Rows a step: refusals, helpful answers and attacker demonstrations.")
    learning_rate: float = Field(3e-4, ge=0, description="AdamW learning rate at its highest; it falls linearly.")
    attacker_share: Share = Field(0.0625, description="Share of rows that show the attacker its role.")
    refusal_share: Share = Field(0.15, description="Share of refusals among the other rows; the rest helps.")
    examples: int = Field(300, ge=4, description="Harmful seeds that refusals are made for.")
    helpful_examples: int = Field(560, ge=4, description="Benign seeds that the model's own answers are taken to.")


class SelfplayConfig(Section):
    """Self-play with shared weights on TRL's GRPOTrainer: both roles are trained in one step."""

    steps: int = Field(12, ge=0, description="Optimizer steps of self-play.")
    games: int = Field(40, ge=4, description="Games a step; a multiple of `group`.")
    group: int = Field(2, ge=2, description="Rows of one prompt: answers a vanilla prompt, rewrites a seed.")
    learning_rate: float = Field(5e-5, ge=0, description="AdamW learning rate; 0 trains nothing.")
    warmup: Share = Field(0.1, description="Share of the steps over which the learning rate rises.")
    kl: float = Field(
        0.01, ge=0, description="Weight of the k1 KL penalty to the round's starting policy, in the reward."
    )
    baseline: Literal["group", "batch"] = Field(
        "group",
        description="What a return is compared with before role normalisation: its group's mean, or the whole batch's.",
    )
    clip: float = Field(0.2, gt=0, lt=1, description="PPO clip range.")
    micro_batch: int = Field(16, ge=2, description="Rows a forward and backward pass; a multiple of `group`.")
    sft_coef: float = Field(
        0.12, ge=0, description="Weight of the supervised term on benign instructions; 0 leaves it out."
    )
    sft_batch: int = Field(8, ge=1, description="Supervised rows a step.")
    sft_examples: int = Field(96, ge=4, description="Benign seeds whose own answers make the supervised set.")
    train_attacker: bool = Field(True, description="False freezes the attacker: its rows carry no loss.")
    max_void_share: Share = Field(0.5, description="A step with a larger share of void games stops the run.")
    save_steps: int = Field(7, ge=1, description="Steps between resumable training states.")
