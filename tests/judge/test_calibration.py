"""Calibrations as records: the round trip, the store, the newest of a judge, staleness; and XSTest's human labels."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.judge import MODELS, data_folder
from sparring.errors import CorruptError, DataError, NotFoundError
from sparring.evaluate.labelled import read_labelled, without_repeats
from sparring.judge import load_judge
from sparring.judge.calibration import (
    Calibration,
    Cell,
    Share,
    Stratum,
    latest,
    load,
    save,
    staleness,
    stored,
)
from sparring.steps.labelling import calibrate_files
from sparring.store import Store, open_store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNITS = st.floats(0, 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
COUNTS = st.integers(1, 99)
SHARES = st.builds(Share, value=UNITS, low=UNITS, high=UNITS, n=COUNTS, clusters=COUNTS, effective=st.floats(0.1, 1e6))
CELLS = st.builds(
    Cell,
    label=st.sampled_from(["refused", "harmful"]),
    model=st.none() | TEXT,
    kind=st.none() | st.sampled_from(["harmful", "benign"]),
    slice=st.none() | TEXT,
    sensitivity=st.none() | SHARES,
    specificity=st.none() | SHARES,
    void=COUNTS,
)
CALIBRATIONS = st.builds(
    Calibration,
    judge=TEXT,
    origin=st.sampled_from(["file", "labelling"]),
    time=st.datetimes(timezones=st.just(UTC)),
    files=st.dictionaries(TEXT, TEXT, max_size=2),
    round=st.none() | COUNTS,
    models=st.lists(TEXT, max_size=3),
    kappa=st.none() | st.floats(-1, 1),
    agreement=st.none() | UNITS,
    answers=COUNTS,
    cells=st.lists(CELLS, max_size=4),
    strata=st.lists(st.builds(Stratum, name=TEXT, population=COUNTS, drawn=COUNTS, labelled=COUNTS), max_size=2),
)


def made(judge: str = "j@1", **changes: Any) -> Calibration:
    known = {
        "judge": judge,
        "origin": "file",
        "time": NOW,
        "files": {},
        "models": ["a" * 64],
        "answers": 1,
        "cells": [],
    }
    return Calibration.model_validate(known | changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@given(CALIBRATIONS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, found: Calibration) -> None:
    opened = open_store(str(tmp_path_factory.mktemp("store")))
    digest = save(opened, found)
    assert load(opened, digest) == found and load(opened, digest).digest == digest == save(opened, found)
    assert [one.digest for one in stored(opened)] == [digest]


def test_the_newest_of_the_very_judge(store: Store) -> None:
    times = (NOW + timedelta(days=1), NOW, NOW - timedelta(days=1))
    for number, time in enumerate(times):
        save(store, made(time=time, answers=number + 1))
    save(store, made(judge="j@2", time=NOW + timedelta(days=9)))
    found = latest(store, "j@1")
    assert found and found.answers == 1 and len(stored(store)) == 4 and latest(store, "j@3") is None


def test_an_edited_calibration_is_refused(store: Store) -> None:
    digest = save(store, made())
    key = f"judge/calibrations/{digest}.json"
    store.put(key, store.get(key).replace(b'"answers":1', b'"answers":2'))
    with pytest.raises(CorruptError, match=digest):
        load(store, digest)
    with pytest.raises(CorruptError):
        latest(store, "j@1")
    with pytest.raises(NotFoundError):
        load(store, "0" * 64)


def test_stale() -> None:
    models = {"candidate": "a" * 64, "champion": "b" * 64}
    fresh = made(origin="labelling", round=5, models=sorted(models.values()))
    assert staleness(fresh, models, 5) is None and staleness(fresh, models, 9) is None
    assert staleness(fresh, models, 10) == "its labels are of round 5, 5 rounds ago (limit 4)"
    assert staleness(fresh, models, 6, max_age=0) is not None
    assert staleness(fresh, models | {"candidate": "c" * 64}, 6) == (
        "no answer of candidate cccccccccccc was labelled, only of aaaaaaaaaaaa, bbbbbbbbbbbb"
    )
    assert staleness(made(models=["gpt4"]), {}, 3) is None


ROWS = st.lists(
    st.tuples(TEXT.filter(str.strip), TEXT, st.sampled_from([True, False, None]), st.sampled_from([True, False, None])),
    min_size=1, max_size=12, unique_by=lambda row: row[:2],
).filter(lambda rows: any(row[2:] != (None, None) for row in rows))  # fmt: skip


@given(ROWS)
def test_labels_are_read_alike_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, str, bool | None, bool | None]]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    rows = [dict(zip(("prompt", "answer", "refused", "harmful"), row, strict=True)) for row in found]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    kept = [row for row in found if row[2:] != (None, None)]
    for name in ("a.jsonl", "a.parquet"):
        read = read_labelled(folder / name)
        assert [(row.prompt, row.answer, row.refused, row.harmful) for row in read] == kept
        assert {row.model for row in read} == {"a"} and read_labelled(folder / name, "m")[0].model == "m"
        assert without_repeats([*read, *read]) == (read, len(read))


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "\\ud800", "answer": "a", "refused": true}\n')
    with pytest.raises(DataError, match="not valid Unicode"):
        read_labelled(tmp_path / "x.jsonl")


FOLDER = data_folder()
needs_data = pytest.mark.skipif(FOLDER is None, reason="no XSTest: set SPARRING_BENCHMARK_DATA")
MEASURED = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "judge.json").read_text())


def files() -> list[Path]:
    assert FOLDER is not None
    return [FOLDER / "xstest" / f"xstest_v2_completions_{model}.csv" for model in MODELS]


@needs_data
def test_xstest_as_it_stands_by_string_match() -> None:
    """All four files: the measured table's numbers and intervals, slices by type, refusals partial ones included."""
    made = calibrate_files(load_judge("string-match"), files())
    assert made.answers == 1800 and made.models == sorted(MODELS) and made.repeated == 0
    assert len(made.files) == 4 and made.judge in MEASURED["checks"]["judges"]
    for row in MEASURED["rows"]:
        if row["judge"] == "string-match":
            agrees(made, row["model"], row)
    pooled, homonyms = made.cell("refused", None, None), made.cell("refused", None, "benign", "homonyms")
    assert pooled and pooled.sensitivity and pooled.sensitivity.n == 220 + 274 + 349 + 240
    assert pooled.sensitivity.clusters <= 450 < pooled.sensitivity.effective * 4  # one prompt, four answers
    assert homonyms and homonyms.specificity and homonyms.specificity.n <= 100
    assert made.cell("refused", "gpt4", "harmful", "contrast_homonyms") and not made.cell("harmful", None, None)


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(600)  # 15 seconds on a machine that does nothing else
@pytest.mark.parametrize(("name", "model"), [("embedded-gate", "mistralguard"), ("embedded-reward", "gpt4")])
def test_xstest_by_the_embedded_judges(name: str, model: str) -> None:
    """The measured table again, a model a judge (`test_xstest.py` judges them all)."""
    (file,) = (path for path in files() if path.stem.endswith(model))
    measured = next(row for row in MEASURED["rows"] if (row["judge"], row["model"]) == (name, model))
    agrees(calibrate_files(load_judge(name), [file]), model, measured)


def agrees(made: Calibration, model: str, measured: dict[str, Any]) -> None:
    cell = made.cell("refused", model, None)
    assert cell and cell.sensitivity and cell.specificity
    assert cell.sensitivity.n == measured["refusals"] and cell.void == 0
    for share, name in ((cell.sensitivity, "sensitivity"), (cell.specificity, "specificity")):
        assert round(share.value, 4) == measured[name]
        assert [round(share.low, 4), round(share.high, 4)] == measured[f"{name}_ci"]


@needs_data
def test_a_csv_of_ones_own_with_true_and_false(tmp_path: Path) -> None:
    with (tmp_path / "own.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("prompt", "response", "refused", "harmful", "behavior", "label", "model")])
        writer.writerows((f"p{n}", "I cannot", "True", "0", f"b{n // 2}", "unsafe", f"m{n % 2}") for n in range(8))
    made = calibrate_files(load_judge("string-match"), [tmp_path / "own.csv"])
    cell = made.cell("refused", None, "harmful")
    assert cell and cell.sensitivity and (cell.sensitivity.n, cell.sensitivity.clusters) == (8, 4)
    assert made.models == ["m0", "m1"] and made.cell("harmful", "m0", "harmful")
