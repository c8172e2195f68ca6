"""Hooks that tell somebody: signed webhook, Slack-compatible message, Alertmanager alert."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sparring.config.hooks import AlertmanagerConfig, SlackConfig, WebhookConfig
from sparring.integrations.events import Happened, headline, iso
from sparring.integrations.http import HookFailed, request, secret

_JSON = {"Content-Type": "application/json"}


def webhook(hook: WebhookConfig, told: Happened, message: dict[str, object], line: str) -> str:
    """Posts the message. `X-Sparring-Signature: t=<unix seconds>,v1=<hex>`, HMAC-SHA256 over `<t>.<body>`."""
    body = json.dumps(message, sort_keys=True, ensure_ascii=False).encode()
    headers = {
        **_JSON,
        "Idempotency-Key": told.id(line),
        "X-Sparring-Event": told.event,
        "X-Sparring-Signature": signature(secret(hook.secret), body, int(time.time())),
    }
    status, _ = request(hook, "POST", hook.url, body=body, headers=headers)
    return f"answered {status}"


def signature(key: str, body: bytes, now: int) -> str:
    """The header's value; the time stands in it so that a receiver can refuse what is old."""
    digest = hmac.new(key.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


def slack(hook: SlackConfig, told: Happened, message: dict[str, object], line: str) -> str:
    """Posts the headline and the reason; nothing in it is markup."""
    url = secret(hook.url)
    if not url.startswith(("http://", "https://")):
        raise HookFailed("the address in the secret is not http(s)://…", final=True)
    text = _plain(f"{headline(told, line)}\n{message['reason']}")
    status, _ = request(hook, "POST", url, body=json.dumps({"text": text}).encode(), headers=_JSON)
    return f"answered {status}"


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:3000]


def alertmanager(hook: AlertmanagerConfig, told: Happened, message: dict[str, object], line: str) -> str:
    """Fires this event's alert if it is one, and ends those of the other events: a line has one state."""
    now = datetime.now(UTC)
    alerts = [_alert(hook, event, line, now, None) for event in hook.on if event != told.event]
    if told.event in hook.on:
        alerts.append(_alert(hook, told.event, line, now, (headline(told, line), str(message["reason"]))))
    status, _ = request(hook, "POST", f"{hook.url}/api/v2/alerts", body=json.dumps(alerts).encode(), headers=_JSON)
    return f"answered {status}"


def _alert(
    hook: AlertmanagerConfig, event: str, line: str, now: datetime, text: tuple[str, str] | None
) -> dict[str, Any]:
    """One alert; without a text it ends now. Labels are its identity, so they hold nothing that changes by round."""
    labels = {**hook.labels, "alertname": f"Sparring{event.capitalize()}", "line": line}
    if text is None:
        return {"labels": labels, "startsAt": iso(now - timedelta(seconds=1)), "endsAt": iso(now)}
    end = now + timedelta(hours=hook.hours)
    annotations = {"summary": text[0], "description": text[1]}
    return {"labels": labels, "annotations": annotations, "startsAt": iso(now), "endsAt": iso(end)}
