"""One call to an OpenAI-compatible endpoint: bounded in time, in attempts and in the bytes that are read.

The `openai` client retries (429, 408, 409, 5xx, lost connections) with growing, jittered pauses and honours
`Retry-After`; here every call as a whole has a limit as well, so that a server cannot hold it up for ever. The server
is a foreign party: whatever it sends is a reply's text or a reason, and its words never enter a reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import httpx2
import openai

from sparring.config.judges import EndpointConfig
from sparring.errors import ConfigError
from sparring.judge.formats.base import Format, Request

MAX_BYTES = 1 << 20
"""Bytes of a response that are read; a longer one ends the attempt."""
_LONGEST_PAUSE = 10.0
"""Seconds that a call's limit grants an attempt beyond its time-out, for the pause before the next."""
_POOL = 16
"""Requests at once that share a pool of connections: a pool looks through all of them for each request."""
_CASE_ERRORS = (400, 413, 422)
"""Statuses that speak of this request (too long, say), not of the endpoint."""


class CallFailed(Exception):
    """No reply: the reason, and whether the endpoint as a whole is to blame."""

    def __init__(self, reason: str, *, endpoint: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.endpoint = reason, endpoint


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply's text, the tokens it cost, and the seconds from the first attempt to its end."""

    text: str
    tokens_in: int
    tokens_out: int
    seconds: float


class _Bounded(httpx2.AsyncByteStream):
    """A response body that ends the attempt when it grows too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_BYTES:
                raise httpx2.ReadError(f"the response has more than {MAX_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class Client:
    """An endpoint's client within one event loop; use it as an asynchronous context."""

    def __init__(self, config: EndpointConfig, fmt: Format, secrets: Secrets) -> None:
        self._config, self._format = config, fmt
        self.requests = 0
        self._next = 0.0
        headers: dict[str, Any] = {
            "OpenAI-Organization": openai.Omit(),  # the client would take both from the environment
            "OpenAI-Project": openai.Omit(),
            **secrets.headers,
            "Accept-Encoding": "identity",  # a small body must not unpack into a huge one
        }
        trusted = httpx2.create_ssl_context()
        pools = range(-(-config.concurrency // _POOL))
        self._pools = [self._pool(secrets.key, headers, trusted) for _ in pools]
        self._turn = cycle(self._pools)

    def _pool(self, key: str, headers: Mapping[str, Any], trusted: ssl.SSLContext) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=key,
            base_url=self._config.base_url,
            timeout=self._config.timeout_s,
            max_retries=self._config.retries,
            default_headers=headers,
            http_client=openai.DefaultAsyncHttpxClient(
                verify=trusted,
                follow_redirects=False,  # a redirect would carry the headers elsewhere
                event_hooks={"request": [self._before], "response": [self._after]},
            ),
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools:
            await pool.close()

    @property
    def limit(self) -> float:
        """Seconds that one call may take in all: its attempts, the pauses between them, and its turns."""
        config = self._config
        turn = 60.0 / config.requests_per_minute * config.concurrency if config.requests_per_minute else 0.0
        return (config.timeout_s + turn) * (config.retries + 1) + _LONGEST_PAUSE * (config.retries + 1)

    async def ask(self, request: Request, seconds: float) -> Reply:
        """The reply to one request within `seconds`. Raises CallFailed."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(min(self.limit, seconds)):
                body = await self._send(request)
        except TimeoutError as error:
            raise CallFailed("time limit") from error
        except openai.APIStatusError as error:
            raise CallFailed(f"HTTP {error.status_code}", endpoint=error.status_code not in _CASE_ERRORS) from error
        except openai.APITimeoutError as error:
            raise CallFailed("time-out") from error
        except (openai.APIError, httpx2.HTTPError) as error:
            raise CallFailed("no connection, or one that broke") from error
        return _read(body, completion=request.prompt is not None, seconds=time.monotonic() - start)

    async def _send(self, request: Request) -> bytes:
        """The body of the response. Posted as it is: the client's typed methods walk every field, which at a few
        hundred calls a second costs more than all the rest."""
        body: dict[str, Any] = {
            "model": self._config.model,
            "temperature": 0.0,
            "max_tokens": self._config.max_tokens or self._format.max_tokens,
            **request.extra,
        }
        if request.prompt is not None:
            path, body["prompt"] = "/completions", request.prompt
        else:
            path, body["messages"] = "/chat/completions", [dict(message) for message in request.messages]
        response = await next(self._turn).post(path, cast_to=httpx2.Response, body=body)
        if "json" not in response.headers.get("content-type", ""):
            raise CallFailed("not JSON")
        content: bytes = response.content
        return content

    async def _before(self, _: httpx2.Request) -> None:
        """Waits for this attempt's turn: attempts leave evenly spaced."""
        self.requests += 1
        if self._config.requests_per_minute:
            now = time.monotonic()
            turn = max(self._next, now)
            self._next = turn + 60.0 / self._config.requests_per_minute
            await asyncio.sleep(turn - now)

    async def _after(self, response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.ReadError("the response is compressed, which was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream)


@dataclass(frozen=True, repr=False)
class Secrets:
    """Key and headers from the environment. They have no printed form."""

    key: str
    headers: Mapping[str, str]


def secrets_of(name: str, config: EndpointConfig) -> Secrets:
    """What the configuration names, read from the environment. Raises ConfigError for a variable that is not set.

    Without `api_key_env` a dummy is sent: a key for somebody else's service must not reach this endpoint.
    """
    key = _variable(name, "api_key_env", config.api_key_env) if config.api_key_env else "none"
    headers = {head: _variable(name, f"headers_env.{head}", var) for head, var in config.headers_env.items()}
    return Secrets(key, headers)


def _variable(name: str, key: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"judge.endpoints.{name}.{key}: environment variable {variable} is not set", hint="set it to the secret"
        )
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"judge.endpoints.{name}.{key}: environment variable {variable} cannot stand in a header")
    return value


def _read(body: bytes, *, completion: bool, seconds: float) -> Reply:
    """The text of the first choice. Raises CallFailed for anything that is not an OpenAI response."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallFailed("not JSON") from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise CallFailed("not one choice")
    message = choices[0] if completion else choices[0].get("message")
    text = message.get("text" if completion else "content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise CallFailed("a choice without text")
    if choices[0].get("finish_reason") == "content_filter":
        raise CallFailed("content filter", endpoint=False)
    usage = data.get("usage")
    found = usage if isinstance(usage, dict) else {}
    return Reply(text, _count(found.get("prompt_tokens")), _count(found.get("completion_tokens")), seconds)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0
