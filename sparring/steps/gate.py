"""The gate step: verdict tables and a policy in, one recorded decision out.

    recorded decision? ─► policy ─► record its change ─► pay for the look ─► read tables ─► compare with the round
    ─► decide ─► record

The record `rounds/<n>/gate/decision.json` is claimed put-if-absent: whoever comes second finds the first's decision.
Beside it lie `decision.md` and `junit.xml`, the same decision for people and CI systems.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
from pydantic import AwareDatetime, ValidationError

import sparring
from sparring.config.run import GateConfig
from sparring.errors import ConflictError, CorruptError, InvalidEvaluation
from sparring.evaluate.tables import decode_verdicts
from sparring.gate import forms
from sparring.gate.correction import with_corrections
from sparring.gate.decision import decide, invalid, stopped
from sparring.gate.outcome import Decision, Record
from sparring.gate.policy import Policy, load_policy
from sparring.gate.spending import Look, reserve
from sparring.judge.calibration import latest, staleness
from sparring.progress import Progress
from sparring.steps.policy_changes import record_change
from sparring.steps.results import GateResult, JudgeResult, PrepareResult, Result, Role
from sparring.store.base import Store


class GateInputs(Result):
    """What the round was and what the judge found. In the first run the base model stands in the champion's place.

    `guard`: why the training was stopped; such a candidate is rejected without a look.
    """

    round: int
    first_run: bool
    start: str
    champion: str | None
    reference: str | None
    suites: str
    log_head: int
    judged: JudgeResult
    guard: str = ""

    @classmethod
    def of(cls, prepared: PrepareResult, judged: JudgeResult, guard: str = "") -> GateInputs:
        """From the results of `prepare` and `judge`, and what `selfplay` says of its guards."""
        return cls(
            round=prepared.round,
            first_run=prepared.champion is None,
            start=prepared.start,
            champion=prepared.champion,
            reference=prepared.reference,
            suites=prepared.suites,
            log_head=prepared.log_head,
            judged=judged,
            guard=guard,
        )

    @property
    def expected(self) -> dict[Role, str]:
        """Digest that each role's table must be about; the candidate's is what the judge step says."""
        models: dict[Role, str] = {"champion": self.champion or self.start}
        if "candidate" in self.judged.models:
            models["candidate"] = self.judged.models["candidate"]
        if self.reference is not None:
            models["reference"] = self.reference
        return models

    @property
    def pays(self) -> bool:
        """Whether a look is taken: not of other tables than this round's, of no change, or of a stopped training."""
        return not self.guard and not self.unfit() and self.expected["candidate"] != self.expected["champion"]

    def unfit(self) -> list[str]:
        """What does not agree between the round and the judge step, before any verdict is read."""
        judged, found = self.judged, []
        wanted: list[Role] = ["candidate", "champion"]
        if self.reference not in (None, self.champion):
            wanted.append("reference")
        found += [f"the {role} has no verdict table" for role in wanted if role not in judged.verdicts]
        found += [f"the {role} has no digest" for role in judged.verdicts if not judged.models.get(role)]
        if self.first_run and (self.reference or "reference" in judged.verdicts):
            found.append("there is a reference in the first run, where none can exist")
        for role, digest in self.expected.items():
            if role in judged.verdicts and judged.models.get(role, digest) != digest:
                found.append(f"the judge step judged {judged.models[role]} as {role}, the round's is {digest}")
        if judged.suites != self.suites:
            found.append(f"the answers are to suites {judged.suites}, the round's are {self.suites}")
        return found


class TableFile(Record):
    """A verdict table's file that a decision rests on."""

    key: str
    sha256: str


class GateRecord(Record):
    """`decision.json`: the decision and everything that made it, so that it can be made again."""

    schema_version: Literal[1] = 1
    round: int
    code_version: str
    decided_at: AwareDatetime
    inputs: GateInputs
    tables: dict[Role, TableFile]
    look: Look | None
    policy: Policy
    decision: Decision


def run(config: GateConfig, store: Store, inputs: GateInputs, progress: Progress) -> GateResult:
    """Decides about the round's candidate, once; run again it returns the recorded decision.

    Raises ConfigError for the policy, StoreError, and ConflictError when the round was decided on other inputs.
    """
    key = decision_key(inputs.round)
    if not store.exists(key):
        store.put_if_absent(key, _decide(config, store, inputs).model_dump_json(indent=1).encode())
    record = read_record(store, key)
    if record.inputs != inputs:
        raise ConflictError(
            f"round {inputs.round} was already decided ({record.decision.outcome}) on other inputs",
            hint=f"see {key}; start a new round",
        )
    _write_forms(store, record)
    progress.update("decide", 1, 1, record.decision.outcome)
    return GateResult(
        decision=record.decision.outcome,
        reason=record.decision.reason,
        decision_key=key,
        candidate=inputs.expected.get("candidate", ""),
        log_head=inputs.log_head,
    )


def decision_key(round_number: int) -> str:
    """Where the round's decision is recorded."""
    return f"rounds/{round_number:06d}/gate/decision.json"


def approved_key(round_number: int) -> str:
    """Where the round's decision is recorded again after a person approved it (`sparring.steps.acts`)."""
    return f"rounds/{round_number:06d}/gate/approved.json"


def read_record(store: Store, key: str) -> GateRecord:
    """A recorded decision. Raises NotFoundError, CorruptError."""
    try:
        return GateRecord.model_validate_json(store.get(key))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise CorruptError(f"{key}: {field}: {first['msg']}", hint="the decision was edited or damaged") from error


