"""What happened to a line, read from its champion log: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sparring.config.hooks import Event
from sparring.registry.champion import CHANGES, ChampionLog, Record

WAITS: Final = "waits for approval"
"""How the gate's reason begins when only a person's yes is missing."""


@dataclass(frozen=True)
class Happened:
    """One record of the champion log that somebody may want to hear of.

    `before` is the champion before it. `current` says whether it still is how the line stands.
    """

    event: Event
    record: Record
    before: str | None
    current: bool

    def id(self, line: str) -> str:
        """The same for every attempt to tell of it: receivers use it to notice a repetition."""
        return f"{line}/{self.record.number}/{self.record.nonce[:16]}"


def event_of(record: Record) -> Event | None:
    """What a record is to the outside; None for records that change nothing there."""
    if record.kind == "rollback":
        return "rollback"
    if record.kind in CHANGES:
        return "promote"
    if record.kind != "hold":
        return None
    if record.decision == "INVALID":
        return "invalid"
    return "approval" if record.reason.startswith(WAITS) else "hold"


def happened(log: ChampionLog, after: int) -> list[Happened]:
    """Events of the records behind number `after`, in order.

    A change of champion is current while its champion is the log's; everything else until the next event.
    """
    found = [(record, event) for record in log.records if (event := event_of(record))]
    last = found[-1][0].number if found else 0
    before = {
        record.number: (log.records[record.number - 2].champion if record.number > 1 else None) for record, _ in found
    }
    return [
        Happened(event, record, before[record.number], _stands(log, record, event, last))
        for record, event in found
        if record.number > after
    ]


def _stands(log: ChampionLog, record: Record, event: Event, last: int) -> bool:
    if event in ("promote", "rollback"):
        changes = [r.number for r in log.records if r.kind in CHANGES]
        return record.number == changes[-1]
    return record.number == last


def message(happened: Happened, *, store: str, line: str) -> dict[str, object]:
    """What a receiver is told; `schema_version` grows when a field changes its meaning."""
    record = happened.record
    return {
        "schema_version": 1,
        "id": happened.id(line),
        "event": happened.event,
        "kind": record.kind,
        "line": line,
        "store": store,
        "round": record.round,
        "decision": record.decision,
        "reason": record.reason,
        "candidate": record.candidate,
        "champion": record.champion,
        "champion_before": happened.before,
        "champion_uri": f"{store}/checkpoints/{record.champion}" if record.champion else None,
        "record": record.number,
        "actor": record.actor,
        "time": iso(record.time),
    }


def headline(happened: Happened, line: str) -> str:
    """One line for people."""
    record = happened.record
    of = f"round {record.round}" if record.round else f"record {record.number}"
    champion = (record.champion or "none")[:12]
    return {
        "promote": f"{line}: {of} PROMOTED {champion}{_by_whom(record)}",
        "rollback": f"{line}: rolled back to {champion} by {record.actor}",
        "hold": f"{line}: {of} {record.decision}, champion stays {champion}",
        "invalid": f"{line}: {of} INVALID, nothing could be decided; champion stays {champion}",
        "approval": f"{line}: {of} waits for `sparring approve --round {record.round}`",
    }[happened.event]


def _by_whom(record: Record) -> str:
    """A promotion that is not the gate's own says so."""
    if record.kind == "override":
        return f", against the gate's {record.decision}, by {record.actor}"
    return "" if record.actor == "pipeline" else f", approved by {record.actor}"


def iso(time: datetime) -> str:
    """UTC with seconds, as JSON schemas and Alertmanager take it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
