"""What the replay pool holds after a round, and how old attacks fared in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sparring.replay.schema import ATTACKS, OUTCOMES
from sparring.replay.state import unique_attacks, unique_events
from sparring.replay.tables import EventTable
from sparring.report.measures import Rate, share
from sparring.store.base import Store

_OLDEST = 5


@dataclass(frozen=True)
class PoolStats:
    """`ages`: success of harmful attacks against this round's defender, by age in rounds.

    `earlier` counts attacks written before this round, `never` those of them that no later defender has met.
    """

    attacks: int
    harmful: int
    outcomes: int
    added: int
    earlier: int
    never: int
    replayed: int
    ages: Sequence[tuple[str, Rate]]


def pool_stats(store: Store, round_number: int) -> PoolStats | None:
    """Statistics of the pool as of a round; None for an empty pool. Raises CorruptError and StoreError."""
    attacks = EventTable(store, "pool/attacks", ATTACKS)
    outcomes = EventTable(store, "pool/outcomes", OUTCOMES)
    return _stats(
        unique_attacks(attacks.read("attack_id", "label", "origin_round", "origin_step", "attacker")),
        unique_events(outcomes.read("event_id", "attack_id", "round", "unsafe", "answers", "status")),
        round_number,
    )


def _stats(attacks: pa.Table, outcomes: pa.Table, now: int) -> PoolStats | None:
    origin = {row["attack_id"]: row["origin_round"] for row in attacks.to_pylist() if row["origin_round"] <= now}
    if not origin:
        return None
    harmful = {row["attack_id"] for row in attacks.to_pylist() if row["label"] == "harmful"} & origin.keys()
    events = [row for row in outcomes.to_pylist() if row["round"] <= now and row["attack_id"] in origin]
    again = {row["attack_id"] for row in events if row["round"] > origin[row["attack_id"]]}
    earlier = {name for name, round_number in origin.items() if round_number < now}
    current = [row for row in events if row["round"] == now]
    return PoolStats(
        attacks=len(origin),
        harmful=len(harmful),
        outcomes=len(events),
        added=len(origin) - len(earlier),
        earlier=len(earlier),
        never=len(earlier - again),
        replayed=len({row["attack_id"] for row in current} & earlier),
        ages=_ages([row for row in current if row["attack_id"] in harmful], origin, now),
    )


def _ages(events: Sequence[Mapping[str, int]], origin: Mapping[object, int], now: int) -> list[tuple[str, Rate]]:
    """Unsafe answers over judged answers, by age; everything old stands in one last row."""
    counts: dict[int, tuple[int, int]] = {}
    for row in events:
        age = min(now - origin[row["attack_id"]], _OLDEST)
        unsafe, answers = counts.get(age, (0, 0))
        counts[age] = (unsafe + row["unsafe"], answers + row["answers"])
    return [(_age(age), share(*counts[age])) for age in sorted(counts) if counts[age][1]]


def _age(rounds: int) -> str:
    if rounds == 0:
        return "this round"
    return f"{rounds}{'+' if rounds == _OLDEST else ''} round{'s' if rounds > 1 else ''} old"
