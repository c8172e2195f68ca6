"""What a Kubeflow run came to, by our own records: the ledger knows which run each attempt at a step belonged to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.backend import Run
from sparring.monitor import ledger
from sparring.monitor.ledger import Attempt
from sparring.registry import rounds
from sparring.registry.rounds import End
from sparring.store.base import Store

_ROUNDS_BACK: Final = 20
"""Newest rounds looked through for a run."""


@dataclass(frozen=True)
class Outcome:
    """The round that a run worked on, its last attempt at each step in the order of their starts, the round's end.

    `over`: nothing of the run goes on, so that an attempt without an end was killed.
    """

    round: int
    attempts: tuple[tuple[str, Attempt], ...]
    end: End | None
    over: bool

    @property
    def failed(self) -> tuple[str, Attempt] | None:
        """The first step of this run that did not end well."""
        bad = ("failed", "killed") if self.over else ("failed",)
        return next(((step, attempt) for step, attempt in self.attempts if attempt.status in bad), None)

    @property
    def decided(self) -> bool:
        """Whether this run played the step that closed the round."""
        return self.end is not None and any(step in ("promote", "hold") for step, _ in self.attempts)

    def __str__(self) -> str:
        if self.decided and self.end:
            return f"round {self.round}: {self.end.decision}"
        if self.failed:
            step, attempt = self.failed
            return f"round {self.round}: {step} {attempt.status}"
        return f"round {self.round}: at {self.attempts[-1][0]}"


def of_run(store: Store, run: Run) -> Outcome | None:
    """The outcome of a run; None when no step of it has written anything."""
    last = rounds.last_round(store)
    for number in range(last, max(0, last - _ROUNDS_BACK), -1):
        found = _attempts(store, number, run.id)
        if found:
            return Outcome(number, found, rounds.load_end(store, number), run.ended)
    return None


def _attempts(store: Store, number: int, run_id: str) -> tuple[tuple[str, Attempt], ...]:
    entries = ledger.read(store, number).items()
    own = [(step, attempt) for step, entry in entries for attempt in entry.attempts if attempt.run == run_id]
    latest = dict(sorted(own, key=lambda pair: pair[1].start))
    return tuple(sorted(latest.items(), key=lambda pair: pair[1].start))
