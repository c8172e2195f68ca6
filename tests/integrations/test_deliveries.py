"""Hooks are delivered at least once, in order, and no failure of theirs touches the champion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.config.hooks import HookConfig, WebhookConfig
from sparring.config.run import RunConfig
from sparring.integrations import http
from sparring.integrations.after_round import after_round
from sparring.integrations.deliveries import Delivery, Line, deliver, of_record, pending
from sparring.monitor import ledger
from sparring.registry import champion, rounds
from sparring.steps.entry import RunRequest
from sparring.store.local import LocalStore
from tests.integrations.conftest import SECOND, hold, promote
from tests.integrations.receiver import Answer, Receiver, Seen
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


def test_a_new_registry_is_given_the_champion_that_stands(line: Line, server: Receiver) -> None:
    registry = {"kind": "model_registry", "name": "models", "url": server.url, "model": "m"}
    config = RunConfig.model_validate({"hooks": [registry]}).hooks
    promote(line, 1)
    promote(line, 2, SECOND)
    hold(line, 3)
    server.plan = lambda seen, count: (200, b'{"id": "7"}')
    assert states(deliver(line, config)) == [(2, "delivered")]
    assert deliver(line, config) == []


def test_rounds_that_were_killed_before_their_end_are_told_by_a_later_one(line: Line, server: Receiver) -> None:
    """The hook stands in the run files of rounds 2 and 3; neither lived to deliver anything."""
    for number, config in enumerate((RunConfig(), RunConfig(hooks=hooks(server)), RunConfig(hooks=hooks(server))), 1):
        digest = rounds.save_config(line.store, config)
        assert rounds.claim(line.store, config_digest=digest, now=datetime.now(UTC)).number == number
        promote(line, number, f"{number}" * 64)
        rounds.close(line.store, number, decision="PROMOTE", reason="")
    assert states(deliver(line, hooks(server))) == [(2, "delivered"), (3, "delivered")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(st.sampled_from(["promote", "hold", "invalid", "deliver", "down", "up", "killed"]), max_size=20),
    most=st.integers(1, 3),
)
def test_whatever_happens_each_event_is_told_in_order_or_given_up(
    acts: list[str], most: int, server: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`killed`: a delivery whose record was lost after the receiver had the message."""
    line = Line(LocalStore(tmp_path_factory.mktemp("line")), "default")
    server.seen.clear()
    server.plan = lambda seen, count: (200, b"")
    config = hooks(server, deliveries=most)
    hold(line, 1)
    deliver(line, config)
    for number, act in enumerate(acts, 2):
        if act == "down":
            server.plan = lambda seen, count: (500, b"")
        elif act == "up":
            server.plan = lambda seen, count: (200, b"")
        elif act == "deliver":
            deliver(line, config)
        elif act == "killed":
            for delivery in deliver(line, config)[-1:]:
                line.store.delete(f"hooks/ops/{delivery.record:06d}.json")
        elif act == "promote":
            promote(line, number, f"{number:064d}")
        else:
            hold(line, number, "INVALID" if act == "invalid" else "REJECT")
    server.plan = lambda seen, count: (200, b"")
    deliver(line, config)
    records = champion.read_log(line.store).records
    found = [delivery for record in records for delivery in of_record(line.store, record.number)]
    assert [delivery.record for delivery in found] == [record.number for record in records]
    assert all(delivery.settled for delivery in found)
    told = [seen.json()["record"] for seen in server.seen]
    assert told == sorted(told)
    assert {delivery.record for delivery in found if delivery.state == "delivered"} <= set(told)
    assert all(len(delivery.attempts) == most for delivery in found if delivery.state == "given_up")
    assert len({(seen.json()["id"], seen.json()["record"]) for seen in server.seen}) == len(set(told))


def test_a_delivery_reads_as_much_after_many_rounds_as_after_few(line: Line, server: Receiver) -> None:
    counted, config = Counted(line), hooks(server)
    for number in range(1, 30):
        hold(line, number)
        deliver(line, config)
    before = counted.reads
    hold(line, 30)
    assert states(deliver(Line(cast(Any, counted), "default"), config)) == [(30, "delivered")]
    pending(Line(cast(Any, counted), "default"), config)
    assert counted.reads - before <= 3


class Counted:
    """A line's store that counts the deliveries read from it."""

    def __init__(self, line: Line) -> None:
        self._store, self.reads = line.store, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str) -> bytes:
        self.reads += key.startswith("hooks/")
        return self._store.get(key)


def test_a_reply_that_breaks_our_code_is_a_failure_like_others(line: Line, server: Receiver) -> None:
    """MLflow keeps no local folder, so that the line is in a store that has an address."""
    models = {"kind": "mlflow", "name": "models", "url": server.url, "model": "m", "attempts": 1}
    config = RunConfig.model_validate({"hooks": [models]}).hooks
    promote(line, 1)
    elsewhere = Line(cast(Any, Elsewhere(line)), "default")
    server.plan = lambda seen, count: (200, b'{"model_versions": [3]}')
    assert states(deliver(elsewhere, config)) == [(1, "failing")]
    assert of_record(line.store, 1)[0].attempts[-1].detail.startswith("AttributeError at registries.py:")


class Elsewhere:
    """A line's store that says it is in S3."""

    url = "s3://models/lines/default"

    def __init__(self, line: Line) -> None:
        self._store = line.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_failure_does_not_undo_what_another_delivery_settled(line: Line, server: Receiver) -> None:
    promote(line, 1)

    def meanwhile(seen: Seen, count: int) -> Answer:
        if count == 1:
            assert states(deliver(line, hooks(server))) == [(1, "delivered")]
            return 500, b""
        return 200, b""

    server.plan = meanwhile
    assert states(deliver(line, hooks(server))) == [(1, "delivered")]
    assert [d.state for d in pending(line, hooks(server))] == ["delivered"]


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


def test_what_was_given_up_is_told_when_asked_for(line: Line, server: Receiver) -> None:
    promote(line, 1)
    server.plan = lambda seen, count: (500, b"")
    assert states(deliver(line, hooks(server, deliveries=1))) == [(1, "given_up")]
    server.plan = lambda seen, count: (200, b"")
    assert deliver(line, hooks(server)) == []
    assert states(deliver(line, hooks(server), again=True)) == [(1, "delivered")]
    assert deliver(line, hooks(server), again=True) == []
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1


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
