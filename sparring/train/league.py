"""Games against another policy: a past champion, or the policy that the round began with.

An opponent plays one role of whole slots. Its rows never train, as they are not the trained policy's own; the rows of
the role that faces it do. Who plays what depends on (seed, step) alone, the seed being one of the run and the round.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sparring.config.run import SelfplayConfig
from sparring.game.records import Kind
from sparring.policy.generate import Sampled
from sparring.train.ranks import generate_over_ranks
from sparring.train.roles import ATTACKER, DEFENDER, Roles

_STREAM = 0x9E3779B97F4A7C15
"""Told apart by it are the random numbers of the trained policy's rows and of its opponent's."""


@dataclass(frozen=True)
class Cast:
    """Slots of a step in which an opponent plays a role, and the opponent's number (`Opponents.names`)."""

    slots: Mapping[int, frozenset[int]]
    opponent: int


NOBODY: Final = Cast({ATTACKER: frozenset(), DEFENDER: frozenset()}, 0)


def cast(config: SelfplayConfig, kinds: Sequence[Kind], opponents: int, seed: int, step: int) -> Cast:
    """Who plays a step whose slots are of `kinds`, with so many opponents at hand.

    `start` plays every role that is not trained. `league` plays a share of the generated slots: the role that is not
    trained, else both in turn.
    """
    untrained = [r for r, on in ((ATTACKER, config.train_attacker), (DEFENDER, config.train_defender)) if not on]
    if config.opponent == "start":
        whole = frozenset(range(len(kinds)))
        return Cast({role: whole if role in untrained else frozenset() for role in (ATTACKER, DEFENDER)}, 0)
    if config.opponent == "current" or not opponents:
        return NOBODY
    rng = random.Random(f"{seed}/league/{step}")
    generated = [i for i, kind in enumerate(kinds) if kind == "generated"]
    chosen = rng.sample(generated, round(len(generated) * config.league_share))
    roles = untrained or [ATTACKER, DEFENDER]
    seats = {
        role: frozenset(s for n, s in enumerate(chosen) if roles[(n + step) % len(roles)] == role)
        for role in (ATTACKER, DEFENDER)
    }
    return Cast(seats, rng.randrange(opponents))


class Opponents:
    """The policies that may play against the trained one. `load` gives the n-th one's model for a role.

    At most two models are kept: the last step's.
    """

    def __init__(self, names: Sequence[str], load: Callable[[int, int], Any]) -> None:
        self.names, self._load = list(names), load
        self._kept: dict[tuple[int, int], Any] = {}

    def model(self, number: int, role: int) -> Any:
        """The opponent's model. Raises what `load` raises: NotFoundError, CorruptError, ModelError."""
        key = (number, role)
        if key not in self._kept:
            while len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._load(number, role)
        return self._kept[key]


@dataclass(frozen=True)
class OpposedRoles:
    """`own` plays, but in the slots of `cast` the opponent does."""

    own: Roles
    opponents: Opponents
    cast: Cast
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
        theirs = [i for i, slot in enumerate(slots) if slot in self.cast.slots[role]]
        ours = [i for i, slot in enumerate(slots) if slot not in self.cast.slots[role]]
        parts = []
        if ours:
            own = self.own.sample(
                role,
                [prompts[i] for i in ours],
                slots=[slots[i] for i in ours],
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
            )
            parts.append((ours, own))
        if theirs:
            sampled = generate_over_ranks(
                self.opponents.model(self.cast.opponent, role),
                [prompts[i] for i in theirs],
                eos=self.eos,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=(seed ^ _STREAM) % 2**63,
            )
            parts.append((theirs, sampled))
        return _in_order(parts, len(prompts))


def _in_order(parts: Sequence[tuple[list[int], Sampled]], rows: int) -> Sampled:
    ids: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[float]] = [[] for _ in range(rows)]
    for places, part in parts:
        for place, tokens, values in zip(places, part.ids, part.logprobs, strict=True):
            ids[place], logprobs[place] = tokens, values
    return Sampled(ids, logprobs)


def rest_opponents(rows: dict[str, list[Any]], slots: Mapping[int, Sequence[int]], seats: Cast) -> None:
    """Takes the opponent's rows out of the loss and the baselines; `slots` has each role's rows' slots, in order.

    Rows stand as `rollout_rows` leaves them: attackers first, then defenders.
    """
    numbers = [*slots[ATTACKER], *slots[DEFENDER]]
    for row, (role, slot) in enumerate(zip(rows["role"], numbers, strict=True)):
        if slot in seats.slots[role]:
            rows["valid"][row] = 0
            rows["env_mask"][row] = [0] * len(rows["env_mask"][row])
