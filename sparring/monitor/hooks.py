"""What became of a line's hooks: `hooks/<name>/<record>.json`, listed at every look, read when they are new."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sparring.monitor.records import Delivery
from sparring.store.base import Store

STATES: Final = ("delivered", "failing", "given_up", "passed_over")
_RECORD: Final = re.compile(r"hooks/[^/]+/\d{6,}\.json")

Load = Callable[[str], Delivery | None]


@dataclass(frozen=True)
class HookFacts:
    """One hook: events by how they stand, failed attempts in all, how the newest event stands, and when one was last
    delivered (seconds since 1970; None: never).
    """

    states: Counter[str]
    failures: int
    newest: str
    delivered: float | None


@dataclass(frozen=True)
class _Known:
    written: float
    state: str
    failures: int
    delivered: float | None


class HookReader:
    """Reads deliveries again and again; `load` gives the one at a key, None for a broken one."""

    def __init__(self, store: Store, load: Load) -> None:
        self._store, self._load = store, load
        self._known: dict[str, _Known] = {}

    def read(self) -> dict[str, HookFacts]:
        """By name; hooks that never were due anything are left out. Raises StoreError."""
        found = {name: self._hook(name) for name in self._store.folders("hooks")}
        return {name: facts for name, facts in found.items() if facts}

    def _hook(self, name: str) -> HookFacts | None:
        known = [
            self._delivery(e.key, e.written) for e in self._store.entries(f"hooks/{name}/") if _RECORD.match(e.key)
        ]
        good = [each for each in known if each]
        if not good:
            return None
        times = [each.delivered for each in good if each.delivered is not None]
        return HookFacts(
            states=Counter(each.state for each in good),
            failures=sum(each.failures for each in good),
            newest=good[-1].state,
            delivered=max(times, default=None),
        )

    def _delivery(self, key: str, written: float) -> _Known | None:
        """A settled one never changes; S3 counts whole seconds, so that another one is read at every look."""
        known = self._known.get(key)
        if known and known.written == written and known.state != "failing":
            return known
        found = self._load(key)
        if found is None:
            return None
        times = [attempt.time.timestamp() for attempt in found.attempts if attempt.ok]
        failures = sum(not attempt.ok for attempt in found.attempts)
        self._known[key] = _Known(written, found.state, failures, times[-1] if times else None)
        return self._known[key]
