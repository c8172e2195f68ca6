"""What the commands print, read from the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from sparring.config.run import RunConfig
from sparring.errors import CorruptError, NotFoundError, UsageError
from sparring.gate.outcome import agree
from sparring.registry import rounds, serving
from sparring.registry.champion import ChampionLog, Record, read_log
from sparring.registry.checkpoints import check_checkpoint, has_checkpoint, load_checkpoint
from sparring.registry.signing import verify_signature
from sparring.steps.entry import RunRequest, execute, next_step, recorded_config
from sparring.steps.results import ReportResult
from sparring.store.base import Store

Facts = dict[str, object]


def status_facts(config: RunConfig, store: Store) -> Facts:
    """Where a line stands."""
    log, current = read_log(store), rounds.open_round(store)
    last = log.records[-1] if log.records else None
    return {
        "line": config.line,
        "store": config.store,
        "rounds": rounds.last_round(store),
        "open_round": current.number if current else None,
        "open_step": next_step(store, current.number) if current else None,
        "last_record": last.kind if last else None,
        "last_decision": last.decision if last else None,
        "last_round": last.round if last else None,
        "reason": last.reason if last else None,
        "champion": log.champion,
        "champion_round": log.champion_round,
        "reference": log.reference,
        "log_records": log.head,
        **_serving(store),
    }


def _serving(store: Store) -> Facts:
    """What is served, where a hook serves: it can differ from the champion."""
    found = {name: serving.latest(store, name) for name in serving.services(store)}
    return {
        f"served_by_{name}": f"{s.digest or s.uri} ({s.state}, record {s.record})" for name, s in found.items() if s
    }


def champion_facts(store: Store, copy_to: Path | None) -> Facts:
    """Which model is champion and where. Raises UsageError when there is none."""
    log = read_log(store)
    if log.champion is None:
        raise UsageError(f"{store.url} has no champion yet")
    place = str(load_checkpoint(store, log.champion, copy_to)) if copy_to else f"{store.url}/checkpoints/{log.champion}"
    return {"champion": log.champion, "champion_round": log.champion_round, "folder": place}


def verified(store: Store, key: Path | None = None) -> Iterator[str]:
    """Says what of the line's history holds, one thing after the other. Raises CorruptError when one does not.

    With a public `key` the champion's and the reference's signatures must hold for it.
    """
    log = read_log(store)
    yield f"champion log: {log.head} records, the chain holds"
    for record in log.records:
        if record.kind in ("promotion", "override"):
            yield _decided_again(store, log, record)
    for name, digest in _kept(log).items():
        if not has_checkpoint(store, digest):
            raise CorruptError(f"{name} {digest} has no checkpoint in {store.url}")
        yield f"{name} {digest}: checkpoint is there, {check_checkpoint(store, digest):,} bytes as they were written"
        if key is not None:
            verify_signature(store, digest, key)
            yield f"{name} {digest}: the signature holds for {key}"


def report_place(config: RunConfig, store: Store, number: int | None) -> str:
    """Where a round's page is; it is written when it is missing. Raises NotFoundError for a round that never was."""
    last = rounds.last_round(store)
    wanted = number or last
    if not 1 <= wanted <= last:
        raise NotFoundError(f"round {wanted} in {store.url} never was: there are {last} rounds")
    page = rounds.load_result(store, wanted, "report", ReportResult)
    if page is None:
        root = config.store if "://" in config.store else str(Path(config.store).expanduser().absolute())
        request = RunRequest(store=root, line=config.line, config=recorded_config(store, wanted))
        with redirect_stdout(sys.stderr):  # the step's own lines: standard output is for the path
            key = execute("report", request.model_dump_json(), str(wanted))
    else:
        key = page.html_key
    return f"{store.url}/{key}"


def _decided_again(store: Store, log: ChampionLog, record: Record) -> str:
    """A promotion follows from its tables, and from an approval where one made it; an override is said loudly."""
    from sparring.steps.gate import approved_key, check_record, read_record  # pyarrow and scipy: only `verify`

    key = str(record.details.get("decision_key", ""))
    recorded = read_record(store, key)
    again = check_record(store, recorded)
    same = agree(again, recorded.decision)
    if not same or again.outcome != record.decision or again.candidate != record.candidate:
        raise CorruptError(
            f"record {record.number}: the tables of round {record.round} give {again.outcome}: {again.reason}"
        )
    if record.kind == "override":
        return f"record {record.number}: OVERRIDE of round {record.round}'s {record.decision} by {record.actor}"
    approvals = {one.round for one in log.records[: record.number - 1] if one.kind == "approval"}
    if record.round and key == approved_key(record.round) and record.round not in approvals:
        raise CorruptError(f"record {record.number}: round {record.round} was promoted as approved by nobody")
    return f"record {record.number}: the promotion of round {record.round} follows from its tables"


def _kept(log: ChampionLog) -> dict[str, str]:
    named = {"champion": log.champion, "reference": log.reference}
    return {name: digest for name, digest in named.items() if digest}
