"""What a round's self-play has used of its budget.

Kept in the store after every step, so that a try that was killed counts: its GPUs were paid for. What it did since its
last step is not known and not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparring.config.budget import BudgetConfig
from sparring.errors import CorruptError, NotFoundError
from sparring.store.base import Store


class Spent(BaseModel):
    """Tokens written in games, hours of step `selfplay`, and these hours times its GPUs; over all tries."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    tokens: int = Field(0, ge=0)
    hours: float = Field(0.0, ge=0)
    gpu_hours: float = Field(0.0, ge=0)

    def plus(self, tokens: int, seconds: float, gpus: int) -> Spent:
        """With what was used meanwhile."""
        hours = seconds / 3600
        return Spent(
            tokens=self.tokens + tokens, hours=self.hours + hours, gpu_hours=self.gpu_hours + hours * gpus
        )  # fmt: skip

    def over(self, budget: BudgetConfig) -> str:
        """The first limit that is reached and by what; "" while there is something left.

        >>> Spent(tokens=1200).over(BudgetConfig(tokens=1000))
        'budget.tokens is used up (1,200 of 1,000)'
        """
        for name, limit in budget.model_dump().items():
            if limit is not None and (used := getattr(self, name)) >= limit:
                return f"budget.{name} is used up ({_number(used)} of {_number(limit)})"
        return ""

    def numbers(self) -> dict[str, float]:
        """By name."""
        return {"tokens": float(self.tokens), "hours": self.hours, "gpu_hours": self.gpu_hours}


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


class Meter:
    """Runs from its making. Without a limit it neither reads nor writes anything. Raises StoreError, CorruptError."""

    def __init__(
        self, budget: BudgetConfig, store: Store, key: str, gpus: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._budget, self._store, self._key, self._gpus, self._clock = budget, store, key, gpus, clock
        self.limited = any(limit is not None for limit in budget.model_dump().values())
        self.spent = _load(store, key) if self.limited else Spent()
        self._since = clock()

    def step(self, tokens: int = 0) -> None:
        """A step is done, in which `tokens` were written."""
        if not self.limited:
            return
        now = self._clock()
        self.spent = self.spent.plus(tokens, now - self._since, self._gpus)
        self._since = now
        self._store.put(self._key, self.spent.model_dump_json().encode())

    def over(self) -> str:
        """Which limit is used up, as of the last step; "" when none is."""
        return self.spent.over(self._budget)


def _load(store: Store, key: str) -> Spent:
    try:
        return Spent.model_validate_json(store.get(key))
    except NotFoundError:
        return Spent()
    except ValidationError as error:
        raise CorruptError(f"{key!r} in {store.url} is not what was written", hint="delete it") from error
