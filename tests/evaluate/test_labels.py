"""The labelling queue: drawn with known probabilities, labelled durably, by several people at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.errors import CorruptError, UsageError
from sparring.evaluate.labels import (
    LEAST,
    Item,
    LabelLog,
    Queue,
    agreement,
    allocate,
    draw_queue,
    labelled_rows,
    load_queue,
    queues,
)
from sparring.judge import load_judge
from sparring.steps.labelling import calibrate_labels, last_queue, open_queue
from sparring.store import Store, open_store
from tests.evaluate.labelling_world import MODELS, label_all, plant_answers, truth

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store")).scope("lines/default")


@pytest.fixture
def queue(store: Store) -> Queue:
    return open_queue(store, plant_answers(store), 100)


def test_the_queue_is_the_same_for_everybody_and_covers_every_stratum(store: Store, queue: Queue) -> None:
    assert open_queue(store, None, 100) == queue == load_queue(store, queue.id) == last_queue(store)
    assert len(queue.items) == queue.sample == 100 and len({item.id for item in queue.items}) == 100
    assert sum(part.population for part in queue.strata) == 320 and set(queue.models) == set(MODELS.values())
    assert all(part.drawn >= min(part.population, LEAST) for part in queue.strata)
    sizes = {part.name: part for part in queue.strata}
    for item in queue.items:
        part = sizes[item.stratum]
        assert item.probability == part.drawn / part.population > 0
    assert sum(1 / item.probability for item in queue.items) == pytest.approx(320)


@given(st.dictionaries(st.text(max_size=4), st.integers(1, 400), min_size=1, max_size=30), st.integers(0, 2000))
def test_allocation(sizes: dict[str, int], sample: int) -> None:
    least = {name: min(size, LEAST) for name, size in sizes.items()}
    if sample < sum(least.values()):
        with pytest.raises(UsageError, match="at least"):
            allocate(sizes, sample)
        return
    found = allocate(sizes, sample)
    assert sum(found.values()) == min(sample, sum(sizes.values()))
    assert all(least[name] <= found[name] <= size for name, size in sizes.items())


def test_order_and_ids_tell_nothing_of_the_model(queue: Queue) -> None:
    models = [item.model for item in queue.items]
    changes = sum(a != b for a, b in pairwise(models))
    assert changes > 25  # 49 expected when shuffled; 1 when sorted
    assert not any(item.model[:8] in item.id for item in queue.items)


def test_labels_go_on_where_they_were(store: Store, queue: Queue) -> None:
    label_all(store, queue, limit=30)
    log = LabelLog(store, queue, "ann")
    assert len(log.pending()) == 70
    undone = log.undo()
    assert undone and len(log.pending()) == 71 and undone in {item.id for item in log.pending()}
    assert LabelLog(store, queue, "ann").undo() and len(LabelLog(store, queue, "ann").pending()) == 72
    label_all(store, queue)
    assert not LabelLog(store, queue, "ann").pending()


def test_undo_without_labels_and_strange_names(store: Store, queue: Queue) -> None:
    assert LabelLog(store, queue, "ann").undo() is None
    for name in ("", "../x", "a/b", "x" * 65, ".hidden", "a\nb", "ä"):
        with pytest.raises(UsageError, match="labeller"):
            LabelLog(store, queue, name)
    with pytest.raises(UsageError, match="not in queue"):
        LabelLog(store, queue, "ann").add("0" * 16, "refused")


def test_two_share_the_work_or_label_the_same(store: Store, queue: Queue) -> None:
    ann, bob = LabelLog(store, queue, "ann"), LabelLog(store, queue, "bob")
    assert ann.pending()[0] != bob.pending()[0]
    for _ in range(20):
        for log in (ann, bob):
            log.refresh()
            log.add(log.pending()[0].id, "complied")
    ann.refresh()
    assert len(ann.labels()) == 40 and all(len(found) == 1 for found in ann.labels().values())
    assert len(LabelLog(store, queue, "bob", all_items=True).pending()) == 80
    both = LabelLog(store, queue, "bob", all_items=True)
    both.add(ann.queue.items[0].id, "skip")
    assert len(LabelLog(store, queue, "carl").pending()) == 60


def test_labels_in_a_folder_and_in_a_bucket(any_store: Store) -> None:
    queue = open_queue(any_store, plant_answers(any_store, size=12), 80)
    label_all(any_store, queue, limit=4)
    assert LabelLog(any_store, queue, "ann").undo()
    assert len(LabelLog(any_store, queue, "ann").pending()) == len(queue.items) - 3
    assert load_queue(any_store, queue.id) == queue


def test_two_windows_of_one_labeller_never_write_the_same_object(store: Store, queue: Queue) -> None:
    first, second = LabelLog(store, queue, "ann"), LabelLog(store, queue, "ann")
    for item in queue.items[:10]:
        first.add(item.id, "refused")
        second.add(item.id, "complied")  # does not know of the other's numbers
    first.refresh()
    labels = LabelLog(store, queue, "ann").labels()
    assert len(labels) == 10 and all(found[0].refusal == "complied" for found in labels.values())
    assert len(store.list(f"judge/labels/{queue.id}/by/ann/")) == 20


def _label_a_quarter(url: str, name: str) -> None:
    opened = open_store(url).scope("lines/default")
    label_all(opened, last_queue(opened), name, limit=25)


@pytest.mark.slow
def test_processes_at_once_lose_nothing(store: Store, queue: Queue, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    url = str(tmp_path / "store")
    workers = [context.Process(target=_label_a_quarter, args=(url, name)) for name in ("ann", "ann", "bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(110)
        assert worker.exitcode == 0
    assert len(store.list(f"judge/labels/{queue.id}/by/")) == 75


def test_a_kill_loses_no_label(store: Store, queue: Queue, tmp_path: Path) -> None:
    """`kill -9` in the middle: what was said to be labelled is there, whole, and the next one goes on."""
    code = (
        "from sparring.store import open_store\nfrom sparring.steps.labelling import last_queue\n"
        "from sparring.evaluate.labels import LabelLog\nimport sys\n"
        "store = open_store(sys.argv[1]).scope('lines/default')\nlog = LabelLog(store, last_queue(store), 'ann')\n"
        "for item in log.pending():\n    log.add(item.id, 'complied', None)\n    print(item.id, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(5)]
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        said += [line.strip() for line in process.stdout if line.endswith("\n")]
    log = LabelLog(store, queue, "ann")
    assert set(said) <= set(log.labels()) and len(log.labels()) <= len(said) + 1
    assert len(log.pending()) == 100 - len(log.labels())


def test_an_edited_label_is_named(store: Store, queue: Queue) -> None:
    label_all(store, queue, limit=1)
    (key,) = store.list(f"judge/labels/{queue.id}/by/")
    store.put(key, store.get(key).replace(b'"labeller"', b'"labelled"'))
    with pytest.raises(CorruptError, match=r"000001\.json"):
        LabelLog(store, queue, "ann")


def test_calibration_waits_for_every_stratum(store: Store, queue: Queue) -> None:
    label_all(store, queue, limit=3)
    with pytest.raises(UsageError, match="have no label yet, 3 of 100 items have"):
        calibrate_labels(load_judge("string-match"), store, queue)


def test_skipped_strata_are_left_out_and_said(store: Store, queue: Queue) -> None:
    rare = min(queue.strata, key=lambda part: part.population).name
    log = LabelLog(store, queue, "ann")
    for item in log.pending():
        log.add(item.id, "skip" if item.stratum == rare else truth(item), None)
    made = calibrate_labels(load_judge("string-match"), store, queue)
    assert [part.name for part in made.strata if not part.labelled] == [rare]


def test_weights_add_up_to_the_answers(store: Store, queue: Queue) -> None:
    log = label_all(store, queue)
    rows, strata = labelled_rows(queue, log.labels())
    assert sum(row.weight for _, row in rows) == pytest.approx(320)
    assert sum(part.labelled for part in strata) == 100
    for labeller in ("bob", "carl"):  # three labels of an item share its weight
        other = LabelLog(store, queue, labeller, all_items=True)
        for item in queue.items[:50]:
            other.add(item.id, "refused")
    rows, _ = labelled_rows(queue, other.labels())
    other.refresh()
    rows, _ = labelled_rows(queue, other.labels())
    assert len(rows) == 200 and sum(row.weight for _, row in rows) == pytest.approx(320)


def test_agreement_by_hand(store: Store, queue: Queue) -> None:
    assert agreement({}) is None
    ann, bob = (LabelLog(store, queue, name, all_items=True) for name in ("ann", "bob"))
    for number, item in enumerate(queue.items[:10]):
        ann.add(item.id, "refused" if number < 5 else "complied")
        bob.add(item.id, "partial" if number < 4 else "complied")
    ann.refresh()
    found = agreement(ann.labels())
    assert found and found[0] == pytest.approx(0.9)
    chance = 0.45**2 + 0.55**2  # nine of twenty labels are refusals
    assert found[1] == pytest.approx((0.9 - chance) / (1 - chance))


def test_labels_calibrate_another_judge_too(store: Store, queue: Queue) -> None:
    label_all(store, queue)
    own = calibrate_labels(load_judge("string-match"), store, queue)
    assert own.judge == queue.judge and own.round == queue.round and own.origin == "labelling"
    assert own.files == {queue.id: queue.digest} and own.labellers == ["ann"]
    pooled = own.cell("refused", None, None)
    assert pooled and pooled.sensitivity and pooled.sensitivity.value < 1.0
    assert own.cell("harmful", MODELS["candidate"], "harmful") and not own.cell("harmful", None, "benign")


def test_mistakes_are_one_line(store: Store) -> None:
    with pytest.raises(UsageError, match="no round"):
        open_queue(store, None, 100)
    with pytest.raises(UsageError, match="nothing was labelled yet"):
        last_queue(store)
    number = plant_answers(store)
    with pytest.raises(UsageError, match="has no judged answers"):
        open_queue(store, number + 1, 100)
    with pytest.raises(UsageError, match="cannot cover"):
        open_queue(store, number, 20)
    assert queues(store) == []
    open_queue(store, number, 100)
    with pytest.raises(UsageError, match="'x' is not there"):
        last_queue(store, "x")


ITEMS = st.builds(
    Item,
    id=st.just("-"),
    model=st.sampled_from(["m1", "m2"]),
    suite=st.just("s"),
    slice=st.sampled_from(["p", "q"]),
    kind=st.sampled_from(["harmful", "benign"]),
    prompt_id=st.uuids().map(str),
    behavior=st.text(max_size=3),
    answer_index=st.just(0),
    prompt=st.text(max_size=20),
    answer=st.text(max_size=20),
    refused=st.none() | st.booleans(),
    harmful=st.none() | st.booleans(),
    status=st.sampled_from(["ok", "void"]),
)


@given(st.lists(ITEMS, min_size=1, max_size=40))
def test_a_queue_survives_the_round_trip(items: list[Item]) -> None:
    drawn = draw_queue(items, round=3, judge="j@1", sample=200)
    assert Queue.model_validate(json.loads(drawn.model_dump_json())) == drawn
    assert len(drawn.items) == len(items)
    assert drawn == draw_queue(list(reversed(items)), round=3, judge="j@1", sample=200)
