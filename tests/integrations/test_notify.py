"""Webhook, Slack and Alertmanager against a real server that fails in every way."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.config.hooks import AlertmanagerConfig, SecretName, SlackConfig, WebhookConfig
from sparring.errors import ConfigError
from sparring.integrations import http, notify
from sparring.integrations.deliveries import Line, deliver, send
from sparring.integrations.events import Happened, happened
from sparring.integrations.http import HookFailed
from sparring.integrations.notify import signature
from sparring.registry.champion import read_log
from tests.integrations.conftest import hold, promote
from tests.integrations.receiver import Receiver, Seen, receiver
from tests.store.test_store_s3 import make_authority

KEY = "a key that nobody guesses"


def told(line: Line) -> Happened:
    return happened(read_log(line.store), 0)[-1]


def hook(server: Receiver, **other: object) -> WebhookConfig:
    settings = {"name": "ops", "kind": "webhook", "url": f"{server.url}/in", "secret": {"env": "HOOK_KEY"}, **other}
    return WebhookConfig.model_validate(settings)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", KEY)
    monkeypatch.setattr(http, "_PAUSES", (0.001, 0.01))


def test_a_receiver_can_check_the_signature(line: Line, server: Receiver) -> None:
    promote(line, 1)
    assert send(line, hook(server), told(line)) == "answered 200"
    (seen,) = server.seen
    stamp, found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", seen.headers["x-sparring-signature"]).groups()  # type: ignore[union-attr]
    assert abs(int(stamp) - time.time()) < 60
    assert hmac.compare_digest(
        found, hmac.new(KEY.encode(), f"{stamp}.".encode() + seen.body, hashlib.sha256).hexdigest()
    )
    assert seen.headers["idempotency-key"] == seen.json()["id"]
    assert seen.headers["x-sparring-event"] == "promote"


@given(body=st.binary(max_size=200), key=st.text(min_size=1, max_size=20), now=st.integers(0, 2**40))
def test_the_signature_covers_time_and_every_byte(body: bytes, key: str, now: int) -> None:
    made = signature(key, body, now)
    assert made != signature(key, body + b"x", now)
    assert made != signature(key, body, now + 1)
    assert made != signature(key + "x", body, now)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_may_pass_is_tried_again_with_the_same_id(line: Line, server: Receiver, status: int) -> None:
    promote(line, 1)
    server.plan = lambda seen, count: (status if count < 3 else 200, b"")
    assert send(line, hook(server), told(line)) == "answered 200"
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_what_will_not_pass_is_not_tried_again(line: Line, server: Receiver, status: int) -> None:
    promote(line, 1)
    server.plan = lambda seen, count: (status, b"the receiver's own words")
    with pytest.raises(HookFailed, match=f"^answered {status}$"):
        send(line, hook(server), told(line))
    assert [seen.path for seen in server.seen] == ["/in"]


def test_a_lost_connection_and_a_slow_server_are_bounded(line: Line, server: Receiver) -> None:
    promote(line, 1)
    server.drop = True
    with pytest.raises(HookFailed, match="no reply"):
        send(line, hook(server, attempts=2), told(line))
    assert len(server.seen) == 2
    server.drop, server.hang = False, 1.0
    begun = time.monotonic()
    with pytest.raises(HookFailed, match="no reply"):
        send(line, hook(server, attempts=1, timeout_s=0.2), told(line))
    assert time.monotonic() - begun < 5


def test_a_reply_that_drips_is_bounded_too(line: Line, server: Receiver) -> None:
    promote(line, 1)
    server.drip = 0.1  # each byte comes well within the time-out, the whole never
    begun = time.monotonic()
    with pytest.raises(HookFailed, match=r"no reply \(TimeoutError\)"):
        send(line, hook(server, attempts=1, timeout_s=1), told(line))
    assert time.monotonic() - begun < 10


def test_only_a_server_that_our_authority_vouches_for_is_told(line: Line, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    make_authority(openssl, tmp_path)
    promote(line, 1)
    with receiver(tls=(tmp_path / "cert.pem", tmp_path / "key.pem")) as server:
        with pytest.raises(HookFailed, match=r"no reply \(ConnectError\)"):
            send(line, hook(server, attempts=1), told(line))
        assert not server.seen
        with pytest.raises(HookFailed, match=r"no reply \(ConnectError\)"):  # another name than the certificate's
            other = {"url": server.url.replace("127.0.0.1", "localhost"), "ca_file": str(tmp_path / "ca.pem")}
            send(line, hook(server, attempts=1, **other), told(line))
        assert not server.seen
        assert send(line, hook(server, ca_file=str(tmp_path / "ca.pem")), told(line)) == "answered 200"
        with pytest.raises(ConfigError, match=r"hook ops: ca_file .* cannot be used"):
            send(line, hook(server, ca_file=str(tmp_path / "none.pem")), told(line))


def test_an_endless_reply_is_not_read(line: Line, server: Receiver) -> None:
    promote(line, 1)
    server.plan = lambda seen, count: (200, b"x" * (http.MAX_BYTES + 10))
    with pytest.raises(HookFailed, match="no reply"):
        send(line, hook(server, attempts=1), told(line))


def test_nobody_listens(line: Line, server: Receiver) -> None:
    promote(line, 1)
    closed = hook(server).model_copy(update={"url": "http://127.0.0.1:9"})
    with pytest.raises(HookFailed, match="no reply"):
        send(line, closed, told(line))


def test_a_missing_secret_names_its_place_and_sends_nothing(
    line: Line, server: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    promote(line, 1)
    monkeypatch.delenv("HOOK_KEY")
    with pytest.raises(HookFailed, match="HOOK_KEY is empty or not set"):
        send(line, hook(server), told(line))
    with pytest.raises(HookFailed, match="cannot be read"):
        send(line, hook(server, secret={"file": str(tmp_path / "none")}), told(line))
    assert not server.seen


def test_a_secret_from_a_file(line: Line, server: Receiver, tmp_path: Path) -> None:
    promote(line, 1)
    (tmp_path / "key").write_text(f"{KEY}\n")
    send(line, hook(server, secret={"file": str(tmp_path / "key")}), told(line))
    (seen,) = server.seen
    stamp = int(seen.headers["x-sparring-signature"].split(",")[0][2:])
    assert seen.headers["x-sparring-signature"] == signature(KEY, seen.body, stamp)


def test_slack_gets_plain_text_without_markup(line: Line, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(line, 1, reason="<!channel> & <https://evil.example|click>")
    monkeypatch.setenv("SLACK", f"{server.url}/services/secret")
    slack = SlackConfig(name="chat", kind="slack", url=SecretName(env="SLACK"))
    send(line, slack, told(line))
    text = server.seen[0].json()["text"]
    assert "REJECT" in text
    assert "<" not in text
    assert "&lt;!channel&gt;" in text


def test_a_slack_address_that_is_none_is_final(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(line, 1)
    monkeypatch.setenv("SLACK", "hunter2")
    with pytest.raises(HookFailed) as failed:
        send(line, SlackConfig(name="chat", kind="slack", url=SecretName(env="SLACK")), told(line))
    assert failed.value.final
    assert "hunter2" not in failed.value.reason


@pytest.mark.parametrize("address", ["http://[::bad/hunter2", "http://x:99999/hunter2", "http://hunter2\x00/"])
def test_an_address_that_cannot_be_called_is_told_without_it(
    address: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(line, 1)
    slack = SlackConfig(name="chat", kind="slack", url=SecretName(file="/dev/stdin"), attempts=1, timeout_s=2)
    monkeypatch.setattr(notify, "secret", lambda _: address)
    with pytest.raises(HookFailed) as failed:
        send(line, slack, told(line))
    assert "hunter2" not in failed.value.reason


def test_no_log_has_a_secret_address(
    line: Line, server: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubeflow's executor logs everything from INFO on, the HTTP client's lines too."""
    hold(line, 1)
    monkeypatch.setenv("SLACK", f"{server.url}/services/hunter2")
    slack = SlackConfig(name="chat", kind="slack", url=SecretName(env="SLACK"), attempts=1)
    with caplog.at_level(logging.INFO):
        send(line, slack, told(line))
        server.plan = lambda seen, count: (500, b"")
        with pytest.raises(HookFailed) as failed:
            send(line, slack, told(line))
    assert len(server.seen) == 2
    assert "hunter2" not in caplog.text + failed.value.reason


