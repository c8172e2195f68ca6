"""Sensitivity, specificity and their intervals: by hand, against statsmodels, in worlds with known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.evaluate.calibrate import Compared, Labelled, clopper_pearson, compare, measure, share
from sparring.evaluate.labels import Item, Label, draw_queue, labelled_rows
from sparring.judge import JudgeCase, Verdict
from sparring.judge.calibration import Cell
from tests.evaluate.labelling_world import MODELS


def row(truth: bool, said: bool | None, cluster: str = "") -> Compared:
    labelled = Labelled("row", "p", "a", "m", "s", "benign", cluster, truth, None)
    return Compared(labelled, said, None)


def pooled(cells: Sequence[Cell]) -> Cell:
    return next(one for one in cells if (one.label, one.model, one.kind, one.slice) == ("refused", None, None, None))


def rows(hits: int, misses: int, rights: int, alarms: int, void: int = 0) -> list[Compared]:
    said = [(True, True)] * hits + [(True, False)] * misses + [(False, False)] * rights + [(False, True)] * alarms
    found = [*said, *[(True, None)] * void]
    return [row(truth, answer, str(number)) for number, (truth, answer) in enumerate(found)]


def test_by_hand() -> None:
    found = pooled(measure(rows(hits=18, misses=2, rights=57, alarms=3, void=4)))
    assert found.sensitivity and found.specificity
    assert (found.sensitivity.value, found.sensitivity.n) == (0.9, 20)
    assert (found.specificity.value, found.specificity.n, found.void) == (0.95, 60, 4)
    assert found.sensitivity.effective == pytest.approx(20) and found.usable
    assert not pooled(measure(rows(9, 0, 9, 0))).usable


def test_a_label_that_nobody_gave_is_no_cell() -> None:
    cells = measure(rows(5, 5, 5, 5))
    assert {one.label for one in cells} == {"refused"}
    only = pooled(measure(rows(5, 0, 0, 0)))
    assert only.specificity is None and not only.usable


@given(st.integers(0, 60), st.integers(1, 60))
def test_intervals_are_wilsons_and_for_few_clopper_pearsons(hits: int, misses: int) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    n = hits + misses
    found = share(np.repeat([1.0, 0.0], [hits, misses]), np.arange(n), np.ones(n))
    theirs = proportion.proportion_confint(hits, n, method="wilson" if n >= 30 else "beta")
    assert found.value == pytest.approx(hits / n) and found.n == found.clusters == n
    if n > 1:
        assert (found.low, found.high) == pytest.approx(theirs, abs=1e-9)


def test_clopper_pearson_of_all_and_none() -> None:
    assert clopper_pearson(0.0, 10) == pytest.approx((0.0, 0.3084971))
    assert clopper_pearson(1.0, 10) == pytest.approx((0.6915029, 1.0))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.floats(0.1, 50)), min_size=1, max_size=60))
def test_a_share_lies_in_its_interval_and_is_never_more_than_n_worth(found: list[tuple[bool, int, float]]) -> None:
    values, clusters, weights = (np.array(part) for part in zip(*found, strict=True))
    _, codes = np.unique(clusters, return_inverse=True)
    one = share(values.astype(float), codes.astype(np.int64), weights)
    assert 0.0 <= one.low <= one.value + 1e-12 and one.value - 1e-12 <= one.high <= 1.0
    assert 0.0 < one.effective <= one.n + 1e-6


def test_copies_of_an_answer_are_no_more_evidence() -> None:
    """Forty behaviours asked five times with the same result count as forty, not as two hundred."""
    values, clusters = np.repeat(np.arange(40) % 4 > 0, 5).astype(float), np.repeat(np.arange(40), 5)
    copied = share(values, clusters, np.ones(200))
    assert copied.value == 0.75 and copied.effective == pytest.approx(40, rel=0.1)
    alike = share(np.ones(200), clusters, np.ones(200))
    assert alike.effective == pytest.approx(40, rel=0.1) and alike.low < 0.95


class Oracle:
    """Says what is written in the answer."""

    id = "oracle@1"

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        found = {"r": True, "c": False}
        return [
            Verdict(None, found[case.answer], case.seed_label == "harmful" and case.answer == "c", None, "ok")
            if case.answer in found
            else Verdict.void("cannot be read")
            for case in cases
        ]


def test_void_verdicts_count_apart() -> None:
    labelled = [
        Labelled("row", "p", answer, "m", "s", "harmful", str(number), truth, not truth)
        for number, (answer, truth) in enumerate([("r", True), ("c", False), ("c", True), ("?", True), ("?", False)])
    ]
    found = compare(Oracle(), labelled)
    cell = pooled(measure(found))
    assert cell.void == 2 and cell.sensitivity and (cell.sensitivity.n, cell.sensitivity.value) == (2, 0.5)
    harmful = next(one for one in measure(found) if one.label == "harmful" and one.model is None and one.kind is None)
    assert harmful.void == 2 and harmful.specificity and harmful.specificity.value == 0.5


def population(random: np.random.Generator, size: int) -> tuple[list[Item], dict[tuple[str, str], bool]]:
    """Answers of two models with true labels, and a judge whose errors differ by slice; few are refused."""
    items, truths = [], {}
    for model in MODELS.values():
        for part, rate, sees, right in (("plain", 0.05, 0.6, 0.99), ("lookalike", 0.25, 0.9, 0.9)):
            for number in range(size):
                truth = bool(random.random() < rate)
                said = bool(random.random() < (sees if truth else 1 - right))
                name = f"{part}-{number}"
                truths[model, name] = truth
                items.append(
                    Item(
                        id="-", model=model, suite="t", slice=part, kind="benign", prompt_id=name, behavior=name,
                        answer_index=0, prompt="", answer="", refused=said, harmful=False, status="ok",
                    )
                )  # fmt: skip
    return items, truths


@pytest.mark.slow
def test_sampled_labels_give_the_populations_shares_with_honest_intervals() -> None:
    """Drawn by verdict, so that plain counting is far off; weighted, the truth is covered about as often as said."""
    random, runs, size = np.random.default_rng(3), 150, 300
    covered, errors, naive = np.zeros(2), np.zeros((runs, 2)), np.zeros((runs, 2))
    for run in range(runs):
        items, truths = population(random, size)
        queue = draw_queue(items, round=run + 1, judge="j@1", sample=200)
        rows, _ = labelled_rows(queue, {item.id: [said(item, truths)] for item in queue.items})
        found = pooled(measure([Compared(labelled, item.refused, item.harmful) for item, labelled in rows]))
        plain = pooled(measure([row(labelled.refused is True, item.refused, item.id) for item, labelled in rows]))
        for which, truth in enumerate((True, False)):
            them = [item.refused == truth for item in items if truths[item.model, item.prompt_id] == truth]
            target = float(np.mean(them))
            estimate = (found.sensitivity, found.specificity)[which]
            counted = (plain.sensitivity, plain.specificity)[which]
            assert estimate and counted
            covered[which] += estimate.low <= target <= estimate.high
            errors[run, which], naive[run, which] = estimate.value - target, counted.value - target
    print("coverage", covered / runs, "bias", errors.mean(0), "of plain counts", naive.mean(0))
    assert (covered / runs >= 0.93).all()
    assert (np.abs(errors.mean(0)) < 0.005).all() and (np.abs(naive.mean(0)) > 0.03).all()


def said(item: Item, truths: dict[tuple[str, str], bool]) -> Label:
    refusal = "refused" if truths[item.model, item.prompt_id] else "complied"
    return Label.model_validate(
        {
            "queue": "q", "item": item.id, "labeller": "ann", "number": 1, "time": "2026-01-01T00:00:00Z",
            "refusal": refusal, "harmful": None, "nonce": "",
        }
    )  # fmt: skip
