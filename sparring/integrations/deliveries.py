"""Delivering hooks: at least once, in order, after the champion log has the record and never before.

    champion log ─► events ─► those a hook is for and has not had ─► send ─► `hooks/<name>/<record>.json`

A hook that is new to a line begins with the newest event. What failed waits for the next delivery (every round's end,
or `sparring hooks deliver`) until it is given up; a change of serving or a notice that is no longer how the line stands
is passed over when it failed before. Nothing here touches the champion, and no failure leaves `deliver`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sparring.config.hooks import (
    AlertmanagerConfig,
    HookConfig,
    KServeConfig,
    MlflowConfig,
    ModelRegistryConfig,
    SlackConfig,
    WebhookConfig,
)
from sparring.errors import CorruptError, NotFoundError, SparringError
from sparring.integrations import kserve, notify, registries
from sparring.integrations.events import Happened, happened, message
from sparring.integrations.http import HookFailed
from sparring.registry.champion import ChampionLog, read_log
from sparring.store.base import Store

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
State = Literal["delivered", "failing", "given_up", "passed_over"]


class Attempt(BaseModel):
    """One delivery: when it ended, and the receiver's answer or why there was none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    time: AwareDatetime
    ok: bool
    detail: str


class Delivery(BaseModel):
    """What became of one event at one hook. `record` is the champion log's; `id` is what the receiver was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    hook: str
    kind: str
    event: str
    record: int = Field(ge=0)
    round: int | None
    id: str
    state: State
    attempts: tuple[Attempt, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether nothing more will be tried."""
        return self.state != "failing"


@dataclass(frozen=True)
class Line:
    """A line's store and name."""

    store: Store
    name: str


def deliver(line: Line, hooks: Sequence[HookConfig]) -> list[Delivery]:
    """Delivers what is due; what was done now, in order. Raises SparringError only for the store and its log."""
    found = read_log(line.store)
    done: list[Delivery] = []
    for hook in hooks:
        for told in _due(line, hook, found):
            known = _load(line.store, hook.name, told.record.number)
            if known is not None and known.settled:
                continue
            done.append(_save(line.store, _tried(line, hook, told, known)))
            if done[-1].state == "failing":
                break  # in order: what comes later waits for it
    return done


def pending(line: Line, hooks: Sequence[HookConfig]) -> list[Delivery]:
    """The last delivery of each hook and every one that is failing, as recorded."""
    shown: list[Delivery] = []
    for hook in hooks:
        known = [_read(line.store, key) for key in line.store.list(f"hooks/{hook.name}/") if not key.endswith(_BEGIN)]
        shown += [d for d in known if d.state == "failing" and d != known[-1]] + known[-1:]
    return shown


def send(line: Line, hook: HookConfig, told: Happened) -> str:
    """Sends once; the receiver's answer. Raises HookFailed."""
    body = message(told, store=line.store.url, line=line.name)
    match hook:
        case WebhookConfig():
            return notify.webhook(hook, told, body, line.name)
        case SlackConfig():
            return notify.slack(hook, told, body, line.name)
        case AlertmanagerConfig():
            return notify.alertmanager(hook, told, body, line.name)
        case KServeConfig():
            return kserve.kserve(hook, told, line.store)
        case MlflowConfig():
            return registries.mlflow(hook, told, body)
        case ModelRegistryConfig():
            return registries.model_registry(hook, told, body)


_BEGIN = "/begin.json"


class _Begin(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    after: int


def _due(line: Line, hook: HookConfig, found: ChampionLog) -> list[Happened]:
    """Events that the hook is for, since it was first seen."""
    events = happened(found, 0)
    key = f"hooks/{hook.name}{_BEGIN}"
    if not line.store.exists(key):
        after = events[-1].record.number - 1 if events else found.head
        line.store.put_if_absent(key, _Begin(after=after).model_dump_json().encode())
    begun = _parsed(line.store, key, _Begin).after
    return [told for told in events if told.record.number > begun and _is_for(hook, told)]


def _is_for(hook: HookConfig, told: Happened) -> bool:
    if isinstance(hook, WebhookConfig | SlackConfig | AlertmanagerConfig):
        return told.event in hook.on
    if isinstance(hook, KServeConfig):
        return told.event in ("promote", "rollback")
    return told.event == "promote"


def _tried(line: Line, hook: HookConfig, told: Happened, known: Delivery | None) -> Delivery:
    """One more delivery. Serving follows the line as it stands; alerts and notices of the past help nobody late."""
    made = known or Delivery(
        hook=hook.name,
        kind=hook.kind,
        event=told.event,
        record=told.record.number,
        round=told.record.round,
        id=told.id(line.name),
        state="failing",
    )
    if not told.current and (isinstance(hook, KServeConfig | AlertmanagerConfig)):
        return made.model_copy(update={"state": "passed_over"})
    final = len(made.attempts) + 1 >= hook.deliveries
    state: State
    try:
        detail, state = send(line, hook, told), "delivered"
    except HookFailed as failure:
        detail, state = failure.reason, "given_up" if final or failure.final else "failing"
    except SparringError as error:  # a missing package or certificate: the next delivery may find it mended
        detail, state = str(error), "given_up" if final else "failing"
    if state != "delivered":
        log.warning("hook %s, %s of record %d: %s", hook.name, told.event, told.record.number, detail)
    attempt = Attempt(time=datetime.now(UTC), ok=state == "delivered", detail=detail)
    return made.model_copy(update={"state": state, "attempts": (*made.attempts, attempt)})


def _save(store: Store, made: Delivery) -> Delivery:
    store.put(_key(made.hook, made.record), made.model_dump_json().encode())
    return made


def _load(store: Store, hook: str, record: int) -> Delivery | None:
    try:
        return _read(store, _key(hook, record))
    except NotFoundError:
        return None


def _read(store: Store, key: str) -> Delivery:
    return _parsed(store, key, Delivery)


def _parsed(store: Store, key: str, cls: type[M]) -> M:
    try:
        return cls.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"{key!r} in {store.url}: {where}: {fault['msg']}") from error


def _key(hook: str, record: int) -> str:
    return f"hooks/{hook}/{record:06d}.json"
