"""Who plays the two roles: the policy that is trained, or another in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sparring.policy.generate import Sampled, generate

ATTACKER: Final = 0
DEFENDER: Final = 1


class Roles(Protocol):
    """Samples completions for either role."""

    def sample(
        self,
        role: int,
        prompts: Sequence[Sequence[int]],
        *,
        games: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Sampled:
        """One completion for each prompt (token ids), in order; log-probabilities are at temperature 1.

        `games` has the number within the step (`Game.game`) of the game that each prompt belongs to.
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
        games: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Sampled:
        """See `Roles`."""
        return generate(
            self.model, prompts, eos=self.eos, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
