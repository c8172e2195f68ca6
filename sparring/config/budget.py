"""Section `budget`: what the self-play of one round may use."""

from __future__ import annotations

from pydantic import Field

from sparring.config.section import Section


class BudgetConfig(Section):
    """Self-play stops after the step in which one of these is used up, and the round goes on with what was trained."""

    tokens: int | None = Field(None, ge=1, description="Most tokens that the models write in the round's games.")
    gpu_hours: float | None = Field(
        None, gt=0, description="Most hours of step `selfplay` times its GPUs, killed tries counted."
    )
    hours: float | None = Field(None, gt=0, description="Most hours of step `selfplay`, killed tries counted.")
