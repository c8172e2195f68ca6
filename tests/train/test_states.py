"""Training states in the store: another machine goes on; no pickle goes in, none is taken out."""

from __future__ import annotations

import contextlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparring.errors import CorruptError, TrainingError
from sparring.policy.load import Policy
from sparring.store import Store, open_store
from sparring.train.session import Session, train
from sparring.train.states import States, from_json, newest_state, to_json
from sparring.train.transcripts import Transcripts
from tests.train.small import SMALL, session, weights

PREFIX = "rounds/000001/selfplay/states"
CONFIG = SMALL.model_copy(update={"steps": 4, "save_steps": 100, "checkpoint_minutes": 1e-9})


class Killed(BaseException):
    pass


def machine(policy: Policy, folder: Path, work: Path, store: Store) -> tuple[Session, States, Transcripts]:
    """A work folder of its own, with what the store has for it."""
    states, games = States(store, PREFIX), Transcripts(work)
    states.restore(work / "train", games)
    keep = lambda state, step: states.keep(state, step, games)  # noqa: E731
    return replace(session(policy, folder, work / "train", CONFIG), keep=keep), states, games


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def killed_at(step: int, given: Session, games: Transcripts) -> None:
    def on_step(at: int, played: Any, _: Any) -> None:
        games.keep(at, played)
        if at == step:
            raise Killed

    with pytest.raises(Killed):
        train(given, 12, on_step)


def test_another_machine_goes_on_and_ends_in_the_same_weights(
    policy: Policy, folder: Path, tmp_path: Path, store: Store
) -> None:
    whole = weights(train(session(policy, folder, tmp_path / "whole", CONFIG), 12, lambda *_: None))
    given, _, games = machine(policy, folder, tmp_path / "one", store)
    killed_at(3, given, games)
    assert not [key for key in store.list(PREFIX) if key.endswith((".pt", ".pth", ".bin"))]
    other, states, its_games = machine(policy, folder, tmp_path / "other", store)
    assert (newest_state(tmp_path / "other/train") or (0,))[0] == 2
    assert [path.stem for path in its_games.paths()] == ["000001", "000002"]
    assert its_games.table().equals(games.table().slice(0, its_games.table().num_rows))
    steps: list[int] = []
    model = train(other, 12, lambda step, *_: steps.append(step))
    assert steps == [3, 4]
    assert all(torch.equal(p, weights(model)[name]) for name, p in whole.items())
    assert len({key.split("/")[5] for key in store.list(f"{PREFIX}/checkpoints/")}) == 1  # older states are gone
    states.clear()
    assert store.list(PREFIX) == []


def test_a_planted_pickle_is_refused(policy: Policy, folder: Path, tmp_path: Path, store: Store) -> None:
    """Whoever can write to the store can make a manifest that fits: the name of a pickle is refused all the same."""
    from sparring.registry.checkpoints import File, files_digest
    from sparring.store.canonical import canonical, sha256

    given, _, games = machine(policy, folder, tmp_path / "one", store)
    killed_at(2, given, games)
    record = json.loads(store.get(f"{PREFIX}/state.json"))
    evil = pickle.dumps(print)
    manifest = json.loads(store.get(f"{PREFIX}/checkpoints/{record['digest']}/manifest.json"))
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin"):
        files = (*(File(**f) for f in manifest["files"]), File(name=name, size=len(evil), sha256=sha256(evil)))
        digest = files_digest(files)
        body = {**manifest, "digest": digest, "files": [f.model_dump() for f in files]}
        for file in manifest["files"]:
            data = store.get(f"{PREFIX}/checkpoints/{record['digest']}/{file['name']}")
            store.put(f"{PREFIX}/checkpoints/{digest}/{file['name']}", data)
        store.put(f"{PREFIX}/checkpoints/{digest}/{name}", evil)
        store.put(f"{PREFIX}/checkpoints/{digest}/manifest.json", canonical(body))
        store.put(f"{PREFIX}/state.json", json.dumps({**record, "digest": digest}).encode())
        with pytest.raises(CorruptError, match="none of the files that a checkpoint holds"):
            States(store, PREFIX).restore(tmp_path / "other" / "train", Transcripts(tmp_path / "other"))
        assert newest_state(tmp_path / "other/train") is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"schema_version": 1, "step": 3}', b'{"schema_version": 2, "digest": "a", "step": 1}']
)
def test_a_record_that_is_not_what_was_written_is_said(store: Store, tmp_path: Path, body: bytes) -> None:
    store.put(f"{PREFIX}/state.json", body)
    with pytest.raises(CorruptError, match="delete it"):
        States(store, PREFIX).restore(tmp_path / "work", Transcripts(tmp_path))


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_TREES = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(_TREES)
def test_plain_data_comes_back_as_it_was(tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    assert from_json(json.loads(json.dumps(to_json(tree, tensors))), tensors) == tree and tensors == {}


def test_tensors_and_arrays_come_back_as_they_were() -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = {0: {"exp_avg": torch.randn(3, 2)}, "numpy": ("MT19937", np.arange(5, dtype=np.uint32), 3)}
    back = from_json(json.loads(json.dumps(to_json(tree, tensors))), tensors)
    assert torch.equal(back[0]["exp_avg"], tree[0]["exp_avg"])  # type: ignore[index]
    assert back["numpy"][1].dtype == np.uint32 and (back["numpy"][1] == np.arange(5)).all()


def test_what_is_no_plain_data_is_not_kept() -> None:
    with pytest.raises(TrainingError, match="holds a set"):
        to_json({"a": {1, 2}}, {})


@given(st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_edited_data_is_a_corrupt_state_and_nothing_else(tree: Any) -> None:
    with contextlib.suppress(CorruptError):
        from_json(tree, {})
