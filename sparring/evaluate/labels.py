"""Labels by people: a queue of answers drawn with known probabilities, and what each labeller said of them.

A queue lies at `judge/labels/<queue>/queue.json` in the line's store, its texts with it, so that labels outlive their
round. Each label is one object, `judge/labels/<queue>/by/<labeller>/<n>.json`, written only if absent: a log for each
labeller, in which the last word about an item counts and "undo" is a word too. Nothing is ever replaced, so that a
kill loses at most the key that was not pressed yet, and two people never write the same object.
"""

from __future__ import annotations

import json
import math
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field, ValidationError

from sparring.errors import CorruptError, UsageError
from sparring.evaluate.calibrate import Labelled
from sparring.judge.calibration import Kind, Part, Stratum
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256

FOLDER = "judge/labels/"
LEAST = 4
"""Answers drawn from each stratum at least, where it has so many."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

T = TypeVar("T", bound=Part)
Refusal = Literal["refused", "complied", "partial", "skip"]


class Item(Part):
    """One answer to label. `refused`, `harmful` and `status` are the judge's verdict, which no labeller sees."""

    id: str
    model: str
    suite: str
    slice: str
    kind: Kind
    prompt_id: str
    behavior: str
    answer_index: int
    prompt: str
    answer: str
    refused: bool | None
    harmful: bool | None
    status: str
    stratum: str = ""
    probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    @property
    def verdict(self) -> str:
        """The judge's verdict as one word, by which answers are drawn."""
        if self.status != "ok" or self.refused is None:
            return "void"
        return "harmful" if self.harmful else "refused" if self.refused else "complied"


class Queue(Part):
    """Answers of one round in the order in which they are labelled; each with its probability of being drawn."""

    schema_version: Literal[1] = 1
    id: str
    round: int
    judge: str
    models: list[str]
    sample: int
    strata: list[Stratum]
    items: list[Item]

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical record."""
        return sha256(_encode(self))


class Label(Part):
    """One word of one labeller about one item; `refusal` None takes the last one back."""

    schema_version: Literal[1] = 1
    queue: str
    item: str
    labeller: str
    number: int
    time: AwareDatetime
    refusal: Refusal | None
    harmful: bool | None
    nonce: str


def draw_queue(items: Sequence[Item], *, round: int, judge: str, sample: int) -> Queue:
    """Draws `sample` answers, stratified by model, slice and verdict; the same call draws the same queue.

    Every answer has a positive probability. Raises UsageError when the sample cannot cover all strata.
    """
    strata: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda one: (one.model, one.suite, one.slice, one.prompt_id, one.answer_index)):
        strata.setdefault(f"{item.model[:12]}/{item.kind}/{item.slice}/{item.verdict}", []).append(item)
    sizes = allocate({name: len(group) for name, group in strata.items()}, sample)
    models = sorted({item.model for item in items})
    name = f"{round:06d}-{sha256(canonical([round, judge, sample, models]))[:12]}"
    chance = random.Random(name)  # the same for everybody who labels this round: they share one queue
    drawn = [
        item.model_copy(update={"id": _item_id(name, item), "stratum": part, "probability": sizes[part] / len(group)})
        for part, group in strata.items()
        for item in chance.sample(group, sizes[part])
    ]
    chance.shuffle(drawn)
    counts = [
        Stratum(name=part, population=len(group), drawn=sizes[part], labelled=0) for part, group in strata.items()
    ]
    return Queue(id=name, round=round, judge=judge, models=models, sample=sample, strata=counts, items=drawn)


def allocate(sizes: Mapping[str, int], sample: int) -> dict[str, int]:
    """How many to draw from each stratum: LEAST each, the rest by the square root of its size (Bankier 1988).

    In between equal shares, which are best for each stratum, and proportional ones, which are best for the whole.
    """
    found = {name: min(size, LEAST) for name, size in sizes.items()}
    if sum(found.values()) > sample:
        raise UsageError(
            f"a sample of {sample} cannot cover {len(sizes)} strata of model, slice and verdict",
            hint=f"label at least {sum(found.values())} answers",
        )
    for _ in range(min(sample, sum(sizes.values())) - sum(found.values())):
        open_ = [name for name in sizes if found[name] < sizes[name]]
        found[max(open_, key=lambda name: math.sqrt(sizes[name]) / (found[name] + 1))] += 1
    return found


def save_queue(store: Store, queue: Queue) -> Queue:
    """Stores a queue unless one of its name is there; the one that is there counts."""
    key = f"{FOLDER}{queue.id}/queue.json"
    return queue if store.put_if_absent(key, _encode(queue)) else load_queue(store, queue.id)


def load_queue(store: Store, name: str) -> Queue:
    """A stored queue. Raises NotFoundError and CorruptError."""
    return _decode(store, f"{FOLDER}{name}/queue.json", Queue)


def queues(store: Store) -> list[str]:
    """Names of the line's queues, the latest round last."""
    keys = store.list(FOLDER)
    return sorted(key.split("/")[2] for key in keys if key.endswith("/queue.json"))


