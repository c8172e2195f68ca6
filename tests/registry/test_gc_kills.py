"""A sweep killed at each of its deletions, and a whole line after one: `sparring verify` says the same as before."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sparring.cli.facts import verified
from sparring.registry.checkpoints import load_checkpoint
from sparring.registry.gc import sweep
from sparring.registry.marks import Retention
from sparring.steps.entry import execute
from sparring.steps.prepare import Base
from sparring.store import open_store
from tests.pipelines.planted import BETTER, plant, plant_model

ROOT = Path(__file__).parents[2]
NOTHING_YOUNG = Retention(keep_rounds=0, grace=0.0)

KILLED = """
import os, signal, sys
from sparring.registry.gc import sweep
from sparring.registry.marks import Retention
from sparring.store import open_store
store = open_store(sys.argv[1]).scope("lines/default")
kind, left = type(store), int(sys.argv[2])
delete = kind.delete

def dying(self, key):
    global left
    if not key.startswith("checks/"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    delete(self, key)

kind.delete = dying
sweep(store, Retention(keep_rounds=0, grace=0.0))
"""


@pytest.mark.parametrize("deletions", [0, 1, 2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_kill_9_during_a_sweep_leaves_what_verify_needs(any_store_url: str, tmp_path: Path, deletions: int) -> None:
    planted = plant(tmp_path, BETTER, url=any_store_url)
    for step in ("gate", "promote"):
        execute(step, planted.request.model_dump_json(), "1")
    lost = [plant_model(planted.store, tmp_path, value) for value in (3.0, 4.0)]
    expected = list(verified(planted.store))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), any_store_url, str(deletions)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done
    assert list(verified(planted.store)) == expected
    left = {key.split("/")[1] for key in planted.store.list("checkpoints/") if key.endswith("manifest.json")}
    assert all(load_checkpoint(planted.store, name, tmp_path / "cache").is_dir() for name in left)
    sweep(planted.store, NOTHING_YOUNG)
    assert list(verified(planted.store)) == expected
    assert not [key for key in planted.store.list() if any(name in key for name in lost)]
    assert load_checkpoint(planted.store, planted.candidate, tmp_path / "last").is_dir()


def test_a_whole_line_verifies_after_gc(any_store_url: str, tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER, url=any_store_url)
    for step in ("gate", "promote"):
        execute(step, planted.request.model_dump_json(), "1")
    store = open_store(any_store_url).scope("lines/default")
    store.put("base.json", Base(source="x", digest=planted.base).model_dump_json().encode())
    expected, before = list(verified(store)), set(store.list())
    lost = plant_model(store, tmp_path, 3.0)
    swept = sweep(store, Retention(keep_rounds=0, keep_champions=1, grace=0.0))
    assert [item.name for item in swept.items] == [lost]
    assert list(verified(store)) == expected and set(store.list()) == before
