"""The store of release 0.1 must stay readable: history, verify, status, and everything else that a line holds.

`store_v1/` was written by `python -m tests.registry.make_store FOLDER` with that release's code and is never written
again. When a format changes, its reader learns both versions and a `store_v2/` is added beside it.
"""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparring.cli.main import app
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.registry.checkpoints import check_checkpoint
from sparring.registry.gc import sweep
from sparring.registry.marks import Retention
from sparring.replay.pool import Pool
from sparring.steps.card import write_card
from sparring.steps.results import PrepareResult, SelfplayResult
from sparring.store import Store, open_store
from sparring.store.datasets import load_meta, load_table

FIXTURE = Path(__file__).parent / "store_v1"
BASE = "20a4a6a877944bae18d78f1580a7f5f66ac1d275582936aef77ebd93078a791f"
CHAMPION = "4db714cc0ff507f835c1f5b1a9c50f6f816d4d3c2203bcdc412cb680a6ba774f"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy, so that nothing writes into the fixture."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "store"))


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(str(root)).scope("lines/default")


def sparring(root: Path, *arguments: str) -> str:
    with chdir(root.parent):
        done = CliRunner().invoke(app, [arguments[0], "--store", str(root), *arguments[1:]], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_history_status_and_verify(root: Path) -> None:
    first, second = json.loads(sparring(root, "history", "--json"))
    assert [(r["kind"], r["decision"], r["round"]) for r in (first, second)] == [
        ("promotion", "PROMOTE", 1),
        ("hold", "REJECT", 2),
    ]
    status = json.loads(sparring(root, "status", "--json"))
    assert (status["champion"], status["reference"], status["champion_round"]) == (CHAMPION, CHAMPION, 1)
    assert (status["rounds"], status["open_round"], status["open_step"]) == (3, 3, "update_pool")
    said = sparring(root, "verify")
    assert "2 records, the chain holds" in said and "the promotion of round 1 follows from its tables" in said
    assert f"champion {CHAMPION}" in said


def test_everything_else_in_it_reads_back(store: Store) -> None:
    prepared = rounds.load_result(store, 2, "prepare", PrepareResult)
    assert prepared is not None and prepared.base == BASE
    assert load_table(store, prepared.seeds)["prompt"].to_pylist()[1] == "Name three rivers."
    assert load_meta(store, prepared.suites)["kind"] == "suites"
    (config,) = store.list("configs/")
    assert rounds.load_config(store, Path(config).stem).gate.approve_first_run
    assert {step: entry.status for step, entry in ledger.read(store, 1).items()} == {"gate": "ok", "promote": "ok"}
    sizes = Pool(store).contents.sizes()
    assert (sizes["attacks"].rows, sizes["outcomes"].rows) == (4, 4)
    assert {check_checkpoint(store, digest) for digest in (BASE, CHAMPION)} == {90}


def test_it_goes_on(root: Path, store: Store) -> None:
    """The open round is taken up where it stood, a card and an export are made, gc removes only the rejected."""
    taken = rounds.claim(store, config_digest="0" * 64, now=datetime.now(UTC))
    assert (taken.number, taken.resumed) == (3, True)
    assert "record 1" in write_card(store, 1)
    sparring(root, "export", str(root.parent / "out"))
    assert (root.parent / "out" / "README.md").is_file()
    rejected, candidate = (rounds.load_result(store, number, "selfplay", SelfplayResult) for number in (2, 3))
    assert rejected is not None and candidate is not None
    swept = sweep(store, Retention(keep_rounds=0, grace=0.0))
    assert [item.name for item in swept.items] == [rejected.candidate]
    assert check_checkpoint(store, candidate.candidate) and read_log(store).champion == CHAMPION
    assert "the chain holds" in sparring(root, "verify")
