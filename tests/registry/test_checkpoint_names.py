"""A digest vouches for any list of files: what a save could not have written is refused on load, whoever made it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sparring.errors import CorruptError, ModelError, NotFoundError, StoreError
from sparring.registry.checkpoints import (
    File,
    Manifest,
    check_checkpoint,
    files_digest,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sparring.store import Store
from sparring.store.canonical import canonical, sha256
from sparring.store.local import LocalStore


def forge(store: Store, names: list[str], data: bytes = b"{}") -> str:
    """A checkpoint whose digest, sizes and hashes are right, with names that nobody would save."""
    files = tuple(File(name=name, size=len(data), sha256=sha256(data)) for name in names)
    digest = files_digest(files)
    for name in names:
        try:
            store.put(f"checkpoints/{digest}/{name}", data)
        except StoreError:
            continue
    manifest = Manifest(schema_version=1, digest=digest, files=files, meta={})
    store.put(f"checkpoints/{digest}/manifest.json", canonical(manifest.model_dump()))
    return digest


@pytest.mark.parametrize(
    "names",
    [
        ["../../escape.json"],
        ["/etc/escape.json"],
        ["a/../../b.json"],
        ["a\\..\\b.json"],
        ["config.json", "config.json"],
        ["config.json", "Config.json"],
        ["stra\u00dfe.json", "STRASSE.json"],
        ["caf\u00e9.json", "cafe\u0301.json"],
        ["a.json", "a.json/b.json"],
        ["manifest.json"],
        ["modeling_evil.py"],
        ["pytorch_model.bin"],
        [".hidden.json"],
        ["sub/.git/config.json"],
    ],
    ids=str,
)
def test_names_that_no_save_writes_are_refused_before_anything_is_fetched(names: list[str], tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = forge(store, names)
    for check in (lambda: load_checkpoint(store, digest, tmp_path / "cache"), lambda: check_checkpoint(store, digest)):
        with pytest.raises(CorruptError, match=f"checkpoint {digest}") as caught:
            check()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@given(name=st.text("aA.\\/ \u00e9\n\0", max_size=12))
def test_a_checkpoint_never_leaves_its_folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any-name")
    store = LocalStore(root / "store")
    try:
        folder = load_checkpoint(store, forge(store, [f"{name}.json"]), root / "cache")
    except (CorruptError, NotFoundError):
        assert not (root / "cache").exists()
    else:
        (file,) = [path for path in (root / "cache").rglob("*") if path.is_file()]
        assert file.resolve().is_relative_to(folder.resolve())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": np.arange(9, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def test_names_that_differ_in_case_only_are_not_saved(tmp_path: Path, model: Path) -> None:
    (model / "Config.json").write_text("{}")
    if len(list(model.iterdir())) < 3:
        pytest.skip("this disk does not tell the case of names")
    with pytest.raises(ModelError, match="are one file on some disks"):
        save_checkpoint(LocalStore(tmp_path / "store"), model)


@pytest.mark.parametrize("where", ["file", "folder", "stranger", "below"])
def test_links_in_the_cache_are_refused(where: str, tmp_path: Path, model: Path) -> None:
    """A link verifies today and shows another model tomorrow."""
    store, cache = LocalStore(tmp_path / "store"), tmp_path / "cache"
    digest = save_checkpoint(store, model)
    folder = load_checkpoint(store, digest, cache)
    if where == "file":
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(model / "config.json")
    elif where == "folder":
        os.rename(folder, tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        (folder / ("extra.json" if where == "stranger" else "sub")).symlink_to(model)
    with pytest.raises(CorruptError, match="is a link"):
        load_checkpoint(store, digest, cache)


def test_every_blob_is_read_without_a_folder(any_store: Store, model: Path) -> None:
    digest = save_checkpoint(any_store, model)
    assert check_checkpoint(any_store, digest) == sum(path.stat().st_size for path in model.iterdir())
    key = f"checkpoints/{digest}/config.json"
    for damaged in (b"[]", b"", b"{} "):
        any_store.put(key, damaged)
        with pytest.raises(CorruptError, match=r"'config.json' in .* is \d bytes"):
            check_checkpoint(any_store, digest)
    any_store.delete(key)
    with pytest.raises(CorruptError, match=r"'config.json' is missing"):
        check_checkpoint(any_store, digest)


def test_saving_again_mends_what_was_half_swept(any_store: Store, model: Path, tmp_path: Path) -> None:
    """The manifest says that all is there; a save looks whether it is."""
    digest = save_checkpoint(any_store, model)
    any_store.delete(f"checkpoints/{digest}/model.safetensors")
    assert save_checkpoint(any_store, model) == digest
    assert has_checkpoint(any_store, digest) and check_checkpoint(any_store, digest)
