"""One request to a foreign server: bounded in time, attempts and bytes; its words never enter a reason."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2

from sparring.config.hooks import Hook, SecretName
from sparring.errors import ConfigError

MAX_BYTES: Final = 1 << 20
_PAUSES: Final = (0.5, 30.0)
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

logging.getLogger("httpx2").setLevel(logging.WARNING)  # its INFO lines hold whole addresses, which can be secrets


class HookFailed(Exception):
    """A delivery that did not succeed. `final`: no later attempt can; the text is for people and holds no secret."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.final = reason, final


def secret(where: SecretName) -> str:
    """The secret's value. Raises HookFailed naming where it should be."""
    if where.env:
        value = os.environ.get(where.env, "")
        place = f"environment variable {where.env}"
    else:
        place = f"file {where.file}"
        try:
            value = Path(str(where.file)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise HookFailed(f"{place} cannot be read: {type(error).__name__}") from error
    if not value:
        raise HookFailed(f"{place} is empty or not set")
    return value


def request(
    hook: Hook,
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    accept: Callable[[int], bool] = lambda status: 200 <= status < 300,
) -> tuple[int, bytes]:
    """Status and body of the reply that `accept` takes. Tries again what may pass, with growing, jittered pauses.

    Redirects are not followed: a signed message goes where it was sent. Raises HookFailed.
    """
    sent = {"User-Agent": "sparring", "Accept-Encoding": "identity", **(headers or {})}
    return asyncio.run(_tried(hook, (method, url, body, sent), accept))  # so that a request as a whole has a limit


async def _tried(
    hook: Hook, what: tuple[str, str, bytes | None, dict[str, str]], accept: Callable[[int], bool]
) -> tuple[int, bytes]:
    reason = ""
    async with httpx2.AsyncClient(timeout=hook.timeout_s, verify=_trust(hook), follow_redirects=False) as client:
        for attempt in range(hook.attempts):
            if attempt:
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(_PAUSES[1], _PAUSES[0] * 2**attempt))
            try:
                async with asyncio.timeout(hook.timeout_s):
                    status, reply = await _once(client, *what)
            except (httpx2.HTTPError, OSError) as error:  # a TimeoutError is one of these
                reason = f"no reply ({type(error).__name__})"
                continue
            if accept(status):
                return status, reply
            reason = f"answered {status}"
            if status not in _AGAIN:
                break
    raise HookFailed(reason)


async def _once(
    client: httpx2.AsyncClient, method: str, url: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, bytes]:
    async with client.stream(method, url, content=body, headers=headers) as response:
        parts: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                raise httpx2.ReadError(f"the reply has more than {MAX_BYTES} bytes")
        return response.status_code, b"".join(parts)


def _trust(hook: Hook) -> Any:
    if hook.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=hook.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"hook {hook.name}: ca_file {hook.ca_file} cannot be used: {type(error).__name__}") from error
