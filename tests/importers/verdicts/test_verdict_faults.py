"""Damaged files give an error or void rows, never a table that says something else."""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.errors import DataError, SparringError
from sparring.importers.verdicts import Options, import_verdicts, zipped
from sparring.importers.verdicts.base import Guess, Item
from sparring.importers.verdicts.labels import read_label, read_score
from sparring.importers.verdicts.mapping import Reading
from tests.importers.verdicts.grown import FILES

CASES = {
    "inspect-json": ("inspect", "inspect/champion/harm.json"),
    "inspect-eval": ("inspect", "inspect/candidate/harm.eval"),
    "lm-eval": ("lm-eval", "lm_eval/candidate/samples_tiny_choice_*"),
    "garak": ("garak", "garak/champion/run.report.jsonl"),
    "harmbench": ("harmbench", "harmbench/champion/results.json"),
}
WRONG: list[Any] = [None, {}, [], "zzz", math.nan, math.inf, -7, 3.5, [[1]], {"zzz": None}]
SAID = ("kind", "answer_index", "refused", "harmful", "passed", "score")
"""Columns that come from the tool's values; `degenerate` may follow from the text."""

Said = list[tuple[str, tuple[Any, ...]]]


def case_file(name: str) -> tuple[str, Path]:
    tool, pattern = CASES[name]
    return tool, next(FILES.glob(pattern))


def said(tool: str, path: Path, data: bytes) -> Said | None:
    """Status and labels of every row of a changed file; None where it is refused with one line."""
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder, path.name)
        if tool == "lm-eval":
            shutil.copy(next(path.parent.glob("results_*")), folder)
        changed.write_bytes(data)
        try:
            found = import_verdicts(tool, [changed], Options(model="m", phrases=tool == "garak")).table
        except SparringError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000 and str(changed) in str(error)
            return None
    return [(row["status"], tuple(row[name] for name in SAID)) for row in found.to_pylist()]


@functools.cache
def unchanged(name: str) -> Said:
    """What the file says as it is."""
    tool, path = case_file(name)
    found = said(tool, path, path.read_bytes())
    assert found is not None
    return found


def assert_nothing_else_is_said(before: Said, after: Said | None) -> None:
    """Every row of the changed file is void or says what it said."""
    if after is None:
        return
    assert len(after) == len(before)
    for (_, old), (status, new) in zip(before, after, strict=True):
        assert status == "void" or new == old


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_cut_off_anywhere(name: str, data: st.DataObject) -> None:
    tool, path = case_file(name)
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    after = said(tool, path, whole[:length])
    assert after is None or after == unchanged(name)  # garak's digest, a last line's end


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_zipped_log(place: int, bit: int) -> None:
    tool, path = case_file("inspect-eval")
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    assert_nothing_else_is_said(unchanged("inspect-eval"), said(tool, path, bytes(whole)))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in a document, outermost first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


def edited(document: Any, path: tuple[Any, ...], value: Any, delete: bool) -> Any:
    document = copy.deepcopy(document)
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    if delete:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return document


@pytest.mark.parametrize("name", [name for name in CASES if name != "inspect-eval"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_value_of_the_wrong_type_or_none_at_all(name: str, data: st.DataObject) -> None:
    tool, path = case_file(name)
    lines = path.suffix == ".jsonl"
    text = path.read_text()
    document = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    where = data.draw(st.sampled_from(list(places(document))))
    delete = isinstance(where[-1], str) and data.draw(st.booleans())
    changed = edited(document, where, data.draw(st.sampled_from(WRONG)), delete)
    dumped = "".join(json.dumps(line) + "\n" for line in changed) if lines else json.dumps(changed)
    before, after = unchanged(name), said(tool, path, dumped.encode())
    if tool == "harmbench" and after is not None and len(after) < len(before):
        assert len(where) <= 2  # its file says nowhere how many answers there should be: the gate compares keys
        return
    assert_nothing_else_is_said(before, after)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "MAX_ENTRY", 1 << 20)
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b" " * (2 << 20))
    with pytest.raises(DataError, match=r"bomb.eval: header.json: larger than 1 MiB unpacked"):
        import_verdicts("inspect", [path], Options())


def test_a_zstd_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FILES / "inspect/candidate/harm.eval"
    with zipfile.ZipFile(path) as archive:
        header = archive.getinfo("header.json")
    assert header.compress_type == 93
    monkeypatch.setattr(zipped, "MAX_ENTRY", (header.compress_size + header.file_size) // 2)
    with pytest.raises(DataError, match="larger than 0 MiB unpacked"):
        import_verdicts("inspect", [path], Options())


def test_an_entry_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.eval"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("header.json", "{}")
        archive.writestr("header_json", "{}")
    path.write_bytes(buffer.getvalue().replace(b"header_json", b"header.json"))
    with pytest.raises(DataError, match="an entry is there twice"):
        import_verdicts("inspect", [path], Options())


def test_a_huge_line_and_a_deep_document_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.report.jsonl"
    path.write_bytes(b'{"entry_type": "' + b"x" * (5 << 20) + b'"}')
    with pytest.raises(DataError, match="line is longer than"):
        import_verdicts("garak", [path], Options())
    path = tmp_path / "x.json"
    path.write_text("[" * 100_000)
    for tool in ("harmbench", "inspect"):
        with pytest.raises(DataError, match=r"x\.json: cannot be read"):
            import_verdicts(tool, [path], Options())


def item(value: object) -> Item:
    return Item("f: row 1", "t", "p", "b", 0, "answer", None, {"s": value}, "j", Guess())


@given(st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.none(), st.lists(st.integers(), max_size=2)))
def test_scores_are_in_range_void_or_an_error(value: object) -> None:
    try:
        score = read_score(item(value), Reading(source="s"))
    except DataError as error:
        assert "`s` (for `score`)" in str(error)
        return
    missing = value is None or value == "N" or (isinstance(value, float) and math.isnan(value))
    assert score is None if missing and value != "N" else score is not None and 0.0 <= score <= 1.0


@given(st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.none()))
def test_labels_are_plain_or_void_or_an_error(value: object) -> None:
    try:
        label = read_label(item(value), "harmful", Reading(source="s"))
    except DataError:
        return
    assert (label is True) == (value in (1, "C", "yes", "true"))
    assert (label is False) == (value in (0, "I", "no", "false") and value is not None)
