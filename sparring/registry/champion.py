"""The champion log: hash-chained records at `champion/log/<n>.json`, each claimed put-if-absent.

This log *is* the champion; nothing else decides. A record is stored as `{"record": …, "schema_version": 1, "sha256":
…}` in canonical JSON; `previous` of record n+1 is the `sha256` of record n. Numbers, not times, give the order: a clock
that goes back changes nothing. What the chain cannot show is a log whose last records were all deleted.

    promotion      the gate's PROMOTE: the candidate is champion     override   a person's, against the gate: the same
    hold           a round that changed nothing                      rollback   an earlier champion is champion again
    approval       a person's yes to a candidate that waits for it   reanchor   an earlier champion is the reference
    policy_change  the gate's policy is another than at the last decision
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sparring.errors import ConflictError, CorruptError, StoreError, UsageError
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256

SCHEMA_VERSION = 1
FIRST_PREVIOUS = "0" * 64
Kind = Literal["promotion", "hold", "rollback", "approval", "policy_change", "override", "reanchor"]
CHANGES: tuple[Kind, ...] = ("promotion", "override", "rollback")
"""Kinds that make another digest champion: only they force another gate."""
_CROWNS: tuple[Kind, ...] = ("promotion", "override")
_OVERRIDABLE = ("REJECT", "INCONCLUSIVE")
_ATTEMPTS = 20
_FOLDER = "champion/log/"
_SHORTEST_PREFIX = 8


class Record(BaseModel):
    """One record. `champion` is the champion after it; `previous` is the hash of the record before."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    number: int = Field(ge=1)
    kind: Kind
    time: AwareDatetime
    actor: str
    round: int | None
    candidate: str | None
    champion: str | None
    decision: str | None
    reason: str
    details: dict[str, object]
    previous: str
    nonce: str


@dataclass(frozen=True)
class ChampionLog:
    """A verified log and what it says. `head` is the last record's number, 0 when there is none.

    `champion_round` is the round that promoted the current champion, `reference` the first champion or what the last
    `reanchor` named, `accepted` every digest that ever was champion.
    """

    records: tuple[Record, ...]
    head: int
    head_sha256: str
    champion: str | None
    champion_round: int | None
    reference: str | None
    accepted: frozenset[str]


class Chain:
    """The log followed record by record, each verified: what the records say, without keeping them.

    `crowned` is every digest that ever was champion, with the round that last made it champion.
    """

    def __init__(self) -> None:
        self.head, self.head_sha256 = 0, FIRST_PREVIOUS
        self.champion: str | None = None
        self.reference: str | None = None
        self.crowned: dict[str, int | None] = {}

    def follow(self, store: Store) -> Iterator[Record]:
        """The records behind `head`, as far as the log goes. Raises CorruptError naming the first broken link."""
        for number in _numbers(store)[self.head :]:
            record, digest = _read(store, number)
            if record.previous != self.head_sha256:
                why = f"its `previous` is {record.previous}, record before has {self.head_sha256}"
                raise _broken(store, number, why)
            self._take(store, record)
            self.head, self.head_sha256 = number, digest
            yield record

    def _take(self, store: Store, record: Record) -> None:
        """The champion changes by promotion and override to the candidate, by rollback to an accepted digest, and by
        nothing else; the reference changes to an accepted digest.
        """
        if record.kind in _CROWNS:
            right = record.champion is not None and record.champion == record.candidate
        elif record.kind == "rollback":
            right = record.champion in self.crowned
        else:
            right = record.champion == self.champion
        if record.kind == "reanchor" and record.candidate not in self.crowned:
            raise _broken(store, record.number, f"{record.candidate}, its reference, never was champion")
        if not right:
            raise _broken(store, record.number, f"a {record.kind} cannot make {record.champion} the champion")
        if record.kind == "reanchor" or (record.kind in _CROWNS and not self.crowned):
            self.reference = record.candidate
        if record.kind in _CROWNS:
            self.crowned[str(record.champion)] = record.round
        self.champion = record.champion


def read_log(store: Store) -> ChampionLog:
    """Reads and verifies the whole log. Raises CorruptError naming the first broken link."""
    chain = Chain()
    records = tuple(chain.follow(store))
    return ChampionLog(
        records=records,
        head=chain.head,
        head_sha256=chain.head_sha256,
        champion=chain.champion,
        champion_round=chain.crowned.get(chain.champion) if chain.champion else None,
        reference=chain.reference,
        accepted=frozenset(chain.crowned),
    )


