"""Capability suites from files, their errors, hashes and versions; the public files and the example run file."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sparring.config.load import load_run
from sparring.config.run import DataConfig, SuiteSource
from sparring.data import attacker_role, starter
from sparring.data.capability import _lettered
from sparring.data.card import suites_card
from sparring.data.suites import SUITES_SCHEMA, Suites, build_suites, read_suites
from sparring.errors import CorruptError, DataError
from sparring.gate.policy import load_policy

ROOT = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data").resolve()
public = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no public files at {ROOT} (SPARRING_BENCHMARK_DATA)")
CHOICES = ["one", "two", "three"]


def _build(path: Path, part: str, **more: Any) -> Suites:
    source = SuiteSource(name="mine", path=str(path), kind="capability", slice=part, **more)
    return build_suites(DataConfig(starter_suites=False, suites=[source]))


def _jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("answer", [1, "B", "two", "B. two"])
def test_the_right_choice_is_an_index_a_letter_or_its_text(tmp_path: Path, answer: object) -> None:
    listed = {"question": "Q?", "choices": CHOICES, "answer": answer}
    lettered = {"question": "Q?", "options": "A. one\nB. two\nC. three", "answer": answer}
    for row in (listed, lettered):
        (found,) = _build(_jsonl(tmp_path / "a.jsonl", row), "choice").rows
        assert (found.choices, found.answer, found.form, found.label) == (tuple(CHOICES), 1, "letters", "")


def test_csv_and_parquet_hold_choices_too(tmp_path: Path) -> None:
    table = pa.table({"question": ["Q?"], "choices": [CHOICES], "answer": [2]})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("question,A,B,C,answer\nQ?,one,two,three,C\n")
    (tmp_path / "c.csv").write_text('question,choices,answer\nQ?,"[""one"", ""two"", ""three""]",2\n')
    for name in ("a.parquet", "b.csv", "c.csv"):
        (row,) = _build(tmp_path / name, "choice").rows
        assert (row.choices, row.answer) == (tuple(CHOICES), 2)


def test_numbers_and_helpful_answers(tmp_path: Path) -> None:
    file = _jsonl(tmp_path / "a.jsonl", {"question": "Q?", "answer": "4 * 10.5\n#### $1,042.00"})
    (number,) = _build(file, "number").rows
    (helpful,) = _build(file, "nll").rows
    assert (number.target, number.form) == ("1042", "plain") and helpful.target == "4 * 10.5\n#### $1,042.00"
    assert _build(file, "number", form="chat").rows[0].form == "chat"


@pytest.mark.parametrize(
    ("part", "row", "message"),
    [
        ("choice", {"question": "Q?", "choices": CHOICES, "answer": 3}, "column 'answer': answer 3 is no index into 3"),
        ("choice", {"question": "Q?", "choices": CHOICES, "answer": -1}, "answer -1 is no index"),
        ("choice", {"question": "Q?", "choices": CHOICES, "answer": True}, "not a truth value"),
        ("choice", {"question": "Q?", "choices": CHOICES, "answer": "four"}, "'four' is none of the 3 choices"),
        ("choice", {"question": "Q?", "choices": ["1", "2", "0"], "answer": "2"}, "'2' can mean B or C; give"),
        ("choice", {"question": "Q?", "choices": ["one"], "answer": 0}, "2 to 26 choices are needed"),
        ("choice", {"question": "Q?", "choices": "none", "answer": 0}, "2 to 26 choices are needed"),
        ("choice", {"question": "Q?", "choices": ["a", 1], "answer": 0}, "column 'choices': 2 to 26"),
        ("choice", {"question": "Q?", "answer": 0}, "no choices; columns present: 'question', 'answer'"),
        ("choice", {"question": "Q?", "choices": CHOICES}, "no column with a usual name (answer, answer_index"),
        ("number", {"question": "Q?", "answer": "many"}, "row 2, column 'answer': no number in 'many'"),
        ("number", {"question": "Q?", "answer": 4}, "must be text, not a number"),
        ("nll", {"question": "Q?", "answer": " "}, "column 'answer': is empty"),
        ("nll", {"other": "Q?", "answer": "a"}, "no column with a usual name (prompt"),
    ],
)  # fmt: skip
def test_errors_name_file_row_column_and_value(tmp_path: Path, part: str, row: dict[str, Any], message: str) -> None:
    good = {"question": "Good?", "choices": CHOICES, "answer": 0 if part == "choice" else "#### 1"}
    file = _jsonl(tmp_path / "a.jsonl", good, row)
    with pytest.raises(DataError) as caught:
        _build(file, part)
    assert "a.jsonl: row 2" in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_do_not_fit_the_kind_are_refused() -> None:
    for bad in ({"kind": "capability"}, {"kind": "benign", "form": "chat"}, {"kind": "harmful", "answer": "x"}):
        with pytest.raises(ValidationError):
            SuiteSource(name="a", path="b", **bad)
    with pytest.raises(ValidationError, match="does not fit slice number"):
        SuiteSource(name="a", path="b", kind="capability", slice="number", form="letters")


def test_equal_stems_with_other_choices_are_other_questions(tmp_path: Path) -> None:
    row = {"question": "Which is true?", "choices": CHOICES, "answer": 0}
    suites = _build(_jsonl(tmp_path / "a.jsonl", row, {**row, "choices": ["x", "y"]}, row), "choice")
    assert len({r.prompt_id for r in suites.rows}) == 2 and suites.left_out == {"mine/choice": {"duplicate": 1}}


@settings(deadline=None)
@given(st.lists(st.text("ab .\n", min_size=1, max_size=8).map(str.strip).filter(bool), min_size=2, max_size=6))
def test_lettered_lines_are_taken_apart_as_they_were_put_together(choices: list[str]) -> None:
    text = "\n".join(f"{'ABCDEF'[i]}. {choice}" for i, choice in enumerate(choices))
    assert [one.strip() for one in _lettered(text)] == choices


def test_the_card_holds_the_hash_of_files_and_rows(tmp_path: Path) -> None:
    file = _jsonl(tmp_path / "a.jsonl", {"question": "Q?", "answer": "#### 1"})
    first = _build(file, "number").digests()["mine/number"]
    file.write_text(file.read_text() + "\n")  # other bytes, the same rows
    second = _build(file, "number").digests()["mine/number"]
    assert first["files"] != second["files"] and first["rows"] == second["rows"]
    suites = build_suites(DataConfig())
    card: Any = suites_card(suites, DataConfig(), None)
    assert set(card["sha256"]) == set(card["prompts"]) and all(len(v["rows"]) == 64 for v in card["sha256"].values())


def test_a_table_of_version_1_is_read_under_todays_schema() -> None:
    old = pq.read_table(Path(__file__).parent / "fixtures" / "suites-v1.parquet")
    assert "form" not in old.column_names
    new = read_suites(old)
    assert new.schema.equals(SUITES_SCHEMA, check_metadata=True)
    forms = {row["slice"]: row["form"] for row in new.to_pylist()}
    assert forms == {"vanilla": "", "adversarial": "", "plain": "", "choice": "text", "nll": "chat"}
    today = build_suites(DataConfig()).table()
    assert read_suites(today).equals(today)
    with pytest.raises(CorruptError, match="of no known version"):
        read_suites(today.drop_columns(["prompt"]))


def test_the_models_are_asked_for_attacks_on_held_out_behaviors() -> None:
    rows = [row for row in build_suites(DataConfig()).rows if row.suite == attacker_role.SUITE]
    held_out = {row.behavior: row.prompt for row in starter.harmful("heldout")}
    assert len(rows) == attacker_role.PROMPTS == len({row.behavior for row in rows})
    assert all(row.kind == row.label == "harmful" and held_out[row.behavior] in row.prompt for row in rows)
    assert {row.slice for row in rows} == {attacker_role.SLICE}
    for name in ("first-run", "laptop", "standard"):
        assert attacker_role.SLICE not in load_policy(name).primary.slices
    off = build_suites(DataConfig(starter_attacker=False))
    assert not any(row.slice == attacker_role.SLICE for row in off.rows)
    assert not any("{request}" in row.prompt for row in rows)
    assert not {row.prompt for row in rows} & set(Suites(tuple(rows), {}).texts()[1])


@public
def test_the_example_meets_the_standard_policys_sizes(tmp_path: Path) -> None:
    (tmp_path / "public").symlink_to(ROOT)
    example = Path(__file__).parents[2] / "docs" / "standard-suites.yaml"
    (tmp_path / "run.yaml").write_text(example.read_text())
    config = load_run(tmp_path / "run.yaml")
    rows = build_suites(config.data).rows
    counts = Counter((row.kind, row.slice) for row in rows)
    print({f"{kind}/{part}": n for (kind, part), n in sorted(counts.items())})
    short = {
        f"{r.kind}/{r.slice}": r.min - counts[r.kind, r.slice]
        for r in load_policy(config.gate.policy).required
        if counts[r.kind, r.slice] < r.min
    }
    assert not short
    wild = {row.behavior for row in rows if row.suite == "wildjailbreak"}
    together = wild & {row.behavior for row in rows if row.suite == "harmbench"}
    print(f"{len(together)} of {len(wild)} WildJailbreak behaviours cluster with HarmBench's")
    assert together == wild
