"""A small OpenAI-compatible server on loopback that lies, fails and stalls as told: a foreign party for the judges."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any], int], "Response"]
"""From a request's body and its number (from 0) to a response."""


@dataclass(frozen=True)
class Response:
    """What is sent. `cut`: bytes of the body that are really sent before the connection closes."""

    status: int = 200
    body: bytes = b"{}"
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None


def said(text: str, **choice: Any) -> Response:
    """A proper response with this text, for chats and completions alike."""
    one = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "text": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    return Response(body=json.dumps({"id": "x", "choices": [{**one, **choice}], "usage": usage}).encode())


@dataclass
class Foreign:
    """The running server: its address, and what it was asked."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    times: list[float] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextmanager
def serving(answer: Answer) -> Iterator[Foreign]:
    """A server that answers so, until the block ends."""
    lock, busy = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                busy[0] += 1
                foreign.most_at_once = max(foreign.most_at_once, busy[0])
                number = len(foreign.requests)
                foreign.requests.append({**body, "path": self.path})
                foreign.headers.append({name.lower(): value for name, value in self.headers.items()})
                foreign.times.append(time.monotonic())
            try:
                self._send(answer(body, number))
            finally:
                with lock:
                    busy[0] -= 1

        def _send(self, response: Response) -> None:
            time.sleep(response.delay)
            self.send_response(response.status)
            self.send_header("Content-Type", response.kind)
            self.send_header("Content-Length", str(len(response.body)))
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body[: response.cut])
            self.close_connection = response.cut is not None

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    foreign = Foreign(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield foreign
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
