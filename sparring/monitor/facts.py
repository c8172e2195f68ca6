"""What the exporter knows of a model line, read from its durable records little by little.

    rounds before the last one ─► read once, folded into totals
    the last round             ─► read at every look
    champion log               ─► read when it has grown, verified whole now and then

A line of a thousand rounds costs a look some ten objects. Nothing here needs numpy or pyarrow: the exporter is small.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sparring.errors import CorruptError, NotFoundError
from sparring.monitor import ledger
from sparring.monitor.ledger import LedgerEntry
from sparring.registry import lease, rounds
from sparring.registry.champion import ChampionLog, read_log
from sparring.store.base import Store

log = logging.getLogger(__name__)

DECISIONS: Final = ("PROMOTE", "REJECT", "INCONCLUSIVE", "INVALID")
VERIFY_SECONDS: Final = 600.0
"""So often the champion log is verified from its first record, grown or not."""
SILENCE_SECONDS: Final = 2 * lease.PATIENCE
"""A step that began, did not end and whose lease stands still for so long was killed."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class _Read(BaseModel):
    """Part of a record that others write: what is not named here is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Rate(_Read):
    """A share in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float


class Numbers(_Read):
    """`report/metrics.json`: `rates` by measure (`asr.vanilla` …) and role, and plain `values` (`pool.attacks` …)."""

    round: int
    rates: dict[str, dict[str, Rate]] = {}
    values: dict[str, float] = {}


class Judged(_Read):
    """`judge/result.json`: verdicts, those without a usable judgement, and what endpoints cost (`name what`)."""

    rows: int
    void: int
    usage: dict[str, float] = {}


class _Trained(_Read):
    trained_tokens: int


class _Look(_Read):
    champion: str | None
    spent: float
    alpha: float


class _Policy(_Read):
    name: str
    alpha: float


class Gated(_Read):
    """`gate/decision.json`: the look that was paid for, and under which policy."""

    policy: _Policy
    look: _Look | None


@dataclass
class Totals:
    """Sums over rounds. `steps` counts attempts by (step, status), `judges` what endpoints did by (judge, what)."""

    decisions: Counter[str] = field(default_factory=Counter)
    steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    judges: dict[tuple[str, str], float] = field(default_factory=dict)
    tokens: int = 0

    def add(self, found: RoundFacts) -> None:
        """Adds one round."""
        if found.decision:
            self.decisions[found.decision] += 1
        for entry in found.steps.values():
            self.steps.update((entry.step, str(attempt.status)) for attempt in entry.attempts[:-1])
            self.steps[entry.step, found.status(entry)] += 1
        for key, value in (found.judged.usage if found.judged else {}).items():
            judge, _, what = key.partition(" ")
            if what in ("requests", "failed", "tokens_in", "tokens_out", "cost"):
                self.judges[judge, what] = self.judges.get((judge, what), 0.0) + value
        self.tokens += found.tokens

    def copy(self) -> Totals:
        """An independent copy."""
        return Totals(Counter(self.decisions), Counter(self.steps), dict(self.judges), self.tokens)


@dataclass(frozen=True)
class RoundFacts:
    """One round. `decision` is None while it is open; `running` names the steps at work now; `tokens` were trained."""

    number: int
    claimed: datetime | None
    decision: str | None
    steps: dict[str, LedgerEntry]
    running: frozenset[str] = frozenset()
    judged: Judged | None = None
    numbers: Numbers | None = None
    tokens: int = 0

    def status(self, entry: LedgerEntry) -> str:
        """`ok`, `failed`, `running`, or `killed`: begun, not ended, and silent."""
        return "running" if entry.step in self.running else entry.status


@dataclass(frozen=True)
class LineFacts:
    """A line at one look. `last` is the last round begun, `measured` the last one whose report left numbers.

    `alpha` is (spent at the present champion, all that its policy has); `success` is when a round last ended with a
    decision that is not INVALID. `log` is None when the champion log is broken; `errors` counts what could not be read.
    """

    line: str
    totals: Totals
    last: RoundFacts | None
    measured: Numbers | None
    log: ChampionLog | None
    alpha: tuple[float, float] | None
    success: datetime | None
    errors: int


