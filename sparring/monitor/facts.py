"""What the exporter knows of a model line, read from its durable records little by little.

    rounds before the last one ─► read once, folded into totals
    the last round             ─► read at every look
    champion log               ─► read when it has grown, verified whole now and then

A line of a thousand rounds costs a look some twenty objects. Nothing here needs numpy or pyarrow.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from sparring.config.cluster import STEP_NAMES
from sparring.errors import CorruptError, NotFoundError
from sparring.monitor import ledger
from sparring.monitor.hooks import HookFacts, HookReader
from sparring.monitor.ledger import LedgerEntry
from sparring.monitor.records import Claim, Delivery, Gated, Judged, Look, Numbers, RunFile, Trained
from sparring.monitor.reign import LogReader, Reign
from sparring.registry import lease, rounds
from sparring.store.base import Store

log = logging.getLogger(__name__)

COUNTED: Final = ("requests", "failed", "tokens_in", "tokens_out", "cost")
"""What a judge's endpoint did that adds up over rounds."""
SILENCE_SECONDS: Final = 2 * lease.PATIENCE
"""A step that began, did not end and whose lease stands still for so long was killed."""
_MEASURED_ROUNDS: Final = 16
"""Rounds whose over-refusal is kept, to see it rise."""

_P95: Final = " p95_s"

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class RoundFacts:
    """One round. `decision` is None while it is open; `status` names how each step stands: `ok`, `failed`, `running`,
    or `killed`: begun, not ended, and silent. `alpha` is what its look paid, by champion; `tokens` were trained.
    """

    number: int
    decision: str | None
    steps: dict[str, LedgerEntry]
    status: dict[str, str]
    judged: Judged | None = None
    tokens: int = 0
    look: Look | None = None

    @property
    def speed(self) -> float | None:
        """Tokens trained on by second of the step; None for a round that trained nothing."""
        played = self.steps.get("selfplay")
        return self.tokens / played.seconds if played and played.seconds and self.tokens else None


@dataclass
class Totals:
    """Sums over rounds. `attempts` counts those at steps by (step, status), `judges` what endpoints did by (judge,
    what), `alpha` what looks paid by champion.
    """

    decisions: Counter[str] = field(default_factory=Counter)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    judges: dict[tuple[str, str], float] = field(default_factory=dict)
    alpha: dict[str | None, float] = field(default_factory=dict)
    tokens: int = 0

    def add(self, found: RoundFacts) -> None:
        """Adds one round. An attempt that still runs is not counted: a counter never goes back."""
        if found.decision:
            self.decisions[found.decision] += 1
        for step, entry in found.steps.items():
            self.attempts.update((step, str(attempt.status)) for attempt in entry.attempts[:-1])
            if found.status[step] != "running":
                self.attempts[step, found.status[step]] += 1
        for key, value in (found.judged.usage if found.judged else {}).items():
            judge, _, what = key.partition(" ")
            if what in COUNTED:
                self.judges[judge, what] = self.judges.get((judge, what), 0.0) + value
        if found.look:
            self.alpha[found.look.champion] = self.alpha.get(found.look.champion, 0.0) + found.look.alpha
        self.tokens += found.tokens

    def copy(self) -> Totals:
        """An independent copy."""
        return Totals(Counter(self.decisions), Counter(self.attempts), dict(self.judges), dict(self.alpha), self.tokens)


