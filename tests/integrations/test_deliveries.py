"""Hooks are delivered at least once, in order, and no failure of theirs touches the champion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sparring.config.hooks import HookConfig, WebhookConfig
from sparring.config.run import RunConfig
from sparring.integrations import http
from sparring.integrations.after_round import after_round, of_record
from sparring.integrations.deliveries import Delivery, Line, deliver, pending
from sparring.monitor import ledger
from sparring.registry import champion, rounds
from sparring.steps.entry import RunRequest
from sparring.store.local import LocalStore
from tests.integrations.conftest import SECOND, hold, promote
from tests.integrations.receiver import Receiver
from tests.report.pages import line as played
from tests.report.world import FIRST as BETTER
from tests.report.world import Plan

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", "k")
    monkeypatch.setattr(http, "_PAUSES", (0.001, 0.01))


def hooks(server: Receiver, **other: object) -> list[HookConfig]:
    settings = {"name": "ops", "kind": "webhook", "url": server.url, "secret": {"env": "HOOK_KEY"}, "attempts": 1}
    return [WebhookConfig.model_validate({**settings, **other})]


def states(done: list[Delivery]) -> list[tuple[int, str]]:
    return [(delivery.record, delivery.state) for delivery in done]


def test_each_event_is_told_once(line: Line, server: Receiver) -> None:
    promote(line, 1)
    assert states(deliver(line, hooks(server))) == [(1, "delivered")]
    assert deliver(line, hooks(server)) == []
    hold(line, 2)
    assert states(deliver(line, hooks(server))) == [(2, "delivered")]
    assert [seen.json()["record"] for seen in server.seen] == [1, 2]


def test_a_new_hook_is_not_told_the_past(line: Line, server: Receiver) -> None:
    promote(line, 1)
    hold(line, 2)
    hold(line, 3)
    assert states(deliver(line, hooks(server))) == [(3, "delivered")]


def test_a_failure_waits_keeps_the_order_and_its_id(line: Line, server: Receiver) -> None:
    promote(line, 1)
    server.plan = lambda seen, count: (503, b"")
    assert states(deliver(line, hooks(server))) == [(1, "failing")]
    hold(line, 2)
    assert states(deliver(line, hooks(server))) == [(1, "failing")]
    assert [d.state for d in pending(line, hooks(server))] == ["failing"]
    server.plan = lambda seen, count: (200, b"")
    assert states(deliver(line, hooks(server))) == [(1, "delivered"), (2, "delivered")]
    ids = [seen.json()["id"] for seen in server.seen]
    assert ids[:3] == [ids[0]] * 3
    assert ids[3] != ids[0]
    (first,) = of_record(line.store, 1)
    assert [attempt.ok for attempt in first.attempts] == [False, False, True]


def test_it_is_given_up_at_last_and_the_next_event_is_told(line: Line, server: Receiver) -> None:
    promote(line, 1)
    server.plan = lambda seen, count: (500, b"")
    assert states(deliver(line, hooks(server, deliveries=2))) == [(1, "failing")]
    assert states(deliver(line, hooks(server, deliveries=2))) == [(1, "given_up")]
    server.plan = lambda seen, count: (200, b"")
    hold(line, 2)
    assert states(deliver(line, hooks(server, deliveries=2))) == [(2, "delivered")]


def test_an_alert_of_the_past_is_passed_over(line: Line, server: Receiver) -> None:
    alert = {"kind": "alertmanager", "name": "am", "url": server.url, "attempts": 1}
    config = RunConfig.model_validate({"hooks": [alert]}).hooks
    hold(line, 1, "INVALID")
    server.plan = lambda seen, count: (500, b"")
    assert states(deliver(line, config)) == [(1, "failing")]
    server.plan = lambda seen, count: (200, b"")
    hold(line, 2, "INVALID")
    assert states(deliver(line, config)) == [(1, "passed_over"), (2, "delivered")]


def test_one_hook_that_fails_holds_up_no_other(line: Line, server: Receiver) -> None:
    promote(line, 1)
    dead = hooks(server, name="dead", url="http://127.0.0.1:9")
    assert [(d.hook, d.state) for d in deliver(line, [*dead, *hooks(server)])] == [
        ("dead", "failing"),
        ("ops", "delivered"),
    ]


def test_only_the_events_that_a_hook_is_for(line: Line, server: Receiver) -> None:
    only = hooks(server, on=["invalid"])
    promote(line, 1)
    assert deliver(line, only) == []
    hold(line, 2, "INVALID")
    assert states(deliver(line, only)) == [(2, "delivered")]


def test_the_exit_task_leaves_the_failure_in_the_ledger_and_the_champion_alone(
    tmp_path: Path, server: Receiver
) -> None:
    server.plan = lambda seen, count: (500, b"")
    store = played(tmp_path, Plan(BETTER))
    before = champion.read_log(store)
    config = RunConfig(store=str(tmp_path), hooks=hooks(server))
    run = RunRequest(store=str(tmp_path), line="default", config=rounds.save_config(store, config)).model_dump_json()
    assert states(after_round(run)) == [(1, "failing")]
    entry = ledger.read(store, 1)["hooks"]
    assert entry.status == "failed"
    assert entry.metrics["failing"] == 1
    assert "ops: answered 500" in str(entry.attempts[-1].error)
    assert champion.read_log(store) == before
    server.plan = lambda seen, count: (200, b"")
    assert states(after_round(run)) == [(1, "delivered")]
    assert ledger.read(store, 1)["hooks"].status == "ok"


def test_a_broken_record_is_told_and_stops_nothing(tmp_path: Path, server: Receiver, caplog: object) -> None:
    store = played(tmp_path, Plan(BETTER))
    config = RunConfig(store=str(tmp_path), hooks=hooks(server))
    run = RunRequest(store=str(tmp_path), line="default", config=rounds.save_config(store, config)).model_dump_json()
    after_round(run)
    store.put("hooks/ops/000001.json", b"{")
    assert after_round(run) == []
    assert "hooks/ops/000001.json" in str(caplog.text)  # type: ignore[attr-defined]


def test_killed_while_sending_it_is_sent_again_with_the_same_id(line: Line, server: Receiver, tmp_path: Path) -> None:
    promote(line, 1, SECOND)
    assert isinstance(line.store, LocalStore)
    server.hang = 30.0
    script = textwrap.dedent(f"""
        from sparring.config.run import RunConfig
        from sparring.integrations.deliveries import Line, deliver
        from sparring.store.local import LocalStore
        hook = {{"name": "ops", "kind": "webhook", "url": {server.url!r}, "secret": {{"env": "HOOK_KEY"}}}}
        line = Line(LocalStore({str(tmp_path / "store")!r}).scope("lines/default"), "default")
        deliver(line, RunConfig.model_validate({{"hooks": [hook]}}).hooks)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    end = time.monotonic() + 60
    while not server.seen and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    server.hang = 0.0
    assert states(deliver(line, hooks(server))) == [(1, "delivered")]
    assert len(server.seen) == 2
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1


def test_names_stand_once() -> None:
    one = {"name": "a", "kind": "alertmanager", "url": "http://x"}
    with pytest.raises(ValueError, match="should name a once"):
        RunConfig.model_validate({"hooks": [one, one]})


@pytest.mark.parametrize("url", ["ftp://x", "http://", "https://me:word@host/", "host"])
def test_an_address_is_http_without_a_password(url: str) -> None:
    with pytest.raises(ValueError, match="should be http"):
        RunConfig.model_validate({"hooks": [{"name": "a", "kind": "alertmanager", "url": url}]})
