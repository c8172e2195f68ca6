"""A decision about any model, trained anywhere: verdict tables in files, no round, no store needed.

    recorded already? ─► models ─► pay for the look ─► read verdicts ─► decide ─► record

With a ledger (a store of its own: a folder or S3) looks at α are paid there by the rule of rounds, put-if-absent
before verdicts are read: `looks/<n>.json`, `cases/<digest>/decision.json`. A killed gate gets no refund, an identical
rerun returns the recorded decision and spends nothing. Without one nobody counts the looks, and the decision says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, ValidationError

import sparring
from sparring.errors import ConfigError, CorruptError, DataError, InvalidEvaluation, UsageError
from sparring.evaluate.tables import decode_verdicts
from sparring.gate.correction import with_corrections
from sparring.gate.decision import decide, invalid
from sparring.gate.outcome import Decision, Record
from sparring.gate.policy import Policy
from sparring.gate.spending import Look, case_looks, reserve_case
from sparring.judge.calibration import Calibration, staleness
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256
from sparring.store.conditional import check_conditional_puts

Role = Literal["candidate", "champion", "reference"]
UNACCOUNTED = "this look was not accounted for: without --ledger nobody counts how often α is spent"


class TableFile(Record):
    """A verdict table's file that a decision rests on."""

    key: str
    sha256: str


class DecisionFile(Record):
    """`decision.json` of `sparring gate`: the decision and everything that made it. `look` is None without a ledger,
    and where nothing was looked at (no usable tables, or nothing changed)."""

    schema_version: Literal[1] = 1
    code_version: str
    decided_at: AwareDatetime
    tables: dict[Role, TableFile]
    look: Look | None
    policy: Policy
    decision: Decision


@dataclass(frozen=True)
class Files:
    """The tables' bytes, read once, so that what is hashed is what is judged. `names` are for messages and records."""

    data: Mapping[Role, bytes]
    names: Mapping[Role, str]

    @classmethod
    def read(cls, paths: Mapping[Role, Path]) -> Files:
        """Raises DataError for a file that cannot be read."""
        data: dict[Role, bytes] = {}
        for role, path in paths.items():
            try:
                data[role] = path.read_bytes()
            except OSError as error:
                raise DataError(f"{role}'s verdict table {path}: cannot be read: {error.strerror or error}") from error
        return cls(data, {role: str(path) for role, path in paths.items()})

    @property
    def records(self) -> dict[Role, TableFile]:
        """Names and digests."""
        return {
            role: TableFile(key=self.names[role], sha256=hashlib.sha256(data).hexdigest())
            for role, data in self.data.items()
        }

    def models(self) -> dict[Role, str]:
        """Each table's model, without looking at a verdict; a table that names no single one is left out."""
        found = {role: _model(data) for role, data in self.data.items()}
        return {role: model for role, model in found.items() if model}


@dataclass(frozen=True)
class Case:
    """What is to be decided. `calibration`, of the judge, corrects rates and decides nothing."""

    policy: Policy
    files: Files
    first_run: bool
    approved: bool
    calibration: Calibration | None = None

    @property
    def digest(self) -> str:
        """Of the policy's and the tables' content; an approval changes no test, so that it is no other case."""
        tables = {role: file.sha256 for role, file in self.files.records.items()}
        facts = {"policy": self.policy.digest, "tables": tables, "first_run": self.first_run}
        return sha256(canonical(facts))


def gate_files(case: Case, ledger: Store | None) -> DecisionFile:
    """Decides, or returns the ledger's recorded decision of the same case.

    Raises UsageError where the first run's rules are mixed with later ones, StoreError for the ledger.
    """
    _check_roles(case)
    if ledger is None:
        return _decide(case, None, None, [UNACCOUNTED])
    if not (key := _key(case)) or not ledger.exists(key):
        if not ledger.list("looks/"):
            check_conditional_puts(ledger)
        record = _paid(case, ledger)
        ledger.put_if_absent(key, record.model_dump_json(indent=1).encode())
    return _recorded(ledger, key)


def _check_roles(case: Case) -> None:
    if case.first_run and "reference" in case.files.data:
        raise UsageError("--first-run has no reference", hint="leave --reference or --first-run out")
    if case.first_run and "reference" in case.policy.non_inferiority.against:
        raise ConfigError(
            f"policy {case.policy.name} compares with the reference, which the first run has not",
            hint="use --policy first-run, or one with `against: [champion]`",
        )


