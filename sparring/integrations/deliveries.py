"""Delivering hooks: at least once, in order, after the champion log has the record and never before.

    champion log ─► events ─► those a hook is for and has not had ─► send ─► `hooks/<name>/<record>.json`

A hook that is new to a line begins with the newest event, or with its first round's. What failed waits for the next
delivery (every round's end, or `sparring hooks deliver`) until it is given up; a change of serving or an alert that is
no longer how the line stands is passed over. Events of a hook are settled in order, so that its last record says where
it is. Nothing here touches the champion, and no failure leaves `deliver`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
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
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.steps.entry import recorded_config
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


def deliver(line: Line, hooks: Sequence[HookConfig], *, again: bool = False) -> list[Delivery]:
    """Delivers what is due; what was done now, in order. `again`: also the last event of a hook that was given up.

    Raises SparringError only for the store and its log.
    """
    events = happened(read_log(line.store), 0)
    done: list[Delivery] = []
    for hook in hooks:
        known = last_of(line.store, hook.name)
        if again and known and known.state == "given_up":
            known = known.model_copy(update={"state": "failing"})
        for told in _due(line, hook, events, known):
            before = known if known and known.record == told.record.number else None
            done.append(_save(line.store, _tried(line, hook, told, before)))
            if done[-1].state == "failing":
                break  # in order: what comes later waits for it
    return done


def last_of(store: Store, hook: str) -> Delivery | None:
    """A hook's last record: all before it are settled."""
    keys = [key for key in store.list(f"hooks/{hook}/") if not key.endswith(_BEGIN)]
    return _parsed(store, keys[-1], Delivery) if keys else None


def of_record(store: Store, record: int) -> list[Delivery]:
    """Deliveries of one record of the champion log, by hook."""
    keys = [f"hooks/{name}/{record:06d}.json" for name in store.folders("hooks")]
    return [_parsed(store, key, Delivery) for key in keys if store.exists(key)]


def pending(line: Line, hooks: Sequence[HookConfig]) -> list[Delivery]:
    """The last delivery of each hook, as recorded."""
    return [known for hook in hooks if (known := last_of(line.store, hook.name))]


def send(line: Line, hook: HookConfig, told: Happened) -> str:
    """Sends once; the receiver's answer. Raises HookFailed; SparringError for a package or certificate."""
    try:
        return _send(line, hook, told)
    except (HookFailed, SparringError):
        raise
    except Exception as error:  # noqa: BLE001 - a reply may be anything; its words and our secrets stay out of the text
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise HookFailed(f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}") from None


def _send(line: Line, hook: HookConfig, told: Happened) -> str:
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
_CROWNED = ("promote", "rollback")


class _Begin(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    after: int


def _due(line: Line, hook: HookConfig, events: list[Happened], known: Delivery | None) -> list[Happened]:
    """Events that the hook is for and has not had; `known` is its last record."""
    if known:
        after = known.record - (not known.settled)
    else:
        key = f"hooks/{hook.name}{_BEGIN}"
        if not line.store.exists(key):
            begin = _Begin(after=_after(line.store, hook, events))
            line.store.put_if_absent(key, begin.model_dump_json().encode())
        after = _parsed(line.store, key, _Begin).after
    return [told for told in events if told.record.number > after and _is_for(hook, told)]


def _after(store: Store, hook: HookConfig, events: list[Happened]) -> int:
    """The record after which a new hook begins: before the newest event; before those of rounds whose run file named
    it, which were killed before they could tell it; for what follows the champion, before the champion's own.
    """
    after = events[-1].record.number - 1 if events else 0
    for told in reversed(events):
        if told.record.round is None:
            continue
        if not _named(store, hook.name, told.record.round):
            break
        after = told.record.number - 1
    if isinstance(hook, KServeConfig | MlflowConfig | ModelRegistryConfig):
        after = min([after, *(t.record.number - 1 for t in events if t.current and t.event in _CROWNED)])
    return after


def _named(store: Store, hook: str, number: int) -> bool:
    """Whether the round was claimed with a run file that has the hook."""
    try:
        config = rounds.load_config(store, recorded_config(store, number))
    except NotFoundError:
        return False
    return any(named.name == hook for named in config.hooks)


def _is_for(hook: HookConfig, told: Happened) -> bool:
    if isinstance(hook, WebhookConfig | SlackConfig):
        return told.event in hook.on
    if isinstance(hook, AlertmanagerConfig):
        return True  # what is no alert ends the others
    return told.event in _CROWNED if isinstance(hook, KServeConfig) else told.event == "promote"


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
    """A failure does not undo what another delivery settled meanwhile."""
    key = f"hooks/{made.hook}/{made.record:06d}.json"
    if made.state == "failing" and store.exists(key):
        meanwhile = _parsed(store, key, Delivery)
        if meanwhile.state in ("delivered", "passed_over"):
            return meanwhile
    store.put(key, made.model_dump_json().encode())
    return made


def _parsed(store: Store, key: str, cls: type[M]) -> M:
    try:
        return cls.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"{key!r} in {store.url}: {where}: {fault['msg']}") from error
