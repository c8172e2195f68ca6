"""What the champion log says, followed record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sparring.errors import CorruptError
from sparring.registry.champion import FIRST_PREVIOUS, Chain, Record
from sparring.store.base import Store

DECISIONS: Final = ("PROMOTE", "REJECT", "INCONCLUSIVE", "INVALID")
VERIFY_SECONDS: Final = 600.0
"""So often the champion log is verified from its first record, grown or not."""


@dataclass(frozen=True)
class Reign:
    """What the champion log says. `kinds` counts its records by kind; `since` is when the champion became it.

    `decision` is that of the round that ended last (an approval or override of it stands for it), `success` when a
    round last left one that is not INVALID.
    """

    kinds: Mapping[str, int]
    champion: str | None
    champion_round: int | None
    reference: str | None
    since: datetime | None
    decision: str | None
    success: datetime | None


class LogReader:
    """Follows the champion log; from its first record again now and then, for a record may have been edited.

    Having seen it, this notices what the chain itself cannot show: a log that lost its last records, or was forged.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._seen = (0, FIRST_PREVIOUS)
        self._begin()

    def _begin(self) -> None:
        self._chain, self._kinds = Chain(), Counter[str]()
        self._since: datetime | None = None
        self._decision: str | None = None
        self._success: datetime | None = None
        self._verified = self._clock()
        self._whole = False

    def read(self) -> Reign:
        """The log as it is now. Raises CorruptError naming the first broken link; the next read begins anew."""
        grown = self._store.exists(f"champion/log/{self._chain.head + 1:06d}.json")
        if not self._whole or self._clock() - self._verified >= VERIFY_SECONDS:
            self._begin()
        elif not grown:
            return self._reign()
        self._whole = False
        before = self._chain.champion
        for record in self._chain.follow(self._store):
            self._take(record, before)
            before = self._chain.champion
            if record.number == self._seen[0]:
                self._compare(self._chain.head_sha256)
        if self._chain.head < self._seen[0]:
            self._compare("gone")
        self._seen = (self._chain.head, self._chain.head_sha256)
        self._whole = True
        return self._reign()

    def _compare(self, now: str) -> None:
        number, then = self._seen
        if now != then:
            where = f"champion log in {self._store.url}: record {number}"
            raise CorruptError(f"{where} had hash {then} when it was first read, now it is {now}")

    def _take(self, record: Record, before: str | None) -> None:
        self._kinds[record.kind] += 1
        if record.champion != before:
            self._since = record.time
        if record.round and record.decision:
            self._decision = record.decision
            if record.decision in DECISIONS and record.decision != "INVALID":
                self._success = record.time

    def _reign(self) -> Reign:
        chain = self._chain
        champion_round = chain.crowned.get(chain.champion) if chain.champion else None
        return Reign(
            dict(self._kinds), chain.champion, champion_round, chain.reference, self._since, self._decision,
            self._success,
        )  # fmt: skip
