"""What is served, apart from what is champion: records at `serving/<service>/<n>.json`, each claimed put-if-absent.

    switching ─► serving, or reverted

A promotion that the server does not survive leaves the champion as it is and the serving record turned back, so that
both can be seen and neither hides the other. `switching` is written before the service is touched: whoever comes after
a kill knows from it what to go back to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sparring.errors import ConflictError, CorruptError
from sparring.store.base import Store
from sparring.store.keys import check_key

_ATTEMPTS = 20


State = Literal["switching", "serving", "reverted"]


class Served(BaseModel):
    """One change of what a service serves. `digest` is None when it is not one of the line's checkpoints.

    `state`: `switching` when the service is about to get `uri`, `serving` after it was Ready with it and answered,
    `reverted` when it was not and `uri` is the one before again. `before` is what `switching` found there.
    `record` is the champion log's record that it follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    number: int = Field(ge=1)
    service: str
    state: State
    digest: str | None
    uri: str
    before: str | None = None
    record: int
    reason: str
    time: AwareDatetime


def append(
    store: Store, *, service: str, state: State, digest: str | None, uri: str, record: int, reason: str,
    before: str | None = None,
) -> Served:  # fmt: skip
    """Adds a record. Raises ConflictError when others never stop adding."""
    for _ in range(_ATTEMPTS):
        made = Served(
            number=len(_keys(store, service)) + 1,
            service=service,
            state=state,
            digest=digest,
            uri=uri,
            before=before,
            record=record,
            reason=reason,
            time=datetime.now(UTC),
        )
        if store.put_if_absent(_key(service, made.number), made.model_dump_json().encode()):
            return made
    raise ConflictError(f"the serving records of {service} changed {_ATTEMPTS} times meanwhile", hint="run it again")


def latest(store: Store, service: str) -> Served | None:
    """What the service serves, as far as we know. Raises CorruptError."""
    keys = _keys(store, service)
    return _read(store, keys[-1]) if keys else None


def history(store: Store, service: str) -> list[Served]:
    """All records of the service, in order. Raises CorruptError."""
    return [_read(store, key) for key in _keys(store, service)]


def services(store: Store) -> list[str]:
    """Services that have records."""
    return sorted({key.split("/")[1] for key in store.list("serving/")})


def _read(store: Store, key: str) -> Served:
    try:
        return Served.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise CorruptError(f"{key!r} in {store.url}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _keys(store: Store, service: str) -> list[str]:
    return store.list(f"serving/{check_key(service)}/")


def _key(service: str, number: int) -> str:
    return f"serving/{check_key(service)}/{number:06d}.json"
