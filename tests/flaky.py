"""An HTTP proxy that does what networks and overloaded servers do, in front of a real S3 server."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = str
"""`pass`; `drop` unseen; `cut` the reply; `fail` with 503, unseen; `lie`: carried out, but answered with 500."""


@dataclass
class Flaky:
    """A running proxy. `plan` is asked with (method, path, count so far of that method) for each request."""

    endpoint: str
    plan: Callable[[str, str, int], Fault] = lambda method, path, count: "pass"
    seen: list[tuple[str, str, Fault]] = field(default_factory=list)

    def fault(self, method: str, path: str) -> Fault:
        count = sum(one[0] == method for one in self.seen)
        found = self.plan(method, path, count)
        self.seen.append((method, path, found))
        return found


@contextlib.contextmanager
def flaky_proxy(upstream: str) -> Iterator[Flaky]:
    """Starts a proxy on a free loopback port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        flaky = Flaky(f"http://127.0.0.1:{server.server_port}")
        server.flaky = flaky  # type: ignore[attr-defined]
        server.upstream = urlsplit(upstream).netloc  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield flaky
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.flaky.fault(self.command, self.path)  # type: ignore[attr-defined]
        if fault == "drop":
            return self._hang_up()
        if fault == "fail":
            return self._reply(503, [], b"<Error><Code>SlowDown</Code></Error>")
        status, headers, data = self._forward(body)
        if fault == "cut":
            return self._hang_up()
        if fault == "lie":
            return self._reply(500, [], b"<Error><Code>InternalError</Code></Error>")
        return self._reply(status, headers, data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)  # type: ignore[attr-defined]
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()

    def _reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests look at `Flaky.seen`."""
