"""Which games a step plays: a pure function of the run's seed, the round and the step.

A step has slots of `group` rows. Fresh slots are vanilla (one seed, `group` answers) or generated (one seed, `group`
rewrites, `answers_per_attack` answers each); replay slots put an attack of the pool before the defender again.
Seeds are walked in an order shuffled per epoch and label, so that no seed repeats before all of its label were played
([SR]: the split is drawn per epoch, not once for ever).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sparring.config.run import GameConfig, ReplayConfig, SelfplayConfig
from sparring.game.records import Kind, Label, Seed

Item = TypeVar("Item")


@dataclass(frozen=True)
class Replayed:
    """An attack of the pool with its seed."""

    attack_id: str
    attack: str
    seed: Seed


@dataclass(frozen=True)
class Slot:
    """`group` games on one seed; `replayed` is set for replay slots only."""

    kind: Kind
    seed: Seed
    replayed: Replayed | None = None


@dataclass(frozen=True)
class Composition:
    """Slots of a step by kind."""

    vanilla: int
    generated: int
    replayed: int


def composition(game: GameConfig, selfplay: SelfplayConfig, replay: ReplayConfig, pooled: int) -> Composition:
    """How a step's slots divide. Without pooled attacks the replay share goes to fresh games.

    A generated slot of k answers an attack takes the games of k others; `generated_share` is a share of the seeds.
    """
    slots, answers = selfplay.games // selfplay.group, selfplay.answers_per_attack
    replayed = 0 if replay.sampler == "none" else min(round(slots * replay.share), pooled)
    fresh, share = slots - replayed, game.generated_share
    generated = min(round(fresh * share / (1 + share * (answers - 1))), fresh // answers)
    return Composition(fresh - generated * answers, generated, replayed)


class Schedule:
    """Draws the slots of every step; `slots(step)` depends on nothing but the constructor's arguments and `step`."""

    def __init__(
        self, seeds: Sequence[Seed], replays: Sequence[Replayed], plan: Composition, harmful_share: float, seed: int
    ) -> None:
        self._pools: dict[Label, list[Seed]] = {
            label: [s for s in seeds if s.label == label] for label in ("harmful", "benign")
        }
        self._replays, self._plan, self._harmful, self._seed = list(replays), plan, harmful_share, seed
        self._orders: dict[str, tuple[int, list[int]]] = {}

    def slots(self, step: int) -> list[Slot]:
        """All slots of a step: vanilla, then generated, then replayed."""
        slots = [
            Slot("vanilla", self._fresh("vanilla", step * self._plan.vanilla + i)) for i in range(self._plan.vanilla)
        ]
        slots += [
            Slot("generated", self._fresh("generated", step * self._plan.generated + i))
            for i in range(self._plan.generated)
        ]
        for i in range(self._plan.replayed):
            replayed = self._nth(self._replays, step * self._plan.replayed + i, "replay")
            slots.append(Slot("replayed", replayed.seed, replayed))
        return slots

    def _fresh(self, kind: Kind, index: int) -> Seed:
        """The index-th seed of a kind: labels alternate in the configured share, each walks its own epochs."""
        before, after = int(index * self._harmful), int((index + 1) * self._harmful)
        label: Label = "harmful" if after > before else "benign"
        return self._nth(self._pools[label], before if label == "harmful" else index - before, f"{kind}/{label}")

    def _nth(self, items: Sequence[Item], nth: int, name: str) -> Item:
        epoch, offset = divmod(nth, len(items))
        return items[self._order(name, epoch, len(items))[offset]]

    def _order(self, name: str, epoch: int, count: int) -> list[int]:
        """Kept for the newest epoch of each name: a step asks for many places of it."""
        kept = self._orders.get(name)
        if kept is None or kept[0] != epoch:
            kept = (epoch, list(range(count)))
            random.Random(f"{self._seed}/{name}/{epoch}").shuffle(kept[1])
            self._orders[name] = kept
        return kept[1]
