"""A round in numbers: `rounds/<n>/report/metrics.json`, for dashboards and for the next rounds' history charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from sparring.monitor.ledger import LedgerEntry
from sparring.report.learning import Curves
from sparring.report.measures import Measure, Rate
from sparring.report.pool import PoolStats

CURVES = (
    *("loss", "kl", "entropy", "grad_norm", "void", "attacker_reward", "defender_reward"),
    *("refused_harmful", "refused_benign", "faithful", "degenerate", "informative"),
)


class RoundMetrics(BaseModel):
    """All numbers of one round.

    `outcome` is the gate's, or empty when the round has none. `rates` are by measure (`asr.macro`, `over_refusal.plain`
    …) and role. `values` are plain numbers: `train.*` (last training step), `games.*`, `pool.*`, `seconds.<step>`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    schema_version: Literal[1] = 1
    round: int
    outcome: str
    first_run: bool
    rates: dict[str, dict[str, Rate]]
    values: dict[str, float]

    def rate(self, key: str, role: str) -> Rate | None:
        """The rate of one model, None where the round has none."""
        return self.rates.get(key, {}).get(role)


def derive(
    *,
    number: int,
    outcome: str,
    first_run: bool,
    measures: Mapping[str, Sequence[Measure]],
    curves: Curves | None = None,
    games: pa.Table | None = None,
    pool: PoolStats | None = None,
    steps: Mapping[str, LedgerEntry] | None = None,
) -> RoundMetrics:
    """The numbers of what there is; nothing is made up for what is missing."""
    rates: dict[str, dict[str, Rate]] = {}
    for role, found in measures.items():
        for measure in found:
            rates.setdefault(measure.key, {})[role] = measure.rate
    values = {**_train(curves), **_games(games), **_pool(pool)}
    values |= {f"seconds.{step}": entry.seconds for step, entry in (steps or {}).items()}
    return RoundMetrics(round=number, outcome=outcome, first_run=first_run, rates=rates, values=values)


def _train(curves: Curves | None) -> dict[str, float]:
    """The last value of each curve."""
    if curves is None:
        return {}
    found = {key: [value for value in curves.values(key) if value is not None] for key in CURVES}
    return {"train.steps": float(len(curves.steps))} | {f"train.{key}": last[-1] for key, last in found.items() if last}


def _games(games: pa.Table | None) -> dict[str, float]:
    if games is None or games.num_rows == 0:
        return {}
    void = int(pc.sum(pc.not_equal(games["reason"], "")).as_py())
    return {"games.count": float(games.num_rows), "games.void_share": void / games.num_rows}


def _pool(pool: PoolStats | None) -> dict[str, float]:
    if pool is None:
        return {}
    counts = {"attacks": float(pool.attacks), "outcomes": float(pool.outcomes), **pool.values}
    return {f"pool.{name}": value for name, value in counts.items()}
