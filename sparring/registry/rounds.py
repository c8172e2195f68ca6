"""Rounds: a number claimed put-if-absent, the steps' results below it, and its end.

A round without `end.json` is open: whoever comes next takes it up, so that a killed run spends no second α.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from sparring.config.run import RunConfig
from sparring.errors import BusyError, ConflictError, CorruptError, NotFoundError
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256
from sparring.store.conditional import check_conditional_puts
from sparring.store.keys import check_key

SCHEMA_VERSION = 1
_CLAIM = re.compile(r"rounds/(\d{6,})/claim\.json")

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Round:
    """A claimed round. `config_digest` is that of the claim: a resumed round goes on as it began."""

    number: int
    config_digest: str
    claimed_at: datetime
    resumed: bool


class _Claim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int
    number: int
    config_digest: str
    claimed_at: AwareDatetime
    nonce: str


class End(BaseModel):
    """How a round ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = SCHEMA_VERSION
    number: int
    decision: str
    reason: str


def claim(store: Store, *, config_digest: str, now: datetime) -> Round:
    """Takes up the open round, or claims the next number. `now` carries a time zone.

    Raises BusyError when another run claims the same number at this very moment, and StoreError when the store of a
    new line does not hold conditional puts.
    """
    last = last_round(store)  # looked for once: a round claimed between two looks would let us skip it, still open
    if _is_open(store, last):
        return _taken_up(store, last)
    number = last + 1
    if number == 1:
        check_conditional_puts(store)  # every later claim and promotion rests on it; a line asks once
    mine = _Claim(
        schema_version=SCHEMA_VERSION,
        number=number,
        config_digest=config_digest,
        claimed_at=now,
        nonce=uuid.uuid4().hex,
    )
    if not store.put_if_absent(_key(number, "claim.json"), _encode(mine)):
        raise BusyError(f"another run claimed round {number} of {store.url} just now", hint="wait until it has ended")
    return Round(number, config_digest, mine.claimed_at, resumed=False)


def open_round(store: Store) -> Round | None:
    """The last round when it has no end yet, else None."""
    number = last_round(store)
    return _taken_up(store, number) if _is_open(store, number) else None


def last_round(store: Store) -> int:
    """Number of the last claimed round; 0 when there is none."""
    matches = (_CLAIM.fullmatch(key) for key in store.list("rounds/"))
    return max((int(match[1]) for match in matches if match), default=0)


def close(store: Store, number: int, *, decision: str, reason: str) -> None:
    """Ends a round; ending it again the same way is fine. Raises ConflictError when it ended with another decision."""
    key = _key(number, "end.json")
    if not store.put_if_absent(key, _encode(End(number=number, decision=decision, reason=reason))):
        known = _decode(store, key, End)
        if known.decision != decision:
            raise ConflictError(f"round {number} of {store.url} ended with {known.decision}, not with {decision}")


def load_end(store: Store, number: int) -> End | None:
    """How a round ended; None while it is open."""
    return _load(store, _key(number, "end.json"), End)


def save_result(store: Store, number: int, step: str, result: BaseModel, *, replace: bool = False) -> None:
    """Stores a step's result. The first one stands: a different second one raises ConflictError unless `replace`."""
    key = _key(number, f"{check_key(step)}/result.json")
    body = {"schema_version": SCHEMA_VERSION, **json.loads(result.model_dump_json())}
    data = canonical(body)
    if replace:
        store.put(key, data)
    elif not store.put_if_absent(key, data) and store.get(key) != data:
        raise ConflictError(f"step {step} of round {number} has another result already ({key!r} in {store.url})")


def load_result(store: Store, number: int, step: str, cls: type[T]) -> T | None:
    """A step's result, None when it has none. Raises CorruptError, also for one that a later release wrote."""
    key = _key(number, f"{check_key(step)}/result.json")
    try:
        body = json.loads(store.get(key))
        version = body.pop("schema_version", 1)  # release 0.1 wrote none at first
    except NotFoundError:
        return None
    except (ValueError, AttributeError, TypeError) as error:
        raise CorruptError(f"{key!r} in {store.url} is not what was written: {error}") from error
    if version != SCHEMA_VERSION:
        raise CorruptError(f"{key!r} in {store.url} has schema version {version}, this release reads {SCHEMA_VERSION}")
    return _validated(store, key, json.dumps(body).encode(), cls)


def save_config(store: Store, config: RunConfig) -> str:
    """Stores a run file and returns its digest."""
    data = _encode(config)
    digest = sha256(data)
    store.put_if_absent(f"configs/{digest}.json", data)
    return digest


def load_config(store: Store, digest: str) -> RunConfig:
    """The run file of a digest, verified. Raises NotFoundError and CorruptError."""
    key = f"configs/{check_key(digest)}.json"
    found = sha256(store.get(key))
    if found != digest:
        raise CorruptError(f"run file {key!r} in {store.url} has digest {found}")
    return _decode(store, key, RunConfig)


def _is_open(store: Store, number: int) -> bool:
    return number > 0 and not store.exists(_key(number, "end.json"))


def _taken_up(store: Store, number: int) -> Round:
    found = _decode(store, _key(number, "claim.json"), _Claim)
    return Round(number, found.config_digest, found.claimed_at, resumed=True)


def _key(number: int, name: str) -> str:
    return f"rounds/{number:06d}/{name}"


def _encode(model: BaseModel) -> bytes:
    return canonical(json.loads(model.model_dump_json()))


def _load(store: Store, key: str, cls: type[T]) -> T | None:
    try:
        return _decode(store, key, cls)
    except NotFoundError:
        return None


def _decode(store: Store, key: str, cls: type[T]) -> T:
    return _validated(store, key, store.get(key), cls)


def _validated(store: Store, key: str, data: bytes, cls: type[T]) -> T:
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"{key!r} in {store.url} is not what was written: {where}: {fault['msg']}") from error