def test_an_alert_fires_and_the_others_end(line: Line, server: Receiver) -> None:
    hold(line, 1, "INVALID", "the candidate has no verdict table")
    am = AlertmanagerConfig(name="am", kind="alertmanager", url=server.url, labels={"team": "safety"})
    send(line, am, told(line))
    (seen,) = server.seen
    assert seen.path == "/api/v2/alerts"
    by_name = {alert["labels"]["alertname"]: alert for alert in seen.json()}
    assert set(by_name) == {"SparringInvalid", "SparringApproval", "SparringRollback"}
    firing = by_name["SparringInvalid"]
    assert firing["annotations"]["description"] == "the candidate has no verdict table"
    assert firing["labels"] == {"team": "safety", "alertname": "SparringInvalid", "line": "default"}
    assert firing["endsAt"] > firing["startsAt"]
    assert all(one["endsAt"] <= firing["startsAt"] for name, one in by_name.items() if name != "SparringInvalid")


def test_what_is_no_alert_ends_them_all(line: Line, server: Receiver) -> None:
    am = AlertmanagerConfig(name="am", kind="alertmanager", url=server.url)
    hold(line, 1, "INVALID")
    assert [d.state for d in deliver(line, [am])] == ["delivered"]
    promote(line, 2)
    assert [d.state for d in deliver(line, [am])] == ["delivered"]
    alerts = server.seen[-1].json()
    assert {alert["labels"]["alertname"] for alert in alerts} == {
        "SparringInvalid",
        "SparringApproval",
        "SparringRollback",
    }
    assert all("annotations" not in alert and alert["startsAt"] < alert["endsAt"] for alert in alerts)


def test_messages_are_json_whatever_the_reason(line: Line, server: Receiver) -> None:
    hold(line, 1, reason='quote " backslash \\ 你好 \n new line')
    send(line, hook(server), told(line))
    seen: Seen = server.seen[0]
    assert json.loads(seen.body)["reason"] == 'quote " backslash \\ 你好 \n new line'
