"""Sections `warm_start` and `selfplay`: how the policy is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.roles import PlayersConfig
from sparring.config.section import Depth, Section, Share


class WarmStartConfig(Section):
    """Supervised start before the first round: own refusals and self-distilled helpful answers."""

    steps: int = Field(120, ge=0, description="Optimizer steps; 0 leaves the warm start out.")
    batch: int = Field(16, ge=2, description="Rows a step: refusals, helpful answers and attacker demonstrations.")
    learning_rate: float = Field(1e-2, ge=0, description="AdamW learning rate at its highest; it falls linearly.")
    rank: int = Field(8, ge=1, le=1024, description="Rank of the LoRA adapter that learns, and is merged in the end.")
    layers: Depth = Field(
        (0.45, 0.67),
        description="Part of the model's depth that the adapter is in, from its lowest layer, 0, to its highest, 1.",
    )
    attacker_share: Share = Field(0.0625, description="Share of rows that show the attacker its role.")
    refusal_share: Share = Field(0.25, description="Share of refusals among the other rows; the rest helps.")
    examples: int = Field(220, ge=4, description="Harmful seeds that refusals are made for.")
    helpful_examples: int = Field(500, ge=4, description="Benign seeds that the model's own answers are taken to.")


class GuardConfig(Section):
    """Limits past which a training is stopped; its round ends in hold, with the reason. Not given: only reported."""

    max_kl: float | None = Field(
        2.0,
        gt=0,
        description="Mean KL to the start (`per_role`: to the line's base) at sampling, nats a token; with "
        "`selfplay.kl: 0` it is not measured.",
    )
    min_entropy: float | None = Field(0.02, ge=0, description="Mean entropy of the policy, nats a token.")
    max_degenerate: Share | None = Field(0.8, description="Share of attacks and answers that loop or are no text.")
    max_judge_disagreement: Share | None = Field(
        0.5, description="Share of games that reward and gate judge label differently, where it is measured."
    )
    patience: int = Field(2, ge=1, description="Steps in a row past one of these limits that stop the training.")
    flat_steps: int | None = Field(
        20,
        ge=1,
        description="Steps in a row in which all rewards of a trained role are equal: it has stopped learning.",
    )


class SelfplayConfig(PlayersConfig):
    """Self-play on TRL's GRPOTrainer: both roles are trained in one step."""

    steps: int = Field(22, ge=0, description="Optimizer steps of self-play.")
    games: int = Field(160, ge=4, description="Games a step; a multiple of `group`.")
    group: int = Field(2, ge=2, description="Rows of one prompt: answers a vanilla prompt, rewrites a seed.")
    trained_share: float = Field(
        0.36,
        gt=0,
        le=1,
        description="Share of a step's rows that are trained on, rounded up to micro-batches: groups whose rewards "
        "differ most come first, the others teach next to nothing and cost as much (dynamic sampling). 1: all rows.",
    )
    learning_rate: float = Field(3e-3, ge=0, description="AdamW learning rate; 0 trains nothing.")
    warmup: Share = Field(0.25, description="Share of the steps over which the learning rate rises.")
    average_share: Share = Field(
        0.25,
        description="Share of the steps, the last ones, whose mean weights the candidate has: single steps swing "
        "between refusing and helping. 0: the last step's weights, as with sharded ones (FSDP, DeepSpeed) always.",
    )
    kl: float = Field(
        0.02,
        ge=0,
        description="Weight of the KL penalty to the start: k1 in the reward, or k3 in the loss (`grpo`).",
    )
    estimator: Literal["reinforce_pp", "grpo"] = Field(
        "reinforce_pp",
        description="Advantages: `reinforce_pp` normalises within each role, KL in the reward; `grpo` within each "
        "group, KL in the loss.",
    )
    baseline: Literal["group", "batch"] = Field(
        "group",
        description="`reinforce_pp`: what a return is compared with before role normalisation: its group's mean, or "
        "the whole batch's.",
    )
    answers_per_attack: int = Field(
        1, ge=1, le=64, description="Answers to each written attack; the attacker is paid the mean of the judged ones."
    )
    answer_decay: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Weight of each token of an answer in the policy's gradient against the one before it: whether to "
        "help is said first. 1: all alike, as with chain of thought always.",
    )
    clip: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="PPO clip range. A step's games make one update, whose ratio is 1: none is clipped.",
    )
    micro_batch: int = Field(16, ge=2, description="Rows a forward and backward pass; a multiple of `group`.")
    sft_coef: float = Field(
        0.1, ge=0, description="Weight of the supervised term on benign instructions; 0 leaves it out."
    )
    sft_batch: int = Field(8, ge=1, description="Supervised rows a step.")
    sft_examples: int = Field(96, ge=4, description="Benign seeds whose own answers make the supervised set.")
    train_attacker: bool = Field(True, description="False freezes the attacker: its rows carry no loss.")
    train_defender: bool = Field(True, description="False freezes the defender: its rows carry no loss.")
    max_void_share: Share = Field(0.5, description="A step with a larger share of void games stops the training.")
    guards: GuardConfig = GuardConfig()
    processes: int = Field(
        1, ge=1, le=1024, description="Training processes on this machine, one a GPU where it has some."
    )
    save_steps: int = Field(7, ge=1, description="Steps between resumable training states.")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Minutes between training states put into the store, for another machine; 0: none."
    )
