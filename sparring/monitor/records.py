"""The parts of a line's records that the exporter reads. The records belong to others: what is not named is left alone.

Read with small models instead of the steps' own, which bring numpy and pyarrow: the exporter is a small process.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice, pairwise
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, field_validator

from sparring.config.cron import parse_cron

_BEGIN: Final = datetime(2024, 1, 1)  # any day: a period is a property of the schedule
_TIMES: Final = 60


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Claim(_Read):
    """`rounds/<n>/claim.json`: when a round began, and its run file's digest."""

    config_digest: str
    claimed_at: AwareDatetime


class Rate(_Read):
    """A share in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float


class Numbers(_Read):
    """`report/metrics.json`: `rates` by measure (`asr.vanilla` …) and role, and plain `values` (`pool.attacks` …)."""

    round: int
    rates: dict[str, dict[str, Rate]]
    values: dict[str, float]

    @property
    def over_refusal(self) -> float | None:
        """The candidate's share of refused harmless prompts, over all of them; None when it was not measured."""
        names = sorted(name for name in self.rates if name.startswith("over_refusal."))
        whole = "over_refusal.pooled" if "over_refusal.pooled" in names else names[0] if len(names) == 1 else ""
        rate = self.rates.get(whole, {}).get("candidate")
        return rate.value if rate else None


class Judged(_Read):
    """`judge/result.json`: verdicts, those without a usable judgement, and what endpoints cost (`name what`)."""

    rows: int
    void: int
    usage: dict[str, float] = {}


class Trained(_Read):
    """`selfplay/result.json`."""

    trained_tokens: int


class Look(_Read):
    """`gate/looks/<n>.json`: the α that a look at this champion's rival paid."""

    champion: str | None
    alpha: float


class _Policy(_Read):
    name: str
    alpha: float


class Gated(_Read):
    """`gate/decision.json`: the policy that decided."""

    policy: _Policy


class _Attempt(_Read):
    time: AwareDatetime
    ok: bool


class Delivery(_Read):
    """`hooks/<name>/<record>.json`: what became of one event at one hook."""

    state: Literal["delivered", "failing", "given_up", "passed_over"]
    attempts: tuple[_Attempt, ...]


class _Cluster(_Read):
    schedule: str | None = None

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        if schedule is not None:
            parse_cron(schedule)
        return schedule


class RunFile(_Read):
    """`configs/<digest>.json`: how often rounds are meant to begin."""

    cluster: _Cluster = _Cluster()

    @property
    def period(self) -> float | None:
        """The longest pause between two of the schedule's next times, in seconds; None without a schedule."""
        if self.cluster.schedule is None:
            return None
        times = islice(parse_cron(self.cluster.schedule).fires(_BEGIN), _TIMES)
        return max((b - a).total_seconds() for a, b in pairwise(times))
