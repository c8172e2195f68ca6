"""What a Kubeflow run came to, by our own records: the ledger knows which run each attempt at a step belonged to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.backend import Run
from sparring.integrations.after_round import STEP as HOOKS
from sparring.monitor import ledger
from sparring.monitor.ledger import Attempt, LedgerEntry
from sparring.registry import rounds
from sparring.registry.rounds import End
from sparring.store.base import Store

ROUNDS_BACK: Final = 20
"""Newest rounds looked through for runs."""


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
        """The first step of this run that did not end well. Hooks do not count: a round stands, whoever heard of it."""
        bad = ("failed", "killed") if self.over else ("failed",)
        steps = ((step, attempt) for step, attempt in self.attempts if step != HOOKS)
        return next(((step, attempt) for step, attempt in steps if attempt.status in bad), None)

    @property
    def untold(self) -> str:
        """Why a hook of this run failed, "" when none did."""
        return next((one.error or "" for step, one in self.attempts if step == HOOKS and one.status == "failed"), "")

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


def of_run(store: Store, run: Run, back: int = ROUNDS_BACK) -> Outcome | None:
    """The outcome of a run; None when no step of it has written anything in the newest `back` rounds."""
    return of_runs(store, [run], back).get(run.id)


def of_runs(store: Store, runs: Sequence[Run], back: int = ROUNDS_BACK) -> dict[str, Outcome]:
    """Outcomes by run, of those that have one; each round is read once, the newest first, until all are found."""
    found: dict[str, Outcome] = {}
    last = rounds.last_round(store)
    for number in range(last, max(0, last - back), -1):
        if len(found) == len(runs):
            break
        entries, end = ledger.read(store, number), rounds.load_end(store, number)
        for run in runs:
            if run.id not in found and (attempts := _attempts(entries, run.id)):
                found[run.id] = Outcome(number, attempts, end, run.ended)
    return found


def _attempts(entries: Mapping[str, LedgerEntry], run_id: str) -> tuple[tuple[str, Attempt], ...]:
    own = [(step, one) for step, entry in entries.items() for one in entry.attempts if one.run == run_id]
    latest = dict(sorted(own, key=lambda pair: pair[1].start))
    return tuple(sorted(latest.items(), key=lambda pair: pair[1].start))