def _paid(case: Case, ledger: Store) -> DecisionFile:
    """Pays before verdicts are read, except where there is nothing to look at."""
    models = case.files.models()
    candidate, champion = models.get("candidate"), models.get("champion")
    first = next((look.champion for look in case_looks(ledger) if look.champion), None)
    look = None
    if len(models) == len(case.files.data) and candidate != champion and not _lacks_reference(case, models, first):
        paying = None if case.first_run else champion
        look = reserve_case(ledger, case=case.digest, champion=paying, policy=case.policy)
    return _decide(case, look, first, [])


def _lacks_reference(case: Case, models: Mapping[Role, str], first: str | None) -> list[str]:
    """The ledger remembers its first champion: it is the reference, unless the caller names one."""
    if case.first_run or "reference" in models or first in (None, models.get("champion")):
        return []
    return [f"the reference's verdict table is missing: the ledger's first champion is {first}, give --reference"]


def _decide(case: Case, look: Look | None, first: str | None, warnings: list[str]) -> DecisionFile:
    models = case.files.models()
    missing = _lacks_reference(case, models, first)
    tables: dict[Role, pa.Table] = {}
    for role, data in case.files.data.items():
        try:
            tables[role] = decode_verdicts(data, f"{role}'s table {case.files.names[role]}")
        except InvalidEvaluation as error:
            missing.append(error.message)
    warnings = warnings + _reference_warnings(case, models, first)
    return DecisionFile(
        code_version=sparring.__version__,
        decided_at=datetime.now(UTC),
        tables=case.files.records,
        look=look,
        policy=case.policy,
        decision=_corrected(case, tables, _decision(case, tables, missing, look, warnings)),
    )


def _decision(
    case: Case, tables: Mapping[Role, pa.Table], missing: list[str], look: Look | None, warnings: list[str]
) -> Decision:
    spent = look.spent if look else 0.0
    if missing:
        models = {str(role): model for role, model in case.files.models().items()}
        return invalid(
            case.policy, missing, models=models, first_run=case.first_run, alpha_spent=spent, warnings=warnings
        )
    return decide(
        case.policy,
        tables["candidate"],
        tables["champion"],
        None if case.first_run else tables.get("reference", tables["champion"]),
        first_run=case.first_run,
        approved=case.approved,
        alpha_spent=spent,
        warnings=warnings,
        resample=True,
    )


def _corrected(case: Case, tables: Mapping[Role, pa.Table], decision: Decision) -> Decision:
    """Raises ConfigError for a calibration of another judge than the one that judged."""
    known = case.calibration
    if known is None or decision.judge is None:
        return decision
    if known.judge != decision.judge:
        raise ConfigError(
            f"--calibration is of judge {known.judge}, the tables were judged by {decision.judge}",
            hint="calibrate that judge, or leave --calibration out",
        )
    lined_up = {str(role): table for role, table in tables.items()}
    if not case.first_run:
        lined_up.setdefault("reference", tables["champion"])
    models = {str(role): digest for role, digest in case.files.models().items()}
    return with_corrections(decision, case.policy, lined_up, known, stale=staleness(known, models, 0))


def _reference_warnings(case: Case, models: Mapping[Role, str], first: str | None) -> list[str]:
    if case.first_run:
        return []
    if "reference" not in case.files.data:
        return [
            "no --reference: the champion stands in its place, right only while it is the first one;"
            " against a moving champion alone small losses add up"
        ]
    if first and models.get("reference") not in (None, first):
        return [f"the reference is {models['reference']}, the ledger's first champion was {first}"]
    return []


def _model(data: bytes) -> str | None:
    try:
        values = pq.ParquetFile(pa.BufferReader(data)).read(["model"])["model"].unique().to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None  # whatever is wrong with it, reading the whole table will say
    return values[0] if len(values) == 1 and isinstance(values[0], str) and values[0] else None


def _key(case: Case) -> str:
    return f"cases/{case.digest}/{'approved' if case.approved else 'decision'}.json"


def _recorded(ledger: Store, key: str) -> DecisionFile:
    try:
        return DecisionFile.model_validate_json(ledger.get(key))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise CorruptError(f"{key} in {ledger.url}: {field}: {first['msg']}", hint="the decision was edited") from error
