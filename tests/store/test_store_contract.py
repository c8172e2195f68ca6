"""What every store promises, on a folder and on a real S3 server."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sparring.errors import ConfigError, NotFoundError, StoreError
from sparring.store import Store, open_store
from sparring.store.conditional import check_conditional_puts
from sparring.store.keys import check_key


def is_key(text: str) -> bool:
    try:
        check_key(text)
    except StoreError:
        return False
    return True


keys = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\"), min_size=1, max_size=30).filter(
    is_key
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=keys, data=st.binary(max_size=2000))
@example(key="a b+c%2F&?#=;,:@$!*'()~^`{}|<>\"[]/é日本🙂", data=b"")
@example(key="-", data=b"\x00")
def test_any_key_keeps_any_bytes(any_store: Store, key: str, data: bytes) -> None:
    store = any_store.scope(secrets.token_hex(8))
    store.put(key, data)
    assert store.get(key) == data
    assert store.exists(key)
    assert store.list() == [key]
    assert not store.put_if_absent(key, b"another")
    assert store.get(key) == data
    store.delete(key)
    assert not store.exists(key)
    assert store.put_if_absent(key, data[::-1])
    assert store.get(key) == data[::-1]


BAD_KEYS = ["", "/a", "a//b", "a/", ".", "..", "a/../b", "./a", "a/.", "a\\b", "a\nb", "a\x00b", "\ud800", "x" * 256]


def test_bad_keys_are_refused_in_one_line(any_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    calls: list[Callable[[str], object]] = [
        any_store.get,
        lambda key: any_store.put(key, b""),
        lambda key: any_store.put_if_absent(key, b""),
        any_store.exists,
        any_store.delete,
        lambda key: any_store.upload(file, key),
        lambda key: any_store.download(key, tmp_path / "out"),
        any_store.scope,
        any_store.delta,
    ]
    for key, call in itertools.product(BAD_KEYS, calls):
        with pytest.raises(StoreError, match="store key") as caught:
            call(key)
        assert "\n" not in str(caught.value)
    assert any_store.list() == []


def test_what_is_absent(any_store: Store, tmp_path: Path) -> None:
    any_store.put("a/b", b"1")
    assert not any_store.exists("a")
    assert not any_store.exists("a/b/c")
    for key in ("nothing", "a", "a/b/c", "no/such/folder"):
        with pytest.raises(NotFoundError, match="no object"):
            any_store.get(key)
        with pytest.raises(NotFoundError, match="no object"):
            any_store.download(key, tmp_path / "out")
        any_store.delete("nothing")
    assert list(tmp_path.glob("*out*")) == []
    assert any_store.list("nothing/") == []


def test_list_takes_a_plain_string_prefix(any_store: Store) -> None:
    names = ["a", "ab/c", "ab/d", "abc", "b/1", "Z"]
    for name in names:
        any_store.put(name, b"")
    assert any_store.list() == sorted(names)
    assert any_store.list("ab") == ["ab/c", "ab/d", "abc"]
    assert any_store.list("ab/") == ["ab/c", "ab/d"]
    assert any_store.list("ab/c") == ["ab/c"]
    assert any_store.list("ab/cc") == []
    with pytest.raises(StoreError):
        any_store.list("../")


def test_folders_are_the_names_right_below_a_prefix(any_store: Store) -> None:
    for name in ("lines/b/rounds/1", "lines/a/x", "lines/a/y/z", "lines/file", "linesman/c/x"):
        any_store.put(name, b"")
    assert any_store.folders("lines") == ["a", "b"]
    assert any_store.folders("lines/a") == ["y"]
    assert any_store.scope("lines").folders("b") == ["rounds"]
    assert any_store.folders("lines/file") == any_store.folders("nothing") == []
    with pytest.raises(StoreError):
        any_store.folders("../lines")


def test_entries_tell_size_and_the_stores_own_time(any_store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.utime(tmp_path / "file", (1, 1))  # the source's age is not the object's
    any_store.put("a/old", b"1")
    time.sleep(1.1)  # S3 counts whole seconds
    any_store.upload(tmp_path / "file", "a/new")
    any_store.put_if_absent("a/newer", b"")
    found = {entry.key: entry for entry in any_store.entries("a/")}
    assert {key: entry.size for key, entry in found.items()} == {"a/old": 1, "a/new": 5, "a/newer": 0}
    assert 1.0 <= found["a/new"].written - found["a/old"].written < 600
    assert [entry.key for entry in any_store.entries("a/n")] == any_store.list("a/n") == ["a/new", "a/newer"]
    time.sleep(1.1)
    any_store.put("a/old", b"2")
    assert any_store.entries("a/old")[0].written > found["a/old"].written


@pytest.mark.slow
def test_list_reads_more_than_one_page(any_store: Store) -> None:
    names = [f"many/{number:04d}" for number in range(1100)]
    for name in names:
        any_store.put(name, b"")
    assert any_store.list("many/") == names


def test_parts_of_an_object(any_store: Store) -> None:
    any_store.put("a/b", b"0123456789")
    assert any_store.get_part("a/b", 0, 3) == b"012"
    assert any_store.get_part("a/b", 8, 99) == b"89"
    assert any_store.get_part("a/b", 10, 1) == any_store.get_part("a/b", 99, 1) == b""
    with pytest.raises(NotFoundError):
        any_store.get_part("a/c", 0, 1)


def test_scopes_nest_and_do_not_leak(any_store: Store) -> None:
    outer, inner = any_store.scope("lines/a"), any_store.scope("lines").scope("a")
    outer.put("x", b"1")
    any_store.put("lines/ab", b"2")
    assert inner.get("x") == b"1"
    assert inner.list() == ["x"]
    assert any_store.list() == ["lines/a/x", "lines/ab"]
    assert outer.url == inner.url == f"{any_store.url}/lines/a"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_files_go_up_and_down(any_store: Store, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(secrets.token_bytes(size))
    any_store.upload(source, "blob")
    any_store.upload(source, "blob")
    assert any_store.get("blob") == source.read_bytes()
    any_store.download("blob", target)
    any_store.download("blob", target)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_files_that_cannot_be_read_or_written(any_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*missing"):
        any_store.upload(tmp_path / "missing", "blob")
    with pytest.raises(StoreError, match="cannot read"):
        any_store.upload(tmp_path, "blob")
    assert any_store.list() == []
    any_store.put("blob", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write"):
        any_store.download("blob", tmp_path / "file" / "below")


def test_delta_tables_open_with_what_the_store_hands_out(any_store: Store) -> None:
    uri, options = any_store.scope("lines/a").delta("pool/attacks")
    for number in range(2):
        write_deltalake(uri, pa.table({"n": [number]}), mode="append", storage_options=options)
    rows = DeltaTable(uri, storage_options=options).to_pyarrow_table()["n"].to_pylist()
    assert sorted(rows) == [0, 1]
    assert "lines/a/pool/attacks/_delta_log/00000000000000000001.json" in any_store.list()


def test_conditional_puts_hold(any_store: Store) -> None:
    check_conditional_puts(any_store)
    assert any_store.list() == []


@pytest.mark.parametrize(
    "url", ["", "  ", "s3://", "s3://x", "s3:///x", "s3://bucket/../x", "gs://bucket/x", "http://host/bucket"]
)
def test_urls_that_are_no_store(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_url_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("s3://AKIAKEY:secretsecret@bucket/x")
    assert "secretsecret" not in str(caught.value)
