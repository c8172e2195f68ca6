"""A real HTTP server that hooks talk to: it keeps what it was sent and answers as a plan says."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
    """`plan` is asked for each request's answer; `hang` seconds before it, `drop`: the connection is closed instead.

    `drip`: a header without end instead, a byte every so many seconds.
    """

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    plan: Callable[[Seen, int], Answer] = lambda seen, count: (200, b"{}")
    hang: float = 0.0
    drop: bool = False
    drip: float = 0.0


@contextlib.contextmanager
def receiver(tls: tuple[Path, Path] | None = None) -> Iterator[Receiver]:
    """Starts one on a free loopback port; with `tls` (certificate, key) it speaks https."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            found.seen.append(seen)
            if found.drop:
                self.close_connection = True
                return
            if found.drip:
                self._drip()
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

        def _drip(self) -> None:
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
                    self.wfile.write(bytes([byte]))
                    time.sleep(found.drip)

        do_POST = do_GET = _take

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        found.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
