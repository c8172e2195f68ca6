"""Training states in the store, so that another machine goes on from them: content first, a small record last.

    <prefix>/checkpoints/<digest>/…   weights, optimizer, scheduler, random numbers and games so far
    <prefix>/state.json               {"schema_version", "digest", "step"}: the state to go on from

transformers writes optimizer, scheduler and random numbers with `torch.save`. No pickle goes into or comes out of the
store: they are kept as JSON and safetensors and made into those files again on the machine that goes on.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sparring.errors import CorruptError, TrainingError
from sparring.game.records import Game
from sparring.registry.checkpoints import load_checkpoint, save_checkpoint
from sparring.store.base import Store
from sparring.train.transcripts import Transcripts

SCHEMA_VERSION: Final = 1
_KEPT: Final = (".safetensors", ".json")
_PICKLED: Final = (".pt", ".pth")
_ARGUMENTS: Final = "training_args.bin"
_DONE: Final = "trainer_state.json"
"""Written last: a folder without it was cut off."""


class States:
    """The training states of one round, below the store's `prefix`."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._inside = store.scope(prefix)

    def keep(self, state: Path, step: int, games: Transcripts) -> None:
        """Stores a state folder of transformers' and the games up to `step`, then removes older states."""
        folder = state.parent / f"stored-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _plain(state, folder)
            for path in games.paths():
                rows = [asdict(Game(**row)) for row in pq.read_table(path).to_pylist()]
                (folder / f"games-{path.stem}.json").write_text(json.dumps(rows))
            digest = save_checkpoint(self._inside, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        record = {"schema_version": SCHEMA_VERSION, "digest": digest, "step": step}
        self._store.put(self._key, json.dumps(record).encode())
        self._sweep(digest)

    def restore(self, work: Path, games: Transcripts) -> None:
        """Leaves the stored state in `work` as transformers would have, unless one as new lies there.

        Raises CorruptError for a state that is not what was written.
        """
        record = self._record()
        if record is None or (newest_state(work) or (0, work))[0] >= record["step"]:
            return
        folder = load_checkpoint(self._inside, record["digest"], work / "restored")
        _pickled(folder, work / f"{PREFIX_CHECKPOINT_DIR}-{record['step']}")
        for path in sorted(folder.glob("games-*.json")):
            games.keep(int(path.stem.removeprefix("games-")), [Game(**row) for row in json.loads(path.read_text())])
        shutil.rmtree(work / "restored")

    def clear(self) -> None:
        """Removes all states."""
        self._store.delete(self._key)
        self._sweep("")

    @property
    def _key(self) -> str:
        return f"{self._prefix}/state.json"

    def _record(self) -> dict[str, Any] | None:
        if not self._store.exists(self._key):
            return None
        try:
            record = json.loads(self._store.get(self._key))
            found = {"digest": str(record["digest"]), "step": int(record["step"])}
        except (ValueError, LookupError, TypeError) as error:
            raise CorruptError(
                f"{self._key!r} in {self._store.url} is not what was written", hint="delete it"
            ) from error
        if record.get("schema_version") != SCHEMA_VERSION:
            raise CorruptError(f"{self._key!r} in {self._store.url} is of another release", hint="delete it")
        return found

    def _sweep(self, kept: str) -> None:
        for key in self._store.list(f"{self._prefix}/checkpoints/"):
            if not kept or f"/{kept}/" not in key:
                self._store.delete(key)


def newest_state(work: Path) -> tuple[int, Path] | None:
    """Step and folder of the newest whole state in `work`; one that a kill or a full disk cut off is passed over."""
    found = []
    for folder in work.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if work.is_dir() else ():
        try:
            found.append((int(json.loads((folder / _DONE).read_text())["global_step"]), folder))
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return max(found, default=None)


def _plain(state: Path, folder: Path) -> None:
    """Copies a state without its pickles, which become `<name>.state.json` and, with tensors, `.state.safetensors`."""
    folder.mkdir(parents=True)
    for path in sorted(p for p in state.rglob("*") if p.is_file() and p.name != _ARGUMENTS):
        name = path.relative_to(state).as_posix()
        if path.suffix in _KEPT:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        elif path.suffix in _PICKLED:
            with safe_globals():
                tree = torch.load(path, map_location="cpu", weights_only=True)
            tensors: dict[str, Tensor] = {}
            (folder / f"{name}.state.json").write_text(json.dumps(to_json(tree, tensors)))
            if tensors:
                save_file(tensors, folder / f"{name}.state.safetensors")


def _pickled(folder: Path, state: Path) -> None:
    """The reverse of `_plain`, made here and now from data; the state's own record is written last."""
    shutil.rmtree(state, ignore_errors=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("games-")):
        name = path.relative_to(folder).as_posix()
        if ".state." not in name and name != _DONE:
            (state / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, state / name)
        elif name.endswith(".state.json"):
            tensors = path.with_name(path.name.removesuffix("json") + "safetensors")
            state.mkdir(parents=True, exist_ok=True)
            tree = from_json(json.loads(path.read_text()), load_file(tensors) if tensors.exists() else {})
            torch.save(tree, state / name.removesuffix(".state.json"))
    shutil.copyfile(folder / _DONE, state / _DONE)


def to_json(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of plain Python data; its tensors and arrays go into `tensors` under their numbers.

    Raises TrainingError for anything else.
    """
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Tensor | np.ndarray):
        name = str(len(tensors))
        kind, tensor = ("array", torch.from_numpy(tree)) if isinstance(tree, np.ndarray) else ("tensor", tree.detach())
        tensors[name] = tensor.contiguous().clone()
        return {kind: name}
    if isinstance(tree, dict):
        return {"dict": [[to_json(key, tensors), to_json(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {type(tree).__name__: [to_json(item, tensors) for item in tree]}
    raise TrainingError(f"a training state holds a {type(tree).__name__}, which is not kept in the store")


def from_json(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """What `to_json` was given. Raises CorruptError."""
    if not isinstance(tree, dict):
        return tree
    try:
        ((kind, value),) = tree.items()
        if kind == "tensor":
            return tensors[value]
        if kind == "array":
            return tensors[value].numpy()
        if kind == "dict":
            return {from_json(key, tensors): from_json(item, tensors) for key, item in value}
        return {"list": list, "tuple": tuple}[kind](from_json(item, tensors) for item in value)
    except (ValueError, LookupError, TypeError) as error:
        raise CorruptError(f"a training state is not what was written: {error}") from error
