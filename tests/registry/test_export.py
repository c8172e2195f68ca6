"""Exports: a promoted model as a plain folder, whole or not at all, with its card; and the commands around it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparring.cli.facts import verified
from sparring.cli.main import app
from sparring.errors import CorruptError, UsageError
from sparring.registry.champion import append
from sparring.registry.checkpoints import load_manifest
from sparring.registry.export import export_checkpoint, promoted_digest
from sparring.registry.gc import plan
from sparring.registry.marks import Retention
from sparring.registry.signing import SIGNATURE
from sparring.steps.entry import execute
from sparring.store.canonical import sha256_file
from tests.pipelines.planted import BETTER, Planted, plant, plant_model
from tests.registry.test_signing import keys

ROOT = Path(__file__).parents[2]
__all__ = ["keys"]


def promoted(folder: Path, url: str | None = None) -> Planted:
    planted = plant(folder, BETTER, url=url)
    for step in ("gate", "promote"):
        execute(step, planted.request.model_dump_json(), "1")
    return planted


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A line whose first round promoted. Tests must not change its log."""
    return promoted(tmp_path_factory.mktemp("line"))


def sparring(line: Planted, *arguments: str, cwd: Path, **env: str) -> Result:
    with chdir(cwd):
        arguments = (arguments[0], "--store", line.request.store, *arguments[1:])
        return CliRunner(env=env).invoke(app, arguments, catch_exceptions=False)


def test_the_folder_holds_the_verified_files_and_the_card(any_store_url: str, tmp_path: Path) -> None:
    line = promoted(tmp_path, any_store_url)
    done = sparring(line, "export", str(tmp_path / "out"), "--json", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["digest"], facts["round"], facts["record"], facts["signed"]) == (line.candidate, 1, 1, False)
    found = {path.name: sha256_file(path) for path in (tmp_path / "out").iterdir()}
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n") and line.candidate in card
    del found["README.md"]
    assert found == {file.name: file.sha256 for file in load_manifest(line.store, line.candidate).files}
    by_prefix = sparring(line, "export", "--digest", line.candidate[:8], str(tmp_path / "twin"), cwd=tmp_path)
    assert by_prefix.exit_code == 0 and (tmp_path / "twin" / "README.md").read_text() == card
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("there", ["file", "link", "full", "hidden"])
def test_what_is_there_is_never_written_over(there: str, line: Planted, tmp_path: Path) -> None:
    target = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    if there == "file":
        target.write_text("mine")
    elif there == "link":
        target.symlink_to(tmp_path / "empty")
    else:
        target.mkdir()
        (target / (".mine" if there == "hidden" else "mine")).write_text("mine")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    done = sparring(line, "export", str(target), cwd=tmp_path)
    assert done.exit_code == 2 and "is no empty folder" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    (tmp_path / "fresh").mkdir()
    assert sparring(line, "export", str(tmp_path / "fresh"), cwd=tmp_path).exit_code == 0  # an empty one is taken


def test_a_changed_byte_leaves_nothing(tmp_path: Path) -> None:
    line = promoted(tmp_path)
    line.store.put(f"checkpoints/{line.candidate}/config.json", b"{ }")
    done = sparring(line, "export", str(tmp_path / "out"), cwd=tmp_path)
    assert done.exit_code == 1 and "'config.json' in" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    with pytest.raises(CorruptError, match=r"config\.json"):
        list(verified(line.store))


