"""What every section of a run file is made of."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]


def _rises(part: tuple[float, float]) -> tuple[float, float]:
    if part[0] >= part[1]:
        raise ValueError(f"{part[0]:g} to {part[1]:g} is no part: give the lower end first")
    return part


Depth = Annotated[tuple[Share, Share], AfterValidator(_rises)]
"""Part of a model's depth, from its lowest layer, 0, to its highest, 1."""


class Section(BaseModel):
    """A section of the run file: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