def append(
    store: Store,
    *,
    expected_head: int,
    kind: Kind,
    actor: str,
    round: int | None = None,
    candidate: str | None = None,
    decision: str | None = None,
    reason: str,
    details: dict[str, object] | None = None,
    time: datetime | None = None,
) -> Record:
    """Appends record `expected_head + 1`. The champion after it follows from the kind.

    A round that left a record of this kind already gets that record back, if it says the same (candidate, decision).
    Raises ConflictError when the log is no longer at `expected_head`, UsageError for a record that makes no sense.
    """
    log = read_log(store)
    plain = _plain(details or {})
    known = _same(log, kind, round, plain)
    if known:
        return _agreeing(known, candidate, decision)
    record = Record(
        number=expected_head + 1,
        kind=kind,
        time=(time or datetime.now(UTC)).astimezone(UTC),
        actor=actor,
        round=round,
        candidate=candidate,
        champion=_champion_after(log, kind, candidate, decision),
        decision=decision,
        reason=reason,
        details=plain,
        previous=log.head_sha256,
        nonce=uuid.uuid4().hex,
    )
    if log.head == expected_head and store.put_if_absent(_key(record.number), _encode(record)):
        return record
    return _lost(store, record)


def rollback(store: Store, *, to: str | None, actor: str, reason: str) -> Record:
    """Makes an earlier champion the champion again by a new record; None: the champion before the current one.

    `to` is a digest that once was champion, or at least its first 8 digits. Raises UsageError for any other, and
    ConflictError when somebody else changed the champion meanwhile.
    """
    began = read_log(store).champion
    for _ in range(_ATTEMPTS):
        log = read_log(store)
        if log.champion != began:
            raise ConflictError(f"the champion became {log.champion} meanwhile", hint="look at it and decide again")
        target = _before(log) if to is None else _accepted(log, to)
        if target == log.champion:
            raise UsageError(f"{target} is the champion already")
        try:
            return append(store, expected_head=log.head, kind="rollback", actor=actor, candidate=target, reason=reason)
        except ConflictError:
            continue
    raise ConflictError(f"the champion log of {store.url} changed {_ATTEMPTS} times meanwhile", hint="run it again")


def reanchor(store: Store, *, to: str, actor: str, reason: str) -> Record:
    """Makes a digest that was champion, or names its first 8 digits, the reference of the rounds that follow.

    Raises UsageError for any other digest and for the reference itself; ConflictError when the log never stands still.
    """
    for _ in range(_ATTEMPTS):
        log = read_log(store)
        target = _accepted(log, to)
        if target == log.reference:
            raise UsageError(f"{target} is the reference already")
        details: dict[str, object] = {"before": log.reference}
        try:
            return append(
                store, expected_head=log.head, kind="reanchor", actor=actor, candidate=target, reason=reason,
                details=details,
            )  # fmt: skip
        except ConflictError:
            continue
    raise ConflictError(f"the champion log of {store.url} changed {_ATTEMPTS} times meanwhile", hint="run it again")


def _numbers(store: Store) -> range:
    """Numbers 1..n of the records. Raises CorruptError for a gap or a stranger."""
    keys = store.list(_FOLDER)
    for number, key in enumerate(keys, start=1):
        if key == _key(number):
            continue
        if key > _key(number) and _key(number) not in keys and _is_record(key):
            raise CorruptError(f"champion log in {store.url}: record {number} is missing, {key!r} is there")
        raise CorruptError(f"champion log in {store.url}: {key!r} is not the name of a record")
    return range(1, len(keys) + 1)


def _is_record(key: str) -> bool:
    digits = key.removeprefix(_FOLDER).removesuffix(".json")
    return digits.isascii() and digits.isdigit() and key == _key(int(digits))


