"""A promoted checkpoint as a plain Hugging Face folder, every file verified; it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from sparring.errors import ModelError, UsageError
from sparring.registry.champion import ChampionLog
from sparring.registry.checkpoints import fill_folder, load_manifest
from sparring.registry.signing import SIGNATURE, read_signature
from sparring.store.base import Store
from sparring.store.files import file_errors

CARD = "README.md"
_SHORTEST_PREFIX = 8
_NEEDED = ("config.json",)


def promoted_digest(log: ChampionLog, named: str) -> str:
    """The digest of `champion`, or of a promoted checkpoint named by its first 8 digits or more. Raises UsageError."""
    if named == "champion":
        if log.champion is None:
            raise UsageError("there is no champion yet, so that there is nothing promoted")
        return log.champion
    found = sorted(digest for digest in log.accepted if digest.startswith(named))
    if len(named) < _SHORTEST_PREFIX or len(found) != 1:
        known = ", ".join(digest[:12] for digest in sorted(log.accepted)) or "none"
        raise UsageError(f"{named!r} does not name one promoted checkpoint", hint=f"there are: {known}")
    return found[0]


def export_checkpoint(store: Store, digest: str, folder: Path, *, card: str) -> Path:
    """Writes a checkpoint with its card and, if there is one, its signature to `folder`, and returns it.

    Everything is fetched and verified beside `folder`, then renamed. Raises UsageError when something is there
    already, ModelError for a checkpoint that is no model folder, NotFoundError, CorruptError, StoreError.
    """
    target = Path(os.path.abspath(folder))
    _check_empty(target)
    manifest = load_manifest(store, digest)
    missing = [name for name in _NEEDED if name not in {file.name for file in manifest.files}]
    if missing:
        raise ModelError(f"checkpoint {digest} has no {missing[0]}, so that no library would load it")
    aside = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}")
    with file_errors("write", target):
        try:
            aside.mkdir(parents=True)
            fill_folder(store, manifest, aside)
            (aside / CARD).write_text(card, encoding="utf-8")
            signature = read_signature(store, digest)
            if signature is not None:
                (aside / SIGNATURE).write_bytes(signature)
            _check_empty(target)
            os.rename(aside, target)  # replaces an empty folder, and fails for any other
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _check_empty(target: Path) -> None:
    with file_errors("look for", target):
        if not os.path.lexists(target):
            return
        if target.is_symlink() or not target.is_dir() or any(target.iterdir()):
            raise UsageError(f"{target} is there and is no empty folder", hint="name a new folder")