@dataclass(frozen=True)
class LineFacts:
    """A line at one look. `last` is the last round begun, `measured` the numbers of the last one that has a report,
    `judged` the last one's that was judged.

    - `reign`: None when the champion log is broken.
    - `policy_alpha`: what the policy that decided last may spend on one champion.
    - `begun`, `claimed`: when the first and the last round were claimed.
    - `period`: seconds between two rounds at most, by the schedule of the last round's run file.
    - `rises`: measured rounds in a row, up to the last, in each of which the candidate refused more of the harmless
      prompts than the one before.
    - `speed`: tokens by second of the last round that trained; `latency`: 95th percentile of each judge's replies in
      the last round that asked it, in seconds.
    - `unreadable`: records that could not be read.
    """

    line: str
    totals: Totals
    last: RoundFacts | None
    measured: Numbers | None
    judged: Judged | None
    reign: Reign | None
    policy_alpha: float | None = None
    begun: datetime | None = None
    claimed: datetime | None = None
    period: float | None = None
    rises: int = 0
    speed: float | None = None
    latency: Mapping[str, float] = field(default_factory=dict)
    unreadable: int = 0
    hooks: Mapping[str, HookFacts] = field(default_factory=dict)

    @property
    def alpha_spent(self) -> float:
        """α that looks at the present champion's rivals paid."""
        return self.totals.alpha.get(self.reign.champion, 0.0) if self.reign else 0.0


