"""Data files: the usual formats are understood, and every bad file is one clear line read with bounded memory."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.data.load import PromptRow, evenly, file_digest, load_prompts
from sparring.data.readers import MAX_LINE_BYTES
from sparring.errors import DataError
from sparring.store import open_store

SUFFIXES = (".jsonl", ".csv", ".parquet")


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(text.getvalue().encode())
    else:
        path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def _load(path: Path, **options: Any) -> list[PromptRow]:
    return load_prompts(str(path), **{"max_chars": 4000, **options})


def _one(folder: Path, row: dict[str, Any], **options: Any) -> PromptRow:
    (found,) = _load(_write(folder / "x.csv", [row]), **options)
    return found


PROMPTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60).filter(str.strip)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(PROMPTS, PROMPTS), min_size=1, max_size=8))
def test_what_is_written_is_read_back_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("d") / f"x{suffix}"
    found = _load(_write(path, [{"category": category, "prompt": prompt} for prompt, category in rows]))
    assert [(row.prompt, row.category) for row in found] == [(prompt.strip(), name.strip()) for prompt, name in rows]
    assert [row.place for row in found] == [f"{path}: row {number}" for number in range(1, len(rows) + 1)]


@settings(max_examples=150, deadline=None)
@given(suffix=st.sampled_from(SUFFIXES), content=st.binary(max_size=80))
def test_no_file_ends_in_anything_but_prompts_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("d") / f"x{suffix}"
    path.write_bytes(content)
    try:
        assert _load(path, column="0" if suffix == ".csv" else None)
    except DataError as error:
        assert "\n" not in str(error) and str(path) in str(error)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 10_000), flip=st.integers(0, 10_000))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_or_flipped_file_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, cut: int, flip: int
) -> None:
    """Parquet cut anywhere is refused; nothing else than DataError ever comes out of a damaged file."""
    path = _write(
        tmp_path_factory.mktemp("d") / f"x{suffix}", [{"prompt": f"How {i}\nmany?", "n": "1"} for i in range(9)]
    )
    content = bytearray(path.read_bytes())
    whole = bytes(content[: cut % len(content)])
    path.write_bytes(whole)
    if suffix == ".parquet" or not whole.strip():
        with pytest.raises(DataError):
            _load(path)
    content[flip % len(content)] ^= 0xFF
    path.write_bytes(content)
    try:
        _load(path)
    except DataError as error:
        assert "\n" not in str(error)


def test_the_usual_columns_are_found(tmp_path: Path) -> None:
    row = _one(
        tmp_path,
        {"Behavior": "Explain it", "SemanticCategory": "c", "ContextString": "A\nB", "BehaviorID": "b_1", "Tags": ""},
    )
    assert (row.prompt, row.intent, row.behavior, row.category) == (
        "A\nB\n\n---\n\nExplain it",
        "Explain it",
        "b_1",
        "c",
    )
    assert _one(tmp_path, {"Behavior": "Explain", "ContextString": "", "BehaviorID": "b"}).prompt == "Explain"
    strong = _one(tmp_path, {"category": "c", "source": "s", "forbidden_prompt": "p"})
    assert (strong.prompt, strong.category, strong.label) == ("p", "c", None)
    assert _one(tmp_path, {"prompt": "p", "type": "homonyms", "label": "safe"}).label == "benign"
    assert _one(tmp_path, {"prompt": "p", "type": "contrast_homonyms", "label": "unsafe"}).label == "harmful"
    assert _one(tmp_path, {"prompt": "p", "type": "contrast_homonyms", "completion": "c"}).label == "harmful"
    wild = {"vanilla": "v", "adversarial": "a", "data_type": "adversarial_benign"}
    assert (_one(tmp_path, wild).prompt, _one(tmp_path, wild).label) == ("v", "benign")
    assert _one(tmp_path, wild, adversarial=True) == PromptRow(
        str(tmp_path / "x.csv") + ": row 1", "a", "v", "", "adversarial_benign", "benign"
    )
    jailbreak = _one(tmp_path, {"Goal": "g", "Target": "t", "Behavior": "b", "Category": "c"})
    assert (jailbreak.prompt, jailbreak.behavior, jailbreak.category) == ("g", "b", "c")
    assert _one(tmp_path, {"question": "q", "answer": "a"}).prompt == "q"
    assert _one(tmp_path, {"prompt": "p", "mine": "m"}, column="mine").prompt == "m"


def test_rows_without_an_adversarial_phrasing_are_left_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "w.jsonl", [{"vanilla": "v", "adversarial": ""}, {"vanilla": "w", "adversarial": "a"}])
    assert [row.prompt for row in _load(path, adversarial=True)] == ["a"]
    assert [row.prompt for row in _load(path)] == ["v", "w"]


def test_a_byte_order_mark_crlf_and_blank_lines_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'\xef\xbb\xbfprompt,category\r\n"one\r\ntwo",c\r\n\r\nthree,d\r\n')
    assert [row.prompt for row in _load(tmp_path / "x.csv")] == ["one\r\ntwo", "three"]
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "one"}\r\n\r\n{"prompt": "two"}')
    found = _load(tmp_path / "x.jsonl")
    assert [(row.prompt, row.place[-5:]) for row in found] == [("one", "row 1"), ("two", "row 3")]


def test_a_folder_is_read_by_name_and_below(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.csv", "a.jsonl", "sub/c.PARQUET", ".git/no.csv", ".hidden.csv"):
        _write((tmp_path / name).with_suffix(Path(name).suffix.lower()), [{"prompt": name}])
    (tmp_path / "sub/c.parquet").rename(tmp_path / "sub/c.PARQUET")
    (tmp_path / "README.md").write_text("words")
    assert [row.prompt for row in _load(tmp_path)] == ["a.jsonl", "b.csv", "sub/c.PARQUET"]


def test_a_dictionary_or_large_string_column_is_text_and_nested_ones_do_not_matter(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": pa.array(["a", "b", "a"]).dictionary_encode(),
            "category": pa.array(["x", "y", "z"], pa.large_string()),
            "turns": pa.array([[{"role": "user"}]] * 3),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert [(row.prompt, row.category) for row in _load(tmp_path / "x.parquet")] == [("a", "x"), ("b", "y"), ("a", "z")]


@given(n=st.integers(0, 300), limit=st.none() | st.integers(1, 300))
def test_a_limit_takes_rows_evenly_and_in_order(n: int, limit: int | None) -> None:
    taken = evenly(range(n), limit)
    assert len(taken) == min(n, limit or n) and taken == sorted(set(taken))
    gaps = {b - a for a, b in pairwise(taken)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_store_address_is_read_like_a_path(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/data")
    store.put("set/a.jsonl", b'{"prompt": "one"}')
    store.put("set/b.csv", b"prompt\ntwo\n")
    store.put("set-of-others.csv", b"prompt\nthree\n")
    assert [row.prompt for row in load_prompts(f"file://{tmp_path}/data/set", max_chars=100)] == ["one", "two"]
    assert [row.prompt for row in load_prompts(f"file://{tmp_path}/data/set/b.csv", max_chars=100)] == ["two"]
    with pytest.raises(DataError, match="no such object"):
        load_prompts(f"file://{tmp_path}/data/none", max_chars=100)


LONG = "x" * 4001
BAD: list[tuple[str, bytes, list[str]]] = [
    ("x.jsonl", b"", ["the file is empty"]),
    ("x.csv", b"", ["the file is empty"]),
    ("x.parquet", b"", ["the file is empty"]),
    ("x.jsonl", b"\n \n", ["no rows"]),
    ("x.csv", b"prompt,category\n", ["no rows"]),
    ("x.jsonl", b'{"prompt": "a"}\n{"prompt": "b', ["row 2", "cut off"]),
    ("x.jsonl", b'{"prompt": "a"}\n{"prompt": "b"', ["row 2", "cut off"]),
    ("x.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ["row 2", "cut off"]),
    ("x.jsonl", b'{"prompt": "a"}\nprompt\n', ["row 2", "not JSON"]),
    ("x.jsonl", b'[{"prompt": "a"}]\n', ["row 1", "JSON list", "one object a line"]),
    ("x.jsonl", b"[" * 100_000 + b"\n", ["row 1", "not JSON"]),
    ("x.jsonl", b'{"prompt": ' + b"1" * 5000 + b"}\n", ["row 1", "not JSON"]),
    ("x.jsonl", b'{"prompt": "a"}\n{"prompt": "\x00"}\n', ["row 2", "NUL"]),
    ("x.jsonl", b'{"prompt": "a\\u0000b"}\n', ["row 1, column 'prompt'", "NUL"]),
    ("x.jsonl", b'{"prompt": "a\\ud800b"}\n', ["row 1, column 'prompt'", "surrogate"]),
    ("x.jsonl", b"\x7fELF\x02\x01\x01\x00\x00", ["row 1", "NUL byte: a binary file?"]),
    ("x.csv", b"\x89PNG\r\n\x1a\n\x00\x00", ["line 1", "not UTF-8"]),
    ("x.csv", b"prompt\n\x00\n", ["line 2", "NUL"]),
    ("x.csv", "prompt\nMüll\n".encode("latin-1"), ["line 2", "not UTF-8 at byte 2", "save it as UTF-8"]),
    ("x.jsonl", '{"prompt": "Müll"}\n'.encode("latin-1"), ["row 1", "not UTF-8"]),
    ("x.jsonl", '{"prompt": "a"}\n'.encode("utf-16"), ["UTF-16", "save the file as UTF-8"]),
    ("x.csv", "prompt\na\n".encode("utf-16-be"), ["line 1", "NUL"]),
    ("x.jsonl", b'{"prompt": "a"}\n{"promt": "b", "n": 1}\n', ["row 2", "'promt', 'n'", "usual name"]),
    ("x.csv", b"promt,n\na,1\n", ["row 1", "'promt', 'n'", "usual name"]),
    ("x.jsonl", b"{}\n", ["row 1", "columns present: none"]),
    ("x.jsonl", b'{"prompt": 3}\n', ["row 1, column 'prompt'", "must be text, not a number"]),
    ("x.jsonl", b'{"prompt": null}\n', ["row 1, column 'prompt'", "must be text, not null"]),
    ("x.jsonl", b'{"prompt": ["a"]}\n', ["row 1, column 'prompt'", "must be text, not a list"]),
    ("x.jsonl", b'{"prompt": "a"}\n{"prompt": " "}\n', ["row 2, column 'prompt'", "is empty"]),
    ("x.csv", f"prompt\na\n{LONG}\n".encode(), ["row 2, column 'prompt'", "4001 characters, at most 4000"]),
    ("x.csv", f"Behavior,ContextString\na,{LONG[2:]}\n".encode(), ["ContextString and Behavior", "at most 4000"]),
    ("x.csv", b"prompt,prompt\na,b\n", ["header names 'prompt' twice"]),
    ("x.csv", b"prompt,n\na,1\nb\n", ["row 2", "1 cells, but the header has 2"]),
    ("x.csv", b"prompt,n\na,1\nb,2,3\n", ["row 2", "3 cells, but the header has 2"]),
    ("x.csv", b'prompt,n\na,1\n"b,2\n', ["row 2", "line 3", "quoted cell never ends", "cut off"]),
    ("x.csv", b'prompt,n\n"a"b,1\n', ["row 1", "not CSV"]),
    ("x.parquet", b"PAR1 and then something else PAR1", ["not a readable Parquet file"]),
    ("x.parquet", b'{"prompt": "a"}\n', ["not a readable Parquet file"]),
    ("x.txt", b"a\n", ["unknown kind of file", ".jsonl"]),
    ("x", b"a\n", ["unknown kind of file"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), BAD, ids=[f"{i}{bad[0][1:]}" for i, bad in enumerate(BAD)])
def test_a_bad_file_is_one_line_with_its_place(tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        _load(tmp_path / name)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    for part in [str(tmp_path / name), *parts]:
        assert part in line
    assert caught.value.exit_code == 2


def test_a_parquet_column_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"promt": ["a"], "n": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: row 1: no column with a usual name.*present: 'promt', 'n'"):
        _load(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no column 'body'; columns present: 'promt', 'n'"):
        _load(tmp_path / "x.parquet", column="body")
    with pytest.raises(DataError, match=r"row 1, column 'n': must be text, not a number"):
        _load(tmp_path / "x.parquet", column="n")


def test_a_path_that_is_not_there_or_holds_no_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file or folder"):
        _load(tmp_path / "none.csv")
    (tmp_path / "notes.md").write_text("words")
    with pytest.raises(DataError, match=r"no data file in this folder; known are \.jsonl"):
        _load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.csv", [{"prompt": "a"}])
    path.chmod(0)
    with pytest.raises(DataError, match=r"x\.csv: cannot be read: Permission denied"):
        _load(path)


def test_what_cannot_be_hashed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        file_digest(tmp_path)


@pytest.mark.parametrize(
    ("name", "start"),
    [("x.jsonl", b'{"prompt": "'), ("x.jsonl", b'{"prompt": "a"}\n'), ("x.csv", b"prompt\n"), ("x.csv", b'prompt\n"')],
)
def test_a_line_of_a_gigabyte_is_refused_without_loading_it(tmp_path: Path, name: str, start: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(start)
    os.truncate(path, 1 << 30)  # sparse: takes no disk
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"(row|line) \d: the line is longer than 4 MiB"):
            _load(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_LINE_BYTES
    finally:
        tracemalloc.stop()


def test_a_csv_cell_that_goes_on_over_many_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'prompt\na\n"' + b"line of a cell that never ends\n" * 200_000)
    old = csv.field_size_limit(1 << 30)  # another library may have lifted the module's own limit
    try:
        with pytest.raises(DataError, match=r"row 2 is longer than 4 MiB"):
            _load(tmp_path / "x.csv")
    finally:
        csv.field_size_limit(old)
