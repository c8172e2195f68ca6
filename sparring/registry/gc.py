"""Mark and sweep of one line's store: rejected candidates, warm starts, orphaned blobs, datasets that nothing names.

    mark ─► what is unnamed and old ─► a batch: mark again ─► manifests away ─► mark again ─► blobs away

What was named meanwhile is spared, or gets its manifest back. What is younger than the grace period stays, by the
store's own clock: an upload in progress is young. Without its manifest a checkpoint does not exist, so a killed sweep
leaves orphans for the next one and no half checkpoint. The champion log, decisions, verdict tables, looks, the ledger
and the pool are never touched. Left is the time between the last look and the delete request, some milliseconds, in
which a checkpoint of a round that ended long ago would have to be named again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sparring.errors import NotFoundError, StoreError
from sparring.registry.marks import Marked, Retention, mark
from sparring.store.base import Entry, Store

Kind = Literal["checkpoint", "dataset", "orphan", "answers", "leftover"]

_BATCH: Final = 16
_FOLDER: Final = re.compile(r"(checkpoints|datasets)/([0-9a-f]{64})/.+")
_ANSWERS: Final = re.compile(r"rounds/(\d{6,})/answer/(?:adaptive/[0-9a-f]{16}/[0-9a-f]{64}/)?[^/]+\.parquet")
_HEADS: Final = {"checkpoints": "manifest.json", "datasets": "card.json"}
_MAY_DELETE: Final = re.compile(rf"(checkpoints|datasets)/[0-9a-f]{{64}}/.+|{_ANSWERS.pattern}|checks/.+")


@dataclass(frozen=True)
class Item:
    """One thing to remove: everything under `prefix`. `age` in seconds of the store's clock, of its newest object."""

    kind: Kind
    name: str
    prefix: str
    objects: int
    size: int
    age: float


@dataclass(frozen=True)
class Plan:
    """What a sweep would remove, and how many unnamed things are kept because they are younger than the grace."""

    items: tuple[Item, ...]
    young: int

    @property
    def size(self) -> int:
        """Bytes that would be freed."""
        return sum(item.size for item in self.items)


@dataclass(frozen=True)
class Swept:
    """What a sweep removed, what it spared because it was named or written meanwhile, and the bytes freed."""

    items: tuple[Item, ...]
    spared: tuple[Item, ...]
    young: int
    size: int


def plan(store: Store, retention: Retention) -> Plan:
    """What is unnamed now. Raises CorruptError when the history cannot be read: then nothing may be removed."""
    now, marked = store_time(store), mark(store, retention)
    found = list(_unnamed(store, marked, retention, now))
    old = tuple(item for item in found if item.age >= retention.grace)
    return Plan(old, len(found) - len(old))


def sweep(store: Store, retention: Retention, *, batch: int = _BATCH) -> Swept:
    """Removes what `plan` finds, batch by batch; killed at any point, the next sweep finishes."""
    planned = plan(store, retention)
    gone: list[Item] = []
    spared: list[Item] = []
    size = 0
    for start in range(0, len(planned.items), batch):
        for item, freed in _sweep_batch(store, retention, planned.items[start : start + batch]):
            (spared if freed is None else gone).append(item)
            size += freed or 0
    return Swept(tuple(gone), tuple(spared), planned.young, size)


def store_time(store: Store) -> float:
    """The store's clock, in its own seconds: the time of an object written just now and removed again."""
    key = f"checks/{uuid.uuid4().hex}"
    store.put(key, b"")
    try:
        (entry,) = store.entries(key)
    except ValueError as error:
        raise StoreError(f"{store.url} does not list {key!r}, which was just written") from error
    finally:
        store.delete(key)
    return entry.written


def _sweep_batch(store: Store, retention: Retention, items: Sequence[Item]) -> Iterator[tuple[Item, int | None]]:
    """Each item with the bytes freed, None when it was spared."""
    heads: dict[Item, bytes | None] = {}
    marked, now = mark(store, retention), store_time(store)
    for item in items:
        if _is_named(item, marked) or not _is_old(store, item, retention, now):
            yield item, None
        else:
            heads[item] = _take_head(store, item)
    marked = mark(store, retention)
    for item, head in heads.items():
        if _is_named(item, marked):
            _give_back(store, item, head)
            yield item, None
        else:
            freed = _remove(store, item, retention, now)
            yield item, None if freed is None else freed + len(head or b"")