class LineReader:
    """Reads one line again and again. `clock` is a monotonic one, in seconds."""

    def __init__(self, store: Store, line: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.store, self.line, self._clock = store, line, clock
        self._totals, self._folded = Totals(), 0
        self._measured: Numbers | None = None
        self._judged: Judged | None = None
        self._speed: float | None = None
        self._latency: dict[str, float] = {}
        self._refusals: deque[tuple[int, float]] = deque(maxlen=_MEASURED_ROUNDS)
        self._log = LogReader(store, clock)
        self._hooks = HookReader(store, lambda key: self._load(key, Delivery))
        self._policy_alpha: float | None = None
        self._begun: datetime | None = None
        self._run_files: dict[str, RunFile | None] = {}
        self._beats: dict[tuple[int, str], tuple[object, float]] = {}
        self._unreadable: set[str] = set()
        self._told: dict[str, str] = {}

    def read(self) -> LineFacts:
        """The line as it is now. A record that is broken is told in the log once, counted, and left out.

        Raises StoreError when the store does not answer.
        """
        number = self._folded
        while self.store.exists(f"rounds/{number + 1:06d}/claim.json"):
            number += 1
        while self._folded < number - 1:
            self._fold(self._folded + 1, number)
        last = self._round(number) if number else None
        totals = self._totals.copy()
        if last is not None:
            totals.add(last)
            self._look_at(number)
            self._keep(last)
        claim = self._load(f"rounds/{number:06d}/claim.json", Claim) if number else None
        run_file = self._run_file(claim.config_digest) if claim else None
        return LineFacts(
            line=self.line,
            totals=totals,
            last=last,
            measured=self._measured,
            judged=self._judged,
            reign=self._tried("champion/log/", self._log.read),
            policy_alpha=self._policy_alpha,
            begun=self._first_claim() if number else None,
            claimed=claim.claimed_at if claim else None,
            period=run_file.period if run_file else None,
            rises=self._rises(),
            speed=self._speed,
            latency=dict(self._latency),
            hooks=self._read_hooks(),
            unreadable=len(self._unreadable),
        )

    def _fold(self, number: int, last: int) -> None:
        """Adds a round that another one has followed: it never changes again."""
        found = self._round(number, over=True)
        if number >= last - _MEASURED_ROUNDS:
            self._look_at(number)
        self._keep(found)
        self._totals.add(found)  # behind everything that the store may refuse: it is added once
        self._beats = {key: beat for key, beat in self._beats.items() if key[0] > number}
        self._folded = number

    def _keep(self, found: RoundFacts) -> None:
        """What stands until a later round says it anew."""
        self._judged = found.judged or self._judged
        self._speed = found.speed or self._speed
        usage = found.judged.usage if found.judged else {}
        self._latency |= {key.removesuffix(_P95): value for key, value in usage.items() if key.endswith(_P95)}

    def _look_at(self, number: int) -> None:
        """Takes over what the latest round says that has it: its numbers, its policy."""
        numbers = self._load(f"rounds/{number:06d}/report/metrics.json", Numbers)
        self._measured = numbers or self._measured
        if numbers and (refused := numbers.over_refusal) is not None:
            if self._refusals and self._refusals[-1][0] == number:
                self._refusals.pop()
            self._refusals.append((number, refused))
        gated = self._load(f"rounds/{number:06d}/gate/decision.json", Gated)
        self._policy_alpha = gated.policy.alpha if gated else self._policy_alpha

    def _round(self, number: int, *, over: bool = False) -> RoundFacts:
        folder = f"rounds/{number:06d}"
        end = self._load(f"{folder}/end.json", rounds.End)
        entries = self._tried(f"ledger/{number:06d}/", lambda: ledger.read(self.store, number)) or {}
        steps: dict[str, LedgerEntry] = {step: entries[step] for step in STEP_NAMES if step in entries}
        trained = self._load(f"{folder}/selfplay/result.json", Trained)
        return RoundFacts(
            number=number,
            decision=end.decision if end else None,
            steps=steps,
            status={step: self._status(number, step, entry, over) for step, entry in steps.items()},
            judged=self._load(f"{folder}/judge/result.json", Judged),
            tokens=trained.trained_tokens if trained else 0,
            look=self._load(f"gate/looks/{number:06d}.json", Look),
        )

    def _status(self, number: int, step: str, entry: LedgerEntry, over: bool) -> str:
        """A step without an end in the ledger may have left its result just before it was killed."""
        if entry.status != "killed":
            return entry.status
        if self.store.exists(f"rounds/{number:06d}/{step}/result.json"):
            return "ok"
        return "running" if not over and self._beats_on(number, step) else "killed"

    def _beats_on(self, number: int, step: str) -> bool:
        """Whether the step's lease moved since the look before, or lately; a new one is given the time to. A report
        has none, and as long.
        """
        where = f"ledger/{number:06d}/{step}.leases/"
        beat = self._tried(where, lambda: lease.last_beat(self.store, number, step))
        if beat is None and step == "report":
            _, since = self._beats.setdefault((number, step), (None, self._clock()))
            return self._clock() - since < SILENCE_SECONDS
        if beat is None or beat.released:
            return False
        known, since = self._beats.get((number, step), (None, 0.0))
        if beat != known:
            self._beats[number, step] = (beat, self._clock())
            return True
        return self._clock() - since < SILENCE_SECONDS

    def _first_claim(self) -> datetime | None:
        if self._begun is None:
            claim = self._load(f"rounds/{1:06d}/claim.json", Claim)
            self._begun = claim.claimed_at if claim else None
        return self._begun

    def _run_file(self, digest: str) -> RunFile | None:
        if digest not in self._run_files:
            self._run_files = {digest: self._load(f"configs/{digest}.json", RunFile)}
        return self._run_files[digest]

    def _read_hooks(self) -> dict[str, HookFacts]:
        for key in [key for key in self._unreadable if key.startswith("hooks/")]:
            self._unreadable.discard(key)  # they are listed anew: one that is gone is not broken any more
        return self._hooks.read()

    def _rises(self) -> int:
        count = 0
        for (_, before), (_, after) in pairwise(self._refusals):
            count = count + 1 if after > before else 0
        return count

    def _load(self, key: str, cls: type[M]) -> M | None:
        return self._tried(key, lambda: _parsed(self.store, key, cls))

    def _tried(self, where: str, read: Callable[[], T]) -> T | None:
        """What `read` gives; None when it is not there, or broken, which is counted and told once."""
        try:
            found = read()
        except NotFoundError:
            found = None
        except CorruptError as error:
            if self._told.get(where) != error.message:
                log.warning("line %s: %s", self.line, error)
            self._told[where] = error.message
            self._unreadable.add(where)
            return None
        self._unreadable.discard(where)
        self._told.pop(where, None)
        return found


def _parsed(store: Store, key: str, cls: type[M]) -> M:
    try:
        return cls.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"{key!r} in {store.url} cannot be read: {where}: {fault['msg']}") from error
