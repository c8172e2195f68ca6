"""`sparring exporter`: one small process that reads the store now and then, and answers Prometheus from memory.

    every `interval` seconds: lines ─► facts ─► kept        a scrape: kept facts ─► text

So a scrape costs the same however slow the store is. `/healthz` says that the process serves, `/readyz` that every line
was read once; a store that does not answer leaves the last facts standing and shows in `sparring_exporter_up`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sparring import __version__
from sparring.errors import SetupError, SparringError
from sparring.monitor.facts import LineFacts, LineReader
from sparring.monitor.families import families

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Watch(Collector):
    """Reads lines again and again; gives what it read last. Reading is one thread's, `collect` anybody's."""

    def __init__(self, readers: Sequence[LineReader]) -> None:
        self._readers = list(readers)
        self._facts: dict[str, LineFacts] = {}
        self._up: dict[str, bool] = {}
        self._read_at: dict[str, float] = {}
        self._seconds = 0.0

    @property
    def ready(self) -> bool:
        """Whether every line was read once."""
        return len(self._facts) == len(self._readers)

    def look(self) -> None:
        """Reads every line. A line that cannot be read keeps its last facts; why is told in the log."""
        begun = time.monotonic()
        for reader in self._readers:
            try:
                self._facts[reader.line] = reader.read()
                self._read_at[reader.line] = time.time()
                self._up[reader.line] = True
            except SparringError as error:
                if self._up.get(reader.line, True):
                    log.warning("line %s cannot be read: %s", reader.line, error)
                self._up[reader.line] = False
        self._seconds = time.monotonic() - begun

    def collect(self) -> Iterator[Metric]:
        """All families; called by every scrape."""
        build = InfoMetricFamily("sparring_build", "The exporter's release.")
        build.add_metric([], {"version": __version__})
        yield build
        up = GaugeMetricFamily("sparring_exporter_up", "1 when the line was read at the last look.", labels=["line"])
        read = GaugeMetricFamily(
            "sparring_exporter_last_read_timestamp_seconds", "When the line was last read.", labels=["line"]
        )
        for line, good in list(self._up.items()):
            up.add_metric([line], float(good))
            if line in self._read_at:
                read.add_metric([line], self._read_at[line])
        yield from (up, read)
        yield GaugeMetricFamily("sparring_exporter_look_seconds", "How long the last look took.", value=self._seconds)
        yield from families(list(self._facts.values()))


class Exporter:
    """The server and the thread that looks. `with Exporter(…) as exporter: exporter.wait()`."""

    def __init__(self, watch: Watch, host: str, port: int, interval: float) -> None:
        self._watch, self._interval, self._stop = watch, interval, threading.Event()
        registry = CollectorRegistry()
        registry.register(watch)
        ProcessCollector(registry=registry)
        try:
            self._server = make_server(host, port, _app(registry, watch), _Server, _Quiet)
        except OSError as error:
            hint = "name another --host or --port"
            raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
        self._threads = [
            threading.Thread(target=self._looking, name="look", daemon=True),
            threading.Thread(target=self._server.serve_forever, name="serve", daemon=True),
        ]

    @property
    def address(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/metrics"

    def __enter__(self) -> Exporter:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> None:
        """Returns when another thread or a signal's handler calls `stop`."""
        self._stop.wait()

    def stop(self) -> None:
        """Ends `wait`."""
        self._stop.set()

    def _looking(self) -> None:
        while not self._stop.is_set():
            self._watch.look()
            self._stop.wait(self._interval)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 30  # of a client that says nothing

    def log_message(self, format: str, *args: Any) -> None:
        """A line a scrape tells nobody anything."""


def _app(registry: CollectorRegistry, watch: Watch) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        if path == "/healthz":
            return _text(start, "200 OK", "ok")
        if path == "/readyz":
            return _text(start, *(("200 OK", "ok") if watch.ready else ("503 Service Unavailable", "not read yet")))
        return _text(start, "404 Not Found", "see /metrics")

    return app


def _text(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
