"""The model card of a promotion: gathered from the records, written once beside the champion log, added at export.

`champion/cards/<record>.md` is written put-if-absent, so that promote, report and export may all call for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from sparring.config.run import RunConfig
from sparring.errors import CorruptError, NotFoundError, SparringError, UsageError
from sparring.evaluate.tables import read_verdicts
from sparring.registry import rounds
from sparring.registry.champion import ChampionLog, Record, read_log
from sparring.report.measures import compliance, measures
from sparring.report.model_card import CardFacts, render_card
from sparring.steps.gate import GateRecord, read_record
from sparring.steps.results import PrepareResult, Role
from sparring.store.base import Store
from sparring.store.canonical import sha256
from sparring.store.datasets import load_meta

T = TypeVar("T")
_CROWNS = ("promotion", "override")
_HUB = {"packaged:smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""Hub id and licence of the packaged models."""


def card_key(record: int) -> str:
    """Where the card of a promotion record lies."""
    return f"champion/cards/{record:06d}.md"


def write_card(store: Store, record: int) -> str:
    """Writes the card of a promotion record unless it is there, and returns its text.

    Raises UsageError for a record that is no promotion, NotFoundError and CorruptError for what it rests on.
    """
    key = card_key(record)
    if not store.exists(key):
        store.put_if_absent(key, render_card(card_facts(store, record)).encode("utf-8"))
    try:
        return store.get(key).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptError(f"{key!r} in {store.url} is no text", hint="delete it: it is made again") from error


def promotion_of(log: ChampionLog, digest: str) -> Record:
    """The promotion or override that made a digest champion last. Raises UsageError when none did."""
    found = [r for r in log.records if r.kind in _CROWNS and r.champion == digest]
    if not found:
        raise UsageError(f"{digest} was never promoted, so that it has no card")
    return found[-1]


def card_facts(store: Store, number: int) -> CardFacts:
    """All that the card says. Data cards, run file and base record may be missing: then it says less."""
    log = read_log(store)
    record = log.records[number - 1] if 1 <= number <= log.head else None
    if record is None or record.kind not in _CROWNS or record.champion is None:
        raise UsageError(f"record {number} of {store.url} is no promotion")
    key = str(record.details.get("decision_key", ""))
    decided = read_record(store, key)
    config, prepared = _config(store, record), _prepared(store, record)
    table = _table(store, decided, "candidate")
    base_model, base_name, licence = _base(store)
    return CardFacts(
        line=config.line if config else "unknown",
        digest=record.champion,
        round=record.round,
        record=record.number,
        promoted_at=f"{record.time:%Y-%m-%d %H:%M} UTC",
        code_version=decided.code_version,
        base_model=base_model,
        base_name=base_name,
        licence=licence,
        decision=decided.decision,
        override=f"{record.actor}: {record.reason}" if record.kind == "override" else None,
        suites=_suites(table),
        suites_digest=decided.inputs.suites,
        measures=measures(table),
        compliance=compliance(table),
        before=measures(_table(store, decided, "champion")),
        data=_data(store, prepared),
        hashes=_hashes(log, record, decided, key, store),
    )


def _table(store: Store, decided: GateRecord, role: Role) -> pa.Table:
    """A verdict table that the decision rests on, bytes and all. Raises CorruptError when it is another by now."""
    file = decided.tables[role]
    table, found = read_verdicts(store, file.key)
    if found != file.sha256:
        raise CorruptError(f"{file.key!r} in {store.url} has SHA-256 {found}, the decision was made on {file.sha256}")
    return table


def _suites(table: pa.Table) -> dict[str, Sequence[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for kind, suite in zip(table["kind"].to_pylist(), table["suite"].to_pylist(), strict=True):
        found[kind].add(suite)
    return {kind: sorted(names) for kind, names in found.items()}


def _config(store: Store, record: Record) -> RunConfig | None:
    def load() -> RunConfig:
        from sparring.steps.entry import recorded_config

        return rounds.load_config(store, recorded_config(store, record.round or 0))

    return _if_there(load)


def _prepared(store: Store, record: Record) -> PrepareResult | None:
    return _if_there(lambda: rounds.load_result(store, record.round or 0, "prepare", PrepareResult))


def _base(store: Store) -> tuple[str | None, str, str | None]:
    """Hub id, name for people and licence of the line's base model, as far as they are known."""
    from sparring.steps.prepare import BASE_KEY, Base

    base = _if_there(lambda: Base.model_validate_json(store.get(BASE_KEY)))
    if base is None:
        return None, "not recorded", None
    if base.source in _HUB:
        hub, licence = _HUB[base.source]
        return hub, hub, licence
    is_path = base.source.startswith((".", "/", "~")) or base.source.count("/") != 1 or Path(base.source).exists()
    name = Path(base.source).name if is_path else base.source
    return None if is_path else base.source, name, None


def _data(store: Store, prepared: PrepareResult | None) -> dict[str, str]:
    """The seeds' data card in a few lines."""
    if prepared is None:
        return {}
    found = {"seeds": prepared.seeds, "replayed attacks": prepared.replay}
    card = _if_there(lambda: load_meta(store, prepared.seeds)) or {}
    for name, words in (("label", "seeds by label"), ("source", "seeds by source"), ("dropped", "seeds left out")):
        found |= {words: _listed(card.get(name))} if card.get(name) else {}
    licences = card.get("licences")
    if isinstance(licences, Mapping):
        known = {Path(str(source)).name: text for source, text in licences.items()}
        found["data licences"] = _listed(known)
    return found


def _listed(value: object) -> str:
    items = value.items() if isinstance(value, Mapping) else []
    return ", ".join(f"{name}: {text}" for name, text in items)


def _hashes(log: ChampionLog, record: Record, decided: GateRecord, key: str, store: Store) -> dict[str, str]:
    """What pins the promotion: the decision, its tables, and the record before, which the log's chain continues."""
    models = {"champion before": decided.decision.champion, "reference": decided.decision.reference}
    found = {name: digest for name, digest in models.items() if digest}
    found |= {"decision": key, "decision SHA-256": sha256(store.get(key)), "record before": record.previous}
    return found | {f"verdicts of the {role}": file.sha256 for role, file in sorted(decided.tables.items())}


def _if_there(read: Callable[[], T | None]) -> T | None:
    try:
        return read()
    except NotFoundError:
        return None
    except (SparringError, ValueError, KeyError):  # a run file of an older release: the card says less
        return None