class LineReader:
    """Reads one line again and again. `clock` is a monotonic one, in seconds."""

    def __init__(self, store: Store, line: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.store, self.line, self._clock = store, line, clock
        self._totals, self._folded = Totals(), 0
        self._measured: Numbers | None = None
        self._log: ChampionLog | None = None
        self._verified = -VERIFY_SECONDS
        self._gated: Gated | None = None
        self._beats: dict[tuple[int, str], tuple[object, float]] = {}
        self.errors = 0

    def read(self) -> LineFacts:
        """The line as it is now. What cannot be read is told in the log, counted, and left as it was.

        Raises StoreError when the store does not answer.
        """
        number = self._last_round()
        while self._folded < number - 1:
            self._fold(self._round(self._folded + 1))
            self._folded += 1
        last = self._round(number) if number else None
        totals = self._totals.copy()
        if last is not None:
            totals.add(last)
            self._look_at(last)
        found = self._champions()
        return LineFacts(
            line=self.line,
            totals=totals,
            last=last,
            measured=self._measured,
            log=found,
            alpha=self._alpha(found),
            success=_success(found),
            errors=self.errors,
        )

    def _last_round(self) -> int:
        """Rounds follow one another, so that after the first look only the next claim is asked for."""
        if self._folded == 0:
            return rounds.last_round(self.store)
        number = self._folded + 1
        while self.store.exists(f"rounds/{number + 1:06d}/claim.json"):
            number += 1
        return number

    def _fold(self, found: RoundFacts) -> None:
        self._totals.add(found)
        self._look_at(found)
        self._beats = {key: beat for key, beat in self._beats.items() if key[0] > found.number}

    def _look_at(self, found: RoundFacts) -> None:
        self._measured = found.numbers or self._measured
        self._gated = self._load(f"rounds/{found.number:06d}/gate/decision.json", Gated) or self._gated

    def _round(self, number: int) -> RoundFacts:
        folder = f"rounds/{number:06d}"
        end, claim = self._load(f"{folder}/end.json", rounds.End), self._json(f"{folder}/claim.json")
        steps: dict[str, LedgerEntry] = self._tried(lambda: ledger.read(self.store, number)) or {}
        trained = self._load(f"{folder}/selfplay/result.json", _Trained)
        return RoundFacts(
            number=number,
            claimed=datetime.fromisoformat(str(claim["claimed_at"])) if "claimed_at" in claim else None,
            decision=end.decision if end else None,
            steps=steps,
            running=frozenset(s for s, e in steps.items() if e.status == "killed" and self._beats_on(number, s)),
            judged=self._load(f"{folder}/judge/result.json", Judged),
            numbers=self._load(f"{folder}/report/metrics.json", Numbers),
            tokens=trained.trained_tokens if trained else 0,
        )

    def _beats_on(self, number: int, step: str) -> bool:
        """Whether the step's lease moved since the look before, or lately; a new one is given the time to."""
        beat = self._tried(lambda: lease.last_beat(self.store, number, step))
        if beat is None or beat.released:
            return False
        known, since = self._beats.get((number, step), (None, 0.0))
        if beat != known:
            self._beats[number, step] = (beat, self._clock())
            return True
        return self._clock() - since < SILENCE_SECONDS

    def _champions(self) -> ChampionLog | None:
        """The verified log; None when it is broken."""
        grown = self._log is None or self.store.exists(f"champion/log/{self._log.head + 1:06d}.json")
        if not grown and self._clock() - self._verified < VERIFY_SECONDS:
            return self._log
        self._log = self._tried(lambda: read_log(self.store))
        self._verified = self._clock()
        return self._log

    def _alpha(self, found: ChampionLog | None) -> tuple[float, float] | None:
        """A new champion begins with nothing spent."""
        if self._gated is None or found is None:
            return None
        look = self._gated.look
        spent = look.spent + look.alpha if look and look.champion == found.champion else 0.0
        return spent, self._gated.policy.alpha

    def _load(self, key: str, cls: type[M]) -> M | None:
        return self._tried(lambda: _parsed(self.store, key, cls))

    def _json(self, key: str) -> dict[str, object]:
        found = self._tried(lambda: _object(self.store, key))
        return found or {}

    def _tried(self, read: Callable[[], T]) -> T | None:
        """What `read` gives; None when it is not there, or broken, which is told and counted."""
        try:
            return read()
        except NotFoundError:
            return None
        except CorruptError as error:
            self.errors += 1
            log.warning("line %s: %s", self.line, error)
            return None


def _parsed(store: Store, key: str, cls: type[M]) -> M:
    try:
        return cls.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"{key!r} in {store.url} cannot be read: {where}: {fault['msg']}") from error


def _object(store: Store, key: str) -> dict[str, object]:
    try:
        found = json.loads(store.get(key))
    except ValueError as error:
        raise CorruptError(f"{key!r} in {store.url} is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _success(found: ChampionLog | None) -> datetime | None:
    """When a round last left a decision in the champion log that is not INVALID."""
    records = reversed(found.records) if found else ()
    return next((r.time for r in records if r.round and r.decision in DECISIONS and r.decision != "INVALID"), None)
