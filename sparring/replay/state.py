"""The pool's state: a fold of its events. Events commute, so the order of writers and files does not matter.

Only outcomes of accepted defenders count: what a rejected candidate did says nothing about the champion that the next
round starts from. Rewards are summed as whole multiples of 2⁻²⁴, because floating sums depend on their order.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sparring.errors import CorruptError

Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

ORIGIN_COLUMNS = ("attack_id", "origin_round", "origin_step", "attacker", "text")
"""The order that decides which of several rows of one attack stands for it."""

ATTACK_COLUMNS = ("attack_id", "label", "origin_round", "origin_step", "attacker")
OUTCOME_COLUMNS = (
    *("event_id", "attack_id", "round", "defender", "unsafe", "answers", "refused"),
    *("defender_reward", "status"),
)
_UNIT = 2.0**24


@dataclass(frozen=True)
class PoolState:
    """Columns of equal length, one row an attack, sorted by id.

    - `ids`: attack ids as 32 ASCII bytes; `harmful`: the label; `origin_round`: the round it was written in.
    - `visits`: accepted outcomes (n of UCB); `answers`: judged answers in them (g).
    - `failures`: of these, harmful answers to a harmful attack, or refusals of a benign one (k).
    - `reward_sum`: the sum over answers of the defender's reward in [0, 1].
    - `last_round`: the round of the last visit, -1 for none.
    """

    ids: npt.NDArray[np.bytes_]
    harmful: npt.NDArray[np.bool_]
    origin_round: npt.NDArray[np.int64]
    visits: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    failures: npt.NDArray[np.int64]
    reward_sum: Floats
    last_round: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mean_reward(self) -> Floats:
        """Mean defender reward an answer, NaN for an attack without visits."""
        mean: Floats = np.full(len(self), np.nan)
        np.divide(self.reward_sum, self.answers, out=mean, where=self.answers > 0)
        return mean

    def take(self, rows: Rows) -> PoolState:
        """The state of some attacks, as if the pool held only them."""
        return PoolState(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def names(self, rows: Rows) -> list[str]:
        """Attack ids of some rows, as text."""
        return [name.decode("ascii") for name in self.ids[rows].tolist()]


def fold(attacks: pa.Table, outcomes: pa.Table, accepted: AbstractSet[str]) -> PoolState:
    """State of ATTACK_COLUMNS and OUTCOME_COLUMNS of the pool, counting the outcomes of `accepted` defenders.

    Repeated rows count once; outcomes of attacks that are not in the pool count nowhere. Raises CorruptError when two
    different outcomes bear one event id.
    """
    attacks = unique_attacks(attacks)
    events = _counted(outcomes, accepted)
    row = pc.index_in(events["attack_id"], value_set=whole(attacks["attack_id"]))
    events, where = events.filter(pc.is_valid(row)), pc.drop_null(row).to_numpy().astype(np.intp)
    harmful = _numpy(pc.equal(attacks["label"], "harmful"))
    answers, size = _numpy(events["answers"]), attacks.num_rows
    failed = np.where(harmful[where], _numpy(events["unsafe"]), _numpy(events["refused"]))
    last_round = np.full(size, -1, dtype=np.int64)
    np.maximum.at(last_round, where, _numpy(events["round"]))
    return PoolState(
        ids=np.array(attacks["attack_id"].to_pylist(), dtype="S32"),
        harmful=harmful,
        origin_round=_numpy(attacks["origin_round"]),
        visits=_sums(where, np.ones(len(where)), size).astype(np.int64),
        answers=_sums(where, answers, size).astype(np.int64),
        failures=_sums(where, failed, size).astype(np.int64),
        reward_sum=_sums(where, np.rint(_numpy(events["defender_reward"]) * answers * _UNIT), size) / _UNIT,
        last_round=last_round,
    )


def unique_attacks(attacks: pa.Table) -> pa.Table:
    """One row an attack id, sorted by it. Of racing writers' rows the one of the earliest origin stands for all."""
    order = [name for name in ORIGIN_COLUMNS if name in attacks.column_names]
    ordered = attacks.sort_by([(name, "ascending") for name in order]).combine_chunks()
    ids = ordered["attack_id"].to_numpy()
    first = np.ones(len(ids), dtype=np.bool_)
    first[1:] = ids[1:] != ids[:-1]
    return ordered.filter(pa.array(first))


def unique_events(outcomes: pa.Table) -> pa.Table:
    """One row an event id. Raises CorruptError when rows of one id differ."""
    rows = outcomes.group_by(outcomes.column_names).aggregate([])
    if pc.count_distinct(rows["event_id"]).as_py() != rows.num_rows:
        counts = rows["event_id"].value_counts().to_pylist()
        twice = min(entry["values"] for entry in counts if entry["counts"] > 1)
        one, other = rows.filter(pc.equal(rows["event_id"], twice)).slice(0, 2).to_pylist()
        name = next(key for key in one if one[key] != other[key])
        raise CorruptError(f"outcome {twice} stands in the pool with `{name}` {one[name]!r} and {other[name]!r}")
    return rows


def _counted(outcomes: pa.Table, accepted: AbstractSet[str]) -> pa.Table:
    ours = pc.is_in(outcomes["defender"], value_set=pa.array(sorted(accepted), pa.string()))
    return unique_events(outcomes.filter(pc.and_(ours, pc.equal(outcomes["status"], "ok"))))


def _sums(where: Rows, values: npt.NDArray[Any], size: int) -> Floats:
    """Sums by attack; exact, since whole numbers in float64 are, up to 2⁵³."""
    return np.bincount(where, weights=values, minlength=size).astype(np.float64)


def _numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = column.to_numpy()
    return array


def whole(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array, also when it has no rows."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
