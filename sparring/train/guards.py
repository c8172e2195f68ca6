"""When a training must not go on: limits on the learning curves. Pure functions of the curve's lines.

A training that trips one is stopped (`sparring.errors.TrainingStopped`) and its round ends in hold. Because nothing but
the lines so far decides, a resumed training trips at the step at which an uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sparring.config.run import SelfplayConfig
from sparring.config.training import GuardConfig
from sparring.game.records import Game

Line = Mapping[str, float]
FLAT = 1e-6
"""Rewards whose deviation is not above this are equal."""


def tripped(lines: Sequence[Line], config: SelfplayConfig) -> str:
    """Why the training must stop after the last of its steps' `lines`; "" when it may go on.

    Numbers that a line does not have were not measured and trip nothing.
    """
    if not lines:
        return ""
    last = lines[-1]
    if not all(math.isfinite(last.get(key, 0.0)) for key in ("loss", "grad_norm", "kl")):
        return f"step {last['step']:g}: the loss or its gradient is not finite"
    return next((why for check in (_drift, _flat) if (why := check(lines, config))), "")


def too_void(step: int, games: Sequence[Game], most: float) -> str:
    """Why a step's games cannot be trained on: more than the share `most` of them is void; "" when they can.

    A broken format is no such game: its role is paid for it, which is how the format is learnt.
    """
    reasons = [g.reason for g in games if g.reason and g.attacker_reward is None and g.defender_reward is None]
    if len(reasons) <= most * len(games):
        return ""
    limit = f"selfplay.max_void_share {most:g}"
    return f"step {step}: {len(reasons)} of {len(games)} games are void ({limit}); first reason: {reasons[0]}"


def _drift(lines: Sequence[Line], config: SelfplayConfig) -> str:
    """A number past its limit for `patience` steps in a row."""
    guards = config.guards
    for key, name, what, beyond in _limits(guards):
        limit = getattr(guards, name)
        recent = [line[key] for line in lines[-guards.patience :] if key in line]
        if limit is not None and len(recent) == guards.patience and all(beyond(value, limit) for value in recent):
            in_a_row = f" for {guards.patience} steps" if guards.patience > 1 else ""
            side = "under" if name.startswith("min_") else "over"
            return (
                f"step {lines[-1]['step']:g}: {what} {recent[-1]:.3g} is {side} "
                f"selfplay.guards.{name} {limit:g}{in_a_row}"
            )
    return ""


def _limits(guards: GuardConfig) -> list[tuple[str, str, str, Callable[[float, float], bool]]]:
    """Key of the curve, key of the section, words, and when the number is beyond the limit."""
    return [
        ("kl", "max_kl", "KL to the start", float.__gt__),
        ("entropy", "min_entropy", "the policy's entropy", float.__lt__),
        ("looping", "max_degenerate", "the share of degenerate texts", float.__gt__),
        ("judge_disagreement", "max_judge_disagreement", "the judges' disagreement", float.__gt__),
    ]


def _flat(lines: Sequence[Line], config: SelfplayConfig) -> str:
    """For `flat_steps` steps in a row all rewards of a trained role were equal, or those of each group."""
    most = config.guards.flat_steps
    for role, trained in (("attacker", config.train_attacker), ("defender", config.train_defender)):
        recent = [line[f"{role}_spread"] for line in lines[-(most or 0) :] if f"{role}_spread" in line]
        if most and trained and len(recent) == most and max(recent) <= FLAT:
            return (
                f"step {lines[-1]['step']:g}: all rewards of the {role} were equal for {most} steps "
                "(selfplay.guards.flat_steps)"
            )
    recent = [line["informative"] for line in lines[-(most or 0) :] if "informative" in line]
    if most and compares_groups(config) and len(recent) == most and not any(recent):
        return (
            f"step {lines[-1]['step']:g}: within every group rewards were equal for {most} steps: nothing is learnt "
            "(selfplay.guards.flat_steps)"
        )
    return ""


def compares_groups(config: SelfplayConfig) -> bool:
    """Whether a row's reward counts against its group's alone, so that groups paid alike teach nothing."""
    return config.estimator == "grpo" or config.baseline == "group"
