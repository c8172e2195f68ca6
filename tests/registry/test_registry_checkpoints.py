"""Checkpoints: whole or absent, what their digest says or nothing, and never a pickle."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sparring.errors import CorruptError, ModelError, NotFoundError, StoreError
from sparring.registry.checkpoints import (
    File,
    files_digest,
    forget_folders,
    has_checkpoint,
    load_checkpoint,
    load_manifest,
    save_checkpoint,
)
from sparring.store import Store, open_store
from sparring.store.local import LocalStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "additional_chat_templates").mkdir(parents=True)
    save_file({"w": np.arange(1000, dtype=np.float32)}, folder / "model-00001-of-00002.safetensors")
    save_file({"v": np.ones(10, dtype=np.float32)}, folder / "model-00002-of-00002.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "merges.txt").write_text("a b\n")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates" / "tool.jinja").write_text("x")
    (folder / "README.md").write_text("left out")
    (folder / ".hidden").write_bytes(b"left out")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_back_as_it_was(any_store: Store, model: Path, tmp_path: Path) -> None:
    digest = save_checkpoint(any_store, model, meta={"round": "1"})
    folder = load_checkpoint(any_store, digest, tmp_path / "cache")
    expected = content(model)
    del expected["README.md"], expected[".hidden"]
    assert content(folder) == expected
    assert folder.name == digest
    assert has_checkpoint(any_store, digest)
    assert load_manifest(any_store, digest).meta == {"round": "1"}
    assert save_checkpoint(any_store, folder) == digest
    assert load_manifest(any_store, digest).meta == {"round": "1"}
    assert sorted(any_store.list()) == sorted(f"checkpoints/{digest}/{name}" for name in [*expected, "manifest.json"])


def test_unpacked_copies_go_but_for_those_that_are_named_and_come_again(
    any_store: Store, model: Path, tmp_path: Path
) -> None:
    cache, other = tmp_path / "cache", tmp_path / "notes"
    forget_folders(cache, [])  # nothing there yet
    kept = save_checkpoint(any_store, model)
    (model / "config.json").write_text('{"model_type": "gemma"}')
    gone = save_checkpoint(any_store, model)
    folders = {digest: load_checkpoint(any_store, digest, cache) for digest in (kept, gone)}
    before = content(folders[gone])
    other.mkdir()
    (cache / "mine").mkdir()
    (cache / ("0" * 64)).symlink_to(other)
    forget_folders(cache, [kept])
    assert sorted(path.name for path in cache.iterdir()) == sorted([kept, "mine", "0" * 64])
    assert other.is_dir() and has_checkpoint(any_store, gone)
    assert content(load_checkpoint(any_store, gone, cache)) == before


def test_the_digest_is_of_content_and_names_only(tmp_path: Path, model: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = save_checkpoint(store, model)
    (model / "README.md").write_text("another text")
    assert save_checkpoint(store, model, meta={"x": "y"}) == digest
    (model / "merges.txt").rename(model / "renamed.txt")
    assert save_checkpoint(store, model) != digest
    (model / "renamed.txt").rename(model / "merges.txt")
    (model / "config.json").write_text("{}")
    assert save_checkpoint(store, model) != digest


names = st.text("abc/.", min_size=1, max_size=6)
files = st.lists(st.builds(File, name=names, size=st.integers(0, 9), sha256=names), max_size=5).map(tuple)


@settings(max_examples=200, deadline=None)
@given(one=files, other=files)
def test_digests_are_equal_for_equal_file_lists_only(one: tuple[File, ...], other: tuple[File, ...]) -> None:
    same = sorted(one, key=repr) == sorted(other, key=repr)
    if len({file.name for file in one}) == len(one) and len({file.name for file in other}) == len(other):
        assert (files_digest(one) == files_digest(other)) is same


def test_what_is_not_there(any_store: Store, model: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"is not in .*, or was never finished"):
        load_checkpoint(any_store, "a" * 64, tmp_path / "cache")
    assert not has_checkpoint(any_store, "a" * 64)
    for digest in ("", "short", "A" * 64, "../" + "a" * 61, "a" * 65):
        with pytest.raises(StoreError, match="is not a checkpoint digest"):
            load_checkpoint(any_store, digest, tmp_path / "cache")


def test_a_changed_blob_is_noticed_and_not_left_in_the_cache(any_store: Store, model: Path, tmp_path: Path) -> None:
    digest = save_checkpoint(any_store, model)
    key = f"checkpoints/{digest}/model-00001-of-00002.safetensors"
    data = any_store.get(key)
    for damaged in (data[:-1], data + b"\0", data[:100] + bytes([data[100] ^ 1]) + data[101:]):
        any_store.put(key, damaged)
        with pytest.raises(CorruptError, match=r"'model-00001-of-00002.safetensors' in .* is \d+ bytes with SHA-256"):
            load_checkpoint(any_store, digest, tmp_path / "cache")
        assert not (tmp_path / "cache" / digest / "model-00001-of-00002.safetensors").exists()
    any_store.delete(key)
    with pytest.raises(CorruptError, match=r"'model-00001-of-00002.safetensors' is missing"):
        load_checkpoint(any_store, digest, tmp_path / "cache")
    any_store.put(key, data)
    assert load_checkpoint(any_store, digest, tmp_path / "cache").is_dir()


def test_a_changed_manifest_is_noticed(any_store: Store, model: Path, tmp_path: Path) -> None:
    digest = save_checkpoint(any_store, model)
    key = f"checkpoints/{digest}/manifest.json"
    manifest = json.loads(any_store.get(key))
    changes: list[dict[str, object]] = [
        {"files": manifest["files"][1:]},
        {"files": []},
        {"files": [manifest["files"][0] | {"name": "../../escape"}, *manifest["files"][1:]]},
        {"digest": "b" * 64},
        {"schema_version": 2},
        {"stranger": 1},
    ]
    for change in changes:
        any_store.put(key, json.dumps(manifest | change).encode())
        with pytest.raises(CorruptError, match=f"checkpoint {digest}"):
            load_checkpoint(any_store, digest, tmp_path / "cache")
    any_store.put(key, b"{")
    with pytest.raises(CorruptError, match="is no manifest"):
        load_checkpoint(any_store, digest, tmp_path / "cache")


def test_the_cache_is_used_mended_and_never_trusted(tmp_path: Path, model: Path) -> None:
    store, cache = LocalStore(tmp_path / "store"), tmp_path / "cache"
    digest = save_checkpoint(store, model)
    folder = load_checkpoint(store, digest, cache)
    weights = folder / "model-00001-of-00002.safetensors"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    load_checkpoint(store, digest, cache)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    load_checkpoint(store, digest, cache)
    assert weights.read_bytes() == (model / weights.name).read_bytes()
    (folder / "pytorch_model.bin").write_bytes(b"evil")
    with pytest.raises(CorruptError, match=r"pytorch_model.bin does not belong to checkpoint"):
        load_checkpoint(store, digest, cache)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "x.PKL", "sub/training_args.bin", "a.ckpt"])
def test_pickles_are_refused(tmp_path: Path, model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(pickle.dumps({"w": 1}))
    store = LocalStore(tmp_path / "store")
    with pytest.raises(ModelError, match=f"{Path(name).name} is, or may be, a pickle file; a pickle can run code"):
        save_checkpoint(store, model)
    assert store.list() == []


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_under_other_names_are_refused(tmp_path: Path, model: Path, protocol: int) -> None:
    store = LocalStore(tmp_path / "store")
    for name, fault in (("config.json", "begins like a pickle"), ("model.safetensors", "is no safetensors file")):
        (model / name).write_bytes(pickle.dumps({"w": [1.0] * 100}, protocol=protocol))
        with pytest.raises(ModelError, match=fault):
            save_checkpoint(store, model)
        (model / name).unlink()
    assert store.list() == []


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "folder"
    with pytest.raises(ModelError, match="does not exist or is not a folder"):
        save_checkpoint(store, folder)
    folder.mkdir()
    with pytest.raises(ModelError, match=r"holds no \.safetensors file; save the model as safetensors"):
        save_checkpoint(store, folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds no \.safetensors file"):
        save_checkpoint(store, folder)
    with pytest.raises(ModelError, match="not a folder"):
        save_checkpoint(store, folder / "config.json")


def test_cut_and_damaged_weights_are_refused(tmp_path: Path, model: Path) -> None:
    store, weights = LocalStore(tmp_path / "store"), model / "model-00002-of-00002.safetensors"
    data = weights.read_bytes()
    for damaged in (b"", data[:4], data[:8], data[:40], data[:-1], data + b"\0", b"\xff" * 8 + data[8:], bytes(100)):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is "):
            save_checkpoint(store, model)
    assert store.list() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from sparring.registry.checkpoints import save_checkpoint
from sparring.store import open_store
store = open_store(sys.argv[1])
kind, left = type(store), int(sys.argv[3])
upload, claim = kind.upload, kind.put_if_absent

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying_upload(self, path, key):
    global left
    left -= 1
    if left < 0:
        die()
    upload(self, path, key)

kind.upload, kind.put_if_absent = dying_upload, lambda self, key, data: die()
save_checkpoint(store, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("uploads", [pytest.param(0, marks=pytest.mark.slow), 3, 99])
def test_a_save_killed_between_blobs_and_manifest_leaves_nothing_and_is_completed(
    any_store_url: str, model: Path, tmp_path: Path, uploads: int
) -> None:
    """kill -9 before the first blob, in between, and before the manifest."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED), any_store_url, str(model), str(uploads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done
    store, twin = open_store(any_store_url), LocalStore(tmp_path / "twin")
    blobs = [path for path in model.rglob("*") if path.suffix in (".safetensors", ".json", ".txt", ".jinja")]
    assert len(store.list()) == min(uploads, len(blobs))
    digest = save_checkpoint(twin, model)
    assert not has_checkpoint(store, digest)
    with pytest.raises(NotFoundError, match="never finished"):
        load_checkpoint(store, digest, tmp_path / "cache")
    assert save_checkpoint(store, model) == digest
    assert content(load_checkpoint(store, digest, tmp_path / "cache")) == content(
        load_checkpoint(twin, digest, tmp_path / "cache2")
    )


def test_a_file_that_changes_while_it_is_stored_makes_no_checkpoint(tmp_path: Path, model: Path) -> None:
    class Meddling(LocalStore):
        """A store during whose uploads somebody else trains on."""

        def upload(self, path: Path, key: str) -> None:
            if path.name == "config.json":
                path.write_text('{"model_type": "other"}')
            super().upload(path, key)

    store = Meddling(tmp_path / "store")
    with pytest.raises(ModelError, match=r"config\.json changed while it was stored"):
        save_checkpoint(store, model)
    assert not [key for key in store.list() if key.endswith("manifest.json")]
