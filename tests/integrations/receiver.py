"""A real HTTP server that hooks talk to: it keeps what it was sent and answers as a plan says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes]


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`plan` is asked for each request's answer; `hang` seconds before it, `drop`: the connection is closed instead."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    plan: Callable[[Seen, int], Answer] = lambda seen, count: (200, b"{}")
    hang: float = 0.0
    drop: bool = False


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Starts one on a free loopback port."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            found.seen.append(seen)
            if found.drop:
                self.close_connection = True
                return
            time.sleep(found.hang)
            status, data = found.plan(seen, len(found.seen))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{found.url}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

        do_POST = do_GET = _take

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