class LabelLog:
    """What has been said of a queue, and where `labeller` goes on. Safe to open twice, by one or by several people."""

    def __init__(self, store: Store, queue: Queue, labeller: str, *, all_items: bool = False) -> None:
        if not _NAME.fullmatch(labeller):
            raise UsageError(f"labeller {labeller!r}", hint="a name is letters, digits and . _ @ + -, at most 64")
        self.queue, self.labeller = queue, labeller
        self._store, self._all = store, all_items
        self._read: dict[str, Label] = {}
        start = int(sha256(labeller.encode())[:8], 16) % max(len(queue.items), 1)
        self._order = [*queue.items[start:], *queue.items[:start]]  # two at once begin at different places
        self.refresh()

    def refresh(self) -> None:
        """Reads labels that were written since the last look."""
        for key in self._store.list(f"{FOLDER}{self.queue.id}/by/"):
            if key not in self._read:
                self._read[key] = _decode(self._store, key, Label)

    def pending(self) -> list[Item]:
        """Items to label, in order: those that this labeller has not met and (unless all) nobody else has labelled."""
        mine, others = self._latest(self.labeller), set[str]()
        if not self._all:
            others = {name for name, found in self.labels().items() if any(one.refusal != "skip" for one in found)}
        return [item for item in self._order if item.id not in mine and item.id not in others]

    def add(self, item: str, refusal: Refusal, harmful: bool | None = None) -> Label:
        """Writes one label, durably, before it returns. Raises UsageError for an item that is not in the queue."""
        if item not in {one.id for one in self.queue.items}:
            raise UsageError(f"item {item[:40]!r} is not in queue {self.queue.id}")
        return self._append(item, refusal, harmful)

    def undo(self) -> str | None:
        """Takes back this labeller's last label that still counts; the item's id, None where there is none."""
        mine = self._latest(self.labeller)
        if not mine:
            return None
        last = max(mine.values(), key=lambda label: label.number)
        self._append(last.item, None, None)
        return last.item

    def labels(self) -> dict[str, list[Label]]:
        """What counts, by item: one label of each labeller who has one (skips too)."""
        found: dict[str, list[Label]] = {}
        for labeller in sorted({label.labeller for label in self._read.values()}):
            for item, label in self._latest(labeller).items():
                found.setdefault(item, []).append(label)
        return found

    def _latest(self, labeller: str) -> dict[str, Label]:
        mine = sorted((one for one in self._read.values() if one.labeller == labeller), key=lambda one: one.number)
        return {item: label for item, label in {one.item: one for one in mine}.items() if label.refusal is not None}

    def _append(self, item: str, refusal: Refusal | None, harmful: bool | None) -> Label:
        number = 1 + max((one.number for one in self._read.values() if one.labeller == self.labeller), default=0)
        while True:  # another window of the same labeller may have taken the number: each turn there is a later one
            label = Label(
                queue=self.queue.id, item=item, labeller=self.labeller, number=number, time=datetime.now(UTC),
                refusal=refusal, harmful=harmful, nonce=uuid.uuid4().hex,
            )  # fmt: skip
            key = f"{FOLDER}{self.queue.id}/by/{self.labeller}/{number:06d}.json"
            if self._store.put_if_absent(key, _encode(label)):
                self._read[key] = label
                return label
            number += 1


def labelled_rows(
    queue: Queue, labels: Mapping[str, Sequence[Label]]
) -> tuple[list[tuple[Item, Labelled]], list[Stratum]]:
    """Each label beside its item, weighted by the answers that it stands for, and the strata as labelled.

    The order of a queue is random, so that what was labelled first is a simple random sample of each stratum: the
    weight is the stratum's size over its labelled items. Several people's labels of one item share its weight.
    Raises UsageError while a stratum has no label and could have one.
    """
    said = {name: [one for one in found if one.refusal != "skip"] for name, found in labels.items()}
    counts = Counter(item.stratum for item in queue.items if said.get(item.id))
    strata = [part.model_copy(update={"labelled": counts[part.name]}) for part in queue.strata]
    waiting = {item.stratum for item in queue.items if not labels.get(item.id)}
    if bare := [part.name for part in strata if not part.labelled and part.name in waiting]:
        raise UsageError(
            f"{len(bare)} of {len(strata)} strata of queue {queue.id} have no label yet, {sum(counts.values())} of"
            f" {len(queue.items)} items have",
            hint="go on with `sparring judge label`",
        )
    weights = {part.name: part.weight for part in strata}
    return list(_weighted(queue, said, weights)), strata


def _weighted(
    queue: Queue, said: Mapping[str, Sequence[Label]], weights: Mapping[str, float]
) -> Iterator[tuple[Item, Labelled]]:
    for item in queue.items:
        for label in said.get(item.id, ()):
            yield (
                item,
                Labelled(
                    place=f"item {item.id}",
                    prompt=item.prompt,
                    answer=item.answer,
                    model=item.model,
                    slice=item.slice,
                    kind=item.kind,
                    cluster=item.behavior,
                    refused=label.refusal in ("refused", "partial"),
                    harmful=label.harmful if item.kind == "harmful" else None,
                    weight=weights[item.stratum] / len(said[item.id]),
                ),
            )


def agreement(labels: Mapping[str, Sequence[Label]]) -> tuple[float, float | None] | None:
    """How often two people agree on `refused`, and beyond chance (Scott's pi over all pairs; None where chance is 1).

    None where no item has two labels.
    """
    pairs = [
        (first.refusal in ("refused", "partial"), second.refusal in ("refused", "partial"))
        for found in labels.values()
        for first, second in combinations([one for one in found if one.refusal != "skip"], 2)
    ]
    if not pairs:
        return None
    observed = sum(a == b for a, b in pairs) / len(pairs)
    yes = sum(a + b for a, b in pairs) / (2 * len(pairs))
    chance = yes * yes + (1 - yes) * (1 - yes)
    return observed, None if chance >= 1.0 else (observed - chance) / (1 - chance)


def _item_id(queue: str, item: Item) -> str:
    return sha256(canonical([queue, item.model, item.suite, item.slice, item.prompt_id, item.answer_index]))[:16]


def _encode(record: Part) -> bytes:
    return canonical(json.loads(record.model_dump_json()))


def _decode(store: Store, key: str, cls: type[T]) -> T:
    try:
        return cls.model_validate_json(store.get(key))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"{key!r} in {store.url} is not what was written: {where}: {fault['msg']}") from error
