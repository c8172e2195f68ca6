"""Everything that a round left behind, as far as it got, and the order of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import pyarrow as pa

from sparring.config.run import RunConfig
from sparring.evaluate.crossplay import CrossPlay
from sparring.evaluate.degeneration import Texts
from sparring.gate.outcome import Decision
from sparring.gate.policy import Policy
from sparring.monitor.ledger import LedgerEntry
from sparring.registry.champion import ChampionLog, Record
from sparring.report.attacked import Curve
from sparring.report.learning import Curves
from sparring.report.measures import Measure
from sparring.report.metrics import RoundMetrics
from sparring.report.pool import PoolStats

Role = Literal["candidate", "champion", "reference"]
ROLES: tuple[Role, ...] = get_args(Role)
STEPS = ("prepare", "selfplay", "update_pool", "answer", "judge", "gate", "promote", "hold")
"""In the order of the work; of the last two a round has one."""


@dataclass(frozen=True)
class Facts:
    """One round. What it did not get to is None or empty; `problems` says what is there but could not be read.

    - `models`: digests by role; `champion` is the base model while the line has no champion (`first_run`).
    - `measures`: rates by role; `categories`: categories of prompts and seeds by id.
    - `attacked`: by role, what the adaptive evaluation found; `texts`: by role, the answers' looks by kind/slice.
    - `provenance`: further names and values for the list at the page's end, in order.
    - `crossplay`: the latest matrix of past attackers and defenders; `past`: earlier rounds, oldest first.
    """

    round: int
    line: str = ""
    claimed: str = ""
    config: RunConfig | None = None
    first_run: bool = False
    models: Mapping[Role, str] = field(default_factory=dict)
    decision: Decision | None = None
    policy: Policy | None = None
    measures: Mapping[Role, Sequence[Measure]] = field(default_factory=dict)
    verdicts: Mapping[Role, pa.Table] = field(default_factory=dict)
    attacked: Mapping[Role, Sequence[Curve]] = field(default_factory=dict)
    texts: Mapping[Role, Mapping[str, Texts]] = field(default_factory=dict)
    answers: pa.Table | None = None
    games: pa.Table | None = None
    curves: Curves | None = None
    pool: PoolStats | None = None
    crossplay: CrossPlay | None = None
    log: ChampionLog | None = None
    ledger: Mapping[str, LedgerEntry] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    past: Sequence[RoundMetrics] = ()
    problems: Sequence[str] = ()

    @property
    def record(self) -> Record | None:
        """What became of the round in the champion log, last word last: promotion, hold, or an override of a hold."""
        records = self.log.records if self.log else ()
        mine = [each for each in records if each.round == self.round and each.kind in ("promotion", "hold", "override")]
        return mine[-1] if mine else None

    @property
    def failed(self) -> Mapping[str, LedgerEntry]:
        """Steps whose last attempt failed or was killed, in the order of the work."""
        return {step: entry for step, entry in self.steps.items() if entry.status != "ok"}

    @property
    def steps(self) -> Mapping[str, LedgerEntry]:
        """The ledger's entries in the order of the work, without this page's own."""
        known = [step for step in STEPS if step in self.ledger]
        others = sorted(step for step in self.ledger if step not in STEPS and step != "report")
        return {step: self.ledger[step] for step in [*known, *others]}

    @property
    def models_differ(self) -> bool:
        """Whether the reference is another model than the champion, so that it is worth a line of its own."""
        return "reference" in self.models and self.models["reference"] != self.models.get("champion")

    def rates(self, key: str) -> Mapping[Role, Measure]:
        """One measure by role, e.g. of `asr.macro`."""
        found = {role: [each for each in self.measures.get(role, ()) if each.key == key] for role in ROLES}
        return {role: each[0] for role, each in found.items() if each}