def _take_head(store: Store, item: Item) -> bytes | None:
    """Removes the manifest or card first: from here on the checkpoint or dataset does not exist."""
    key = _head_key(item)
    if key is None or item.kind == "orphan":
        return None
    try:
        head = store.get(key)
    except NotFoundError:
        return None
    _delete(store, key)
    return head


def _give_back(store: Store, item: Item, head: bytes | None) -> None:
    """It was named between the two marks: it exists again, as it was."""
    key = _head_key(item)
    if key is not None and head is not None:
        store.put_if_absent(key, head)


def _remove(store: Store, item: Item, retention: Retention, now: float) -> int | None:
    """Bytes freed without the head's; None when somebody has begun to store it again."""
    entries, head = _entries(store, item), _head_key(item)
    if any(entry.key == head for entry in entries) or _youngest(entries, now) < retention.grace:
        return None
    for entry in entries:
        _delete(store, entry.key)
    return sum(entry.size for entry in entries)


def _entries(store: Store, item: Item) -> list[Entry]:
    """The item's objects as they are now; of a round's answers only the tables."""
    entries = store.entries(item.prefix)
    return [entry for entry in entries if item.kind != "answers" or _ANSWERS.fullmatch(entry.key)]


def _delete(store: Store, key: str) -> None:
    """The only place that deletes: nothing outside four folders, whatever the code above believes."""
    if not _MAY_DELETE.fullmatch(key):
        raise StoreError(f"gc must not delete {key!r}")
    store.delete(key)


def _is_named(item: Item, marked: Marked) -> bool:
    top, name = item.prefix.split("/")[:2]
    if top == "checkpoints":
        return name in marked.checkpoints
    if top == "datasets":
        return marked.datasets is None or name in marked.datasets
    return top == "rounds" and int(name) in marked.rounds


def _is_old(store: Store, item: Item, retention: Retention, now: float) -> bool:
    return _youngest(_entries(store, item), now) >= retention.grace


def _youngest(entries: Sequence[Entry], now: float) -> float:
    """Age of the newest entry; what is gone is as old as can be."""
    return min((now - entry.written for entry in entries), default=float("inf"))


def _head_key(item: Item) -> str | None:
    """Key of the object without which the item does not exist, if it has one."""
    head = _HEADS.get(item.prefix.split("/", 1)[0])
    return f"{item.prefix}{head}" if head else None


def _unnamed(store: Store, marked: Marked, retention: Retention, now: float) -> Iterator[Item]:
    """Everything that may be removed once it is old enough."""
    for top, head in _HEADS.items():
        for name, entries in _grouped(store.entries(f"{top}/"), _FOLDER).items():
            whole = any(entry.key == f"{top}/{name}/{head}" for entry in entries)
            kind: Kind = "orphan" if not whole else "checkpoint" if top == "checkpoints" else "dataset"
            yield from _item(kind, name, f"{top}/{name}/", entries, marked, now)
    if retention.answers:
        for name, entries in _grouped(store.entries("rounds/"), _ANSWERS, 1).items():
            yield from _item("answers", f"round {int(name)}", f"rounds/{name}/answer/", entries, marked, now)
    for entry in store.entries("checks/"):
        yield from _item("leftover", entry.key, entry.key, [entry], marked, now)


def _item(kind: Kind, name: str, prefix: str, entries: Sequence[Entry], marked: Marked, now: float) -> Iterator[Item]:
    size, age = sum(entry.size for entry in entries), _youngest(entries, now)
    item = Item(kind, name, prefix, len(entries), size, age)
    if not _is_named(item, marked):
        yield item


def _grouped(entries: Sequence[Entry], pattern: re.Pattern[str], group: int = 2) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if match := pattern.fullmatch(entry.key):
            found.setdefault(match[group], []).append(entry)
    return found
