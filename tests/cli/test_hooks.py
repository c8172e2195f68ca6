"""`sparring hooks`, and the acts of persons that tell hooks, against a real receiver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparring.registry import champion, serving
from tests.cli.test_cli import sparring
from tests.cli.test_cli_acts import held
from tests.integrations.receiver import receiver
from tests.pipelines.planted import Planted


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", "k")


def run_file(folder: Path, planted: Planted, url: str) -> str:
    hook = {"name": "ops", "kind": "webhook", "url": url, "secret": {"env": "HOOK_KEY"}, "attempts": 1}
    (folder / "run.yaml").write_text(yaml.safe_dump({"store": planted.request.store, "hooks": [hook]}))
    return str(folder / "run.yaml")


def call(*arguments: str, config: str, cwd: Path, code: int = 0) -> str:
    done = sparring(*arguments, "--config", config, cwd=cwd)
    assert done.exit_code == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.usefixtures("key")
def test_what_is_due_is_listed_delivered_and_tried(tmp_path: Path) -> None:
    planted = held(tmp_path, waiting=True)
    with receiver() as found:
        config = run_file(tmp_path, planted, found.url)
        assert call("hooks", "list", config=config, cwd=tmp_path) == "ops              nothing yet\n"
        found.plan = lambda seen, count: (500, b"")
        said = call("hooks", "deliver", config=config, cwd=tmp_path, code=1)
        assert "failing: answered 500" in said
        assert "warning: hooks failed: ops; the champion log stands" in said
        (listed,) = json.loads(call("hooks", "list", "--json", config=config, cwd=tmp_path))
        assert (listed["state"], listed["event"], len(listed["attempts"])) == ("failing", "approval", 1)
        said = call("hooks", "test", "ops", config=config, cwd=tmp_path, code=1)
        assert "error: answered 500" in said
        found.plan = lambda seen, count: (200, b"")
        assert "ops: approval of record 1: answered 200" in call("hooks", "test", "ops", config=config, cwd=tmp_path)
        assert "delivered: answered 200" in call("hooks", "deliver", config=config, cwd=tmp_path)
        assert call("hooks", "deliver", config=config, cwd=tmp_path) == ""
        assert "no hook is named 'x'" in call("hooks", "test", "x", config=config, cwd=tmp_path, code=2)


@pytest.mark.usefixtures("key")
def test_approval_and_rollback_tell_at_once_and_stand_where_nobody_listens(tmp_path: Path) -> None:
    planted = held(tmp_path, waiting=True)
    with receiver() as found:
        config = run_file(tmp_path, planted, found.url)
        call("hooks", "deliver", config=config, cwd=tmp_path)
        yes = ("approve", "--round", "1", "--reason", "read them", "--actor", "ann")
        assert "delivered: answered 200" in call(*yes, config=config, cwd=tmp_path)
        assert [seen.json()["event"] for seen in found.seen] == ["approval", "promote"]
        assert [seen.json()["actor"] for seen in found.seen] == ["pipeline", "ann"]
    champion.append(
        planted.store, expected_head=3, kind="promotion", actor="pipeline", round=2, candidate="b" * 64,
        decision="PROMOTE", reason="",
    )  # fmt: skip
    said = call("rollback", "--reason", "it swears", config=config, cwd=tmp_path)  # nobody listens any more
    assert f"record 5: champion is {planted.candidate}" in said and "warning: hooks failed: ops" in said
    assert champion.read_log(planted.store).champion == planted.candidate
    with receiver() as found:
        call("hooks", "deliver", config=run_file(tmp_path, planted, found.url), cwd=tmp_path)
        assert [(seen.json()["event"], seen.json()["record"]) for seen in found.seen] == [
            ("promote", 4),
            ("rollback", 5),
        ]


def test_status_tells_served_from_champion(tmp_path: Path) -> None:
    planted = held(tmp_path, waiting=False)
    at: Any = {"service": "models.champion", "record": 1}
    serving.append(planted.store, state="switching", digest="a" * 64, uri="s3://m/a", reason="", **at)
    serving.append(planted.store, state="reverted", digest=None, uri="s3://m/before", reason="not Ready", **at)
    done = sparring("status", "--json", "--store", planted.request.store, cwd=tmp_path)
    assert json.loads(done.stdout)["served_by_models.champion"] == "s3://m/before (reverted, record 1)"