def check_record(store: Store, record: GateRecord, *, approved: bool | None = None) -> Decision:
    """Makes the recorded decision again, from the recorded policy and the tables as they are. Raises CorruptError.

    `approved`: as if it had been approved, or not; None: as it was recorded. What decides nothing is taken over
    as it is: warnings, corrections and the bootstrap.
    """
    tables, files, missing = _read_tables(store, record.inputs.judged.verdicts)
    for role in sorted(files.keys() | record.tables.keys()):
        now, then = files.get(role), record.tables.get(role)
        if now != then:
            raise CorruptError(f"the {role}'s verdict table is {now}, round {record.round} was decided on {then}")
    yes = record.decision.approved if approved is None else approved
    again = _Case(record.policy, record.inputs, record.look, yes).decide(tables, missing)
    kept = {name: getattr(record.decision, name) for name in ("warnings", "corrections", "calibration", "resampled")}
    return again.model_copy(update=kept)


def _decide(config: GateConfig, store: Store, inputs: GateInputs) -> GateRecord:
    policy = load_policy(config.first_run if inputs.first_run else config.policy)
    if config.require_approval:
        policy = policy.model_copy(update={"approval": True})
    record_change(store, inputs, policy, read_record, decision_key)
    look = None
    if inputs.pays:
        look = reserve(store, round=inputs.round, champion=inputs.champion, policy=policy, suites=inputs.suites)
    approved = inputs.first_run and config.approve_first_run and not config.require_approval
    case = _Case(policy, inputs, look, approved)
    tables, files, missing = _read_tables(store, inputs.judged.verdicts)
    return GateRecord(
        round=inputs.round,
        code_version=sparring.__version__,
        decided_at=datetime.now(UTC),
        inputs=inputs,
        tables=files,
        look=look,
        policy=policy,
        decision=_corrected(store, inputs, policy, tables, case.decide(tables, missing, resample=True)),
    )


def _corrected(
    store: Store, inputs: GateInputs, policy: Policy, tables: Mapping[Role, pa.Table], decision: Decision
) -> Decision:
    """The decision with what the judge's newest calibration makes of it."""
    known = latest(store, decision.judge) if decision.judge else None
    models = {str(role): digest for role, digest in inputs.expected.items()}
    stale = staleness(known, models, inputs.round) if known else None
    lined_up = {str(role): table for role, table in tables.items()}
    if inputs.reference is not None and "champion" in tables:
        lined_up.setdefault("reference", tables["champion"])
    return with_corrections(decision, policy, lined_up, known, stale=stale)


@dataclass(frozen=True)
class _Case:
    """All that a decision follows from, but the tables."""

    policy: Policy
    inputs: GateInputs
    look: Look | None
    approved: bool

    def decide(self, tables: Mapping[Role, pa.Table], missing: list[str], *, resample: bool = False) -> Decision:
        """The decision; INVALID without comparing when tables are unreadable or are not this round's."""
        inputs, spent = self.inputs, self.look.spent if self.look else 0.0
        expected = {str(role): digest for role, digest in inputs.expected.items()}
        if inputs.guard:
            reason = f"self-play was stopped: {inputs.guard}"
            return stopped(self.policy, reason, models=expected, first_run=inputs.first_run)
        if missing := missing + inputs.unfit() + self._repoliced():
            return invalid(
                self.policy,
                missing,
                models=expected,
                first_run=inputs.first_run,
                alpha_spent=spent,
                warnings=self._warnings(),
            )
        return decide(
            self.policy,
            tables["candidate"],
            tables["champion"],
            None if inputs.reference is None else tables.get("reference", tables["champion"]),
            first_run=inputs.first_run,
            approved=self.approved,
            alpha_spent=spent,
            expected=expected,
            warnings=self._warnings(),
            resample=resample,
        )

    def _warnings(self) -> list[str]:
        """What the judge step warned of, and that the suites were used more often than the policy plans for."""
        uses = self.look.earlier + 1 if self.look else 0
        worn = f"look {uses} at the same suites, policy {self.policy.name} plans for {self.policy.looks}: rounds learn"
        worn += " what these suites ask; freeze fresh ones"
        return [*self.inputs.judged.warnings, *([worn] if uses > self.policy.looks else [])]

    def _repoliced(self) -> list[str]:
        if self.look is None or self.look.policy_digest == self.policy.digest:
            return []
        return [f"policy {self.policy.name} was changed after this round's look was paid for under {self.look.policy}"]


def _write_forms(store: Store, record: GateRecord) -> None:
    """The record's other forms, beside it. Both follow from it, so that whoever is first may write them."""
    folder = decision_key(record.round).rpartition("/")[0]
    for name, form in (("decision.md", forms.markdown), ("junit.xml", forms.junit)):
        if not store.exists(f"{folder}/{name}"):
            store.put_if_absent(f"{folder}/{name}", form(record.decision).encode())


def _read_tables(
    store: Store, keys: Mapping[Role, str]
) -> tuple[dict[Role, pa.Table], dict[Role, TableFile], list[str]]:
    """The tables, their files' facts, and why some are no verdict tables. A table that is gone is a fault."""
    tables: dict[Role, pa.Table] = {}
    files: dict[Role, TableFile] = {}
    missing: list[str] = []
    for role, key in keys.items():
        data = store.get(key)
        files[role] = TableFile(key=key, sha256=hashlib.sha256(data).hexdigest())
        try:
            tables[role] = decode_verdicts(data, f"{role}'s table {key}")
        except InvalidEvaluation as error:
            missing.append(error.message)
    return tables, files, missing