def _read(store: Store, number: int) -> tuple[Record, str]:
    """One record and its hash, alone: the bytes are canonical, hash to what they say and are a record."""
    data = store.get(_key(number))
    try:
        envelope = json.loads(data)
        is_canonical = canonical(envelope) == data
    except (ValueError, RecursionError) as error:
        raise _broken(store, number, f"it is not canonical JSON ({error})") from error
    if not isinstance(envelope, dict) or not is_canonical:
        raise _broken(store, number, "its bytes are not canonical JSON, so somebody edited them")
    if envelope.get("schema_version") != SCHEMA_VERSION:
        raise _broken(store, number, f"its schema version is {envelope.get('schema_version')}, not {SCHEMA_VERSION}")
    digest = sha256(canonical(envelope.get("record")))
    if digest != envelope.get("sha256"):
        raise _broken(store, number, f"its content hashes to {digest}, it says {envelope.get('sha256')}")
    try:
        record = Record.model_validate(envelope["record"])
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise _broken(store, number, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    if record.number != number:
        raise _broken(store, number, f"it says that it is record {record.number}")
    return record, digest


def _champion_after(log: ChampionLog, kind: Kind, candidate: str | None, decision: str | None) -> str | None:
    if kind == "promotion":
        if candidate is None or decision != "PROMOTE":
            raise UsageError(f"a promotion needs a candidate and decision PROMOTE, not {candidate} and {decision}")
        return candidate
    if decision == "PROMOTE":
        raise UsageError(f"decision PROMOTE belongs to a promotion, not to a {kind}")
    if kind == "override":
        if candidate is None or decision not in _OVERRIDABLE:
            raise UsageError(f"an override needs a candidate and decision REJECT or INCONCLUSIVE, not {decision}")
        return candidate
    if kind == "reanchor" and candidate not in log.accepted:
        raise UsageError(f"reference {candidate} never was champion")
    if kind == "rollback":
        if candidate not in log.accepted:
            raise UsageError(f"rollback target {candidate} never was champion")
        return candidate
    return log.champion


def _same(log: ChampionLog, kind: Kind, round: int | None, details: dict[str, object]) -> Record | None:
    """The record that this round left already, by kind; a policy may change twice in a round that was killed."""
    if round is None:
        return None
    mine = [record for record in log.records if record.kind == kind and record.round == round]
    if kind == "policy_change":
        mine = [record for record in mine[-1:] if record.details == details]
    return mine[0] if mine else None


def _agreeing(known: Record, candidate: str | None, decision: str | None) -> Record:
    if (known.candidate, known.decision) == (candidate, decision):
        return known
    raise ConflictError(
        f"round {known.round} left record {known.number} ({known.kind} of {known.candidate}, {known.decision}) already,"
        f" which is not {candidate}, {decision}"
    )


def _lost(store: Store, record: Record) -> Record:
    """Somebody else was first: fine if it was this round's twin, else the caller must look again."""
    log = read_log(store)
    known = _same(log, record.kind, record.round, record.details)
    if known:
        return _agreeing(known, record.candidate, record.decision)
    message = f"champion log of {store.url} is at record {log.head}, this {record.kind} began at {record.number - 1}"
    raise ConflictError(message, hint="look at the new records and decide again")


def _before(log: ChampionLog) -> str:
    """The champion that the current one replaced when it was last promoted."""
    for after, before in pairwise(reversed(log.records)):
        if after.kind in _CROWNS and after.champion == log.champion and before.champion != log.champion:
            if before.champion is not None:
                return before.champion
            break
    raise UsageError("there is no earlier champion to go back to")


def _accepted(log: ChampionLog, to: str) -> str:
    found = sorted(digest for digest in log.accepted if digest.startswith(to))
    if len(to) < _SHORTEST_PREFIX or len(found) != 1:
        known = ", ".join(digest[:12] for digest in sorted(log.accepted)) or "none"
        raise UsageError(f"target {to!r} does not name one earlier champion", hint=f"there are: {known}")
    return found[0]


def _plain(details: dict[str, object]) -> dict[str, object]:
    """Details as they will be read back: an audit record must not turn NaN into null in silence."""
    try:
        plain: dict[str, object] = json.loads(canonical(details))
    except (TypeError, ValueError) as error:
        raise StoreError(f"details of a champion record cannot be stored as JSON: {error}") from error
    return plain


def _encode(record: Record) -> bytes:
    body = record.model_dump(mode="json")
    return canonical({"schema_version": SCHEMA_VERSION, "record": body, "sha256": sha256(canonical(body))})


def _key(number: int) -> str:
    return f"{_FOLDER}{number:06d}.json"


def _broken(store: Store, number: int, why: str) -> CorruptError:
    return CorruptError(f"champion log in {store.url}: the chain breaks at record {number}: {why}")
