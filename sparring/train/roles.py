"""Who plays the two roles: the policy that is trained, or another in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from sparring.policy.generate import Sampled
from sparring.train.ranks import generate_over_ranks

ATTACKER: Final = 0
DEFENDER: Final = 1


class Roles(Protocol):
    """Samples completions for either role."""

    def sample(
        self,
        role: int,
        prompts: Sequence[Sequence[int]],
        *,
        slots: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Sampled:
        """One completion for each prompt (token ids), in order; log-probabilities are at temperature 1.

        `slots` has the number of each prompt's slot in the step's schedule: an opponent plays whole slots.
        """
        ...


@dataclass(frozen=True)
class SharedRoles:
    """One model plays both roles; `eos` ends a completion."""

    model: Any
    eos: frozenset[int]

    def sample(
        self,
        role: int,
        prompts: Sequence[Sequence[int]],
        *,
        slots: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Sampled:
        """See `Roles`."""
        return generate_over_ranks(
            self.model, prompts, eos=self.eos, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )


@dataclass(frozen=True)
class Begun:
    """Adapters to go on from, as folders; None begins at the base."""

    attacker: Path | None = None
    defender: Path | None = None