def test_a_killed_export_leaves_no_folder(line: Planted, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from sparring.registry import export\nfrom sparring.store import open_store\n"
        "export.os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store = open_store({line.request.store!r}).scope('lines/default')\n"
        f"export.export_checkpoint(store, {line.candidate!r}, Path({str(tmp_path / 'out')!r}), card='x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    export_checkpoint(line.store, line.candidate, tmp_path / "out", card="x")


def test_only_what_was_promoted_is_exported(line: Planted, tmp_path: Path) -> None:
    for named, words in ((line.base, "does not name one promoted"), (line.candidate[:7], "does not name one promoted")):
        done = sparring(line, "export", "--digest", named, str(tmp_path / "out"), cwd=tmp_path)
        assert done.exit_code == 2 and words in done.stderr and line.candidate[:12] in done.stderr
    empty = plant(tmp_path / "empty", BETTER)
    done = sparring(empty, "export", str(tmp_path / "out"), cwd=tmp_path)
    assert done.exit_code == 2 and "no champion yet" in done.stderr
    with pytest.raises(UsageError):
        from sparring.registry.champion import read_log

        promoted_digest(read_log(empty.store), "champion")


def test_signed_verified_and_exported_by_command(keys: Path, tmp_path: Path) -> None:
    line = promoted(tmp_path)
    unsigned = sparring(line, "verify", "--key", str(keys / "ours.pub"), cwd=tmp_path)
    assert unsigned.exit_code == 1 and "has no signature" in unsigned.stderr and unsigned.stderr.count("\n") == 1
    secret = {"SPARRING_SIGN_KEY": str(keys / "secret.pem"), "SPARRING_SIGN_PASSWORD": "word"}
    done = sparring(line, "sign", cwd=tmp_path, **secret)
    assert (done.exit_code, done.stdout) == (0, f"signed {line.candidate}\n"), done.stderr
    holds = sparring(line, "verify", "--key", str(keys / "secret.pub"), cwd=tmp_path)
    assert holds.exit_code == 0 and "the signature holds" in holds.stdout
    other = sparring(line, "verify", "--key", str(keys / "ours.pub"), cwd=tmp_path)
    assert other.exit_code == 1 and "does not hold for key" in other.stderr and other.stderr.count("\n") == 1
    assert sparring(line, "export", str(tmp_path / "out"), cwd=tmp_path).exit_code == 0
    assert (tmp_path / "out" / SIGNATURE).is_file()


def test_gc_by_command_is_dry_unless_told(tmp_path: Path) -> None:
    line = promoted(tmp_path)
    lost = plant_model(line.store, tmp_path, 3.0)
    line.store.put("base.json", json.dumps({"source": "x", "digest": line.base}).encode())
    arguments = ("gc", "--grace-days", "0", "--json")
    dry = json.loads(sparring(line, *arguments, cwd=tmp_path).stdout)
    assert dry["dry_run"] and [item["name"] for item in dry["items"]] == [lost]
    assert line.store.exists(f"checkpoints/{lost}/manifest.json")
    assert "younger than grace" in sparring(line, "gc", cwd=tmp_path).stdout
    done = json.loads(sparring(line, *arguments, "--yes", cwd=tmp_path).stdout)
    assert done["freed_bytes"] == dry["would_free_bytes"] > 0 and not line.store.list(f"checkpoints/{lost}/")
    wrong = sparring(line, "gc", "--keep-champions", "0", cwd=tmp_path)
    assert wrong.exit_code == 2 and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["approval", "waits", "open test", "rejected", "champion changed"])
def test_a_candidate_that_a_person_may_still_promote_is_not_swept(kind: str, tmp_path: Path) -> None:
    """An approval is only possible while the champion is the one that the candidate was compared with."""
    store = promoted(tmp_path).store
    candidate, key = plant_model(store, tmp_path, 4.0), "rounds/000009/gate/decision.json"
    if kind == "approval":
        append(store, expected_head=1, kind="approval", actor="ann", round=9, candidate=candidate, reason="good")
    else:
        status = "open" if kind == "open test" else "pass"
        store.put(key, json.dumps({"decision": {"endpoints": [{"status": status}]}}).encode())
        for name in ("claim", "prepare/result", "end"):
            store.put(f"rounds/000009/{name}.json", b"{}")
        decision = "REJECT" if kind == "rejected" else "INCONCLUSIVE"
        append(
            store, expected_head=1, kind="hold", actor="a", round=9, candidate=candidate, decision=decision,
            reason="x", details={"decision_key": key},
        )  # fmt: skip
    if kind == "champion changed":
        other = plant_model(store, tmp_path, 5.0)
        append(
            store, expected_head=2, kind="promotion", actor="a", round=10, candidate=other, decision="PROMOTE",
            reason="x",
        )  # fmt: skip
    doomed = {item.name for item in plan(store, Retention(0, None, 0.0)).items}
    assert (candidate not in doomed) is (kind in ("approval", "waits"))
