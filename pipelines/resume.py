"""What the next run will do: take up an open round, finish a missing page, or begin the next round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sparring.errors import UsageError
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.steps.entry import next_step
from sparring.steps.results import GateResult, ReportResult
from sparring.store.base import Store

GIVEN_UP: Final = "INVALID"


@dataclass(frozen=True)
class Plan:
    """`number`: the round; `step`: where it goes on; `lines`: what the user is told first."""

    number: int
    step: str
    lines: tuple[str, ...]

    @property
    def report_only(self) -> bool:
        """The round is decided and only its page is missing."""
        return self.step == "report"


def plan(store: Store, config: str) -> Plan:
    """Looks at the store; `config` is the digest of the run file given now."""
    current = rounds.open_round(store)
    if current is None:
        return _page_missing(store) or _begin(rounds.last_round(store) + 1)
    step = next_step(store, current.number)
    if current.config_digest == config:
        return Plan(current.number, step, (f"round {current.number} goes on at step {step}",))
    if step == "prepare":  # nothing was made yet that the old configuration would have to explain
        reason = "the configuration was changed before the round had prepared anything"
        rounds.close(store, current.number, decision=GIVEN_UP, reason=reason)
        fresh = _begin(current.number + 1)
        return Plan(fresh.number, fresh.step, (f"round {current.number} is given up: {reason}", *fresh.lines))
    note = "it is finished with the configuration it began with; yours, which differs, is for the next round"
    return Plan(current.number, step, (f"round {current.number} goes on at step {step}", f"  {note}"))


def give_up(store: Store) -> str:
    """Closes the open round without a decision and says so. Raises UsageError when its decision is already made."""
    current = rounds.open_round(store)
    if current is None:
        return "no round is open"
    if rounds.load_result(store, current.number, "gate", GateResult):
        raise UsageError(f"round {current.number} is decided and can only be finished", hint="run without --give-up")
    rounds.close(store, current.number, decision=GIVEN_UP, reason="given up by the user before its decision")
    return f"round {current.number} is given up"


def is_given_up(store: Store, number: int) -> bool:
    """Whether the round ended without promote or hold having written a result."""
    end = rounds.load_end(store, number)
    return end is not None and rounds.load_result(store, number, "gate", GateResult) is None


def _begin(number: int) -> Plan:
    return Plan(number, "prepare", (f"round {number} begins",))


def _page_missing(store: Store) -> Plan | None:
    """The last round was killed in its report. A report that failed by itself is not tried for ever."""
    number = rounds.last_round(store)
    if number == 0 or is_given_up(store, number) or rounds.load_result(store, number, "report", ReportResult):
        return None
    entry = ledger.read(store, number).get("report")
    if entry and entry.status == "failed":
        return None
    return Plan(number, "report", (f"round {number} goes on at step report",))
