"""`sparring exporter`: one small process that reads the store now and then, and answers Prometheus from memory.

    every `interval` seconds: lines ─► facts ─► kept        a scrape: kept facts ─► text

So a scrape costs the same however slow the store is. `/healthz` says that the process serves and looks, `/readyz` that
every line was read once; a store that does not answer leaves the last facts standing and shows in
`sparring_exporter_up`.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sparring import __version__
from sparring.config.section import NAME
from sparring.errors import SetupError, SparringError
from sparring.monitor.facts import LineFacts, LineReader
from sparring.monitor.families import families
from sparring.store.base import Store

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Watch(Collector):
    """Reads lines again and again; gives what it read last. Reading is one thread's, `collect` anybody's.

    `lines` None: all that the store holds, those that come later too.
    """

    def __init__(self, store: Store, lines: Sequence[str] | None) -> None:
        self._store, self._all = store, lines is None
        self._readers: dict[str, LineReader] = {}
        self._facts: dict[str, LineFacts] = {}
        self._up: dict[str, bool] = {}
        self._read_at: dict[str, float] = {}
        self._seconds = 0.0
        self._looked = False
        self._failing: set[str] = set()
        for line in lines or ():
            self._add(line)

    @property
    def ready(self) -> bool:
        """Whether every line was read once."""
        return self._looked and self._facts.keys() >= self._readers.keys()

    def look(self) -> None:
        """Reads every line. A line that cannot be read keeps its last facts; why is told in the log."""
        begun = time.monotonic()
        if self._all and not self._tried("lines of the store", self._find):
            return
        for line, reader in self._readers.items():
            good = self._tried(f"line {line}", partial(self._read, reader))
            self._up[line] = good
            if good:
                self._read_at[line] = time.time()
        self._looked = True
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
        help_ = "How long the last look at the store took."
        yield GaugeMetricFamily("sparring_exporter_look_duration_seconds", help_, value=self._seconds)
        yield from families(list(self._facts.values()))

    def _find(self) -> None:
        for line in self._store.folders("lines"):
            if line not in self._readers and re.fullmatch(NAME, line):
                self._add(line)

    def _add(self, line: str) -> None:
        self._readers[line] = LineReader(self._store.scope(f"lines/{line}"), line)

    def _read(self, reader: LineReader) -> None:
        self._facts[reader.line] = reader.read()

    def _tried(self, what: str, read: Callable[[], None]) -> bool:
        """Whether it was read; the first failure in a row is told in the log."""
        try:
            read()
        except SparringError as error:
            if what not in self._failing:
                log.warning("%s cannot be read: %s", what, error)
            self._failing.add(what)
            return False
        self._failing.discard(what)
        return True


class Exporter:
    """The server and the thread that looks. `with Exporter(…) as exporter: exporter.wait()`."""

    def __init__(self, watch: Watch, host: str, port: int, interval: float) -> None:
        self._watch, self._interval, self._stop = watch, interval, threading.Event()
        registry = CollectorRegistry()
        registry.register(watch)
        ProcessCollector(registry=registry)
        try:
            self._server = make_server(host, port, _app(registry, watch, self._alive), _Server, _Quiet)
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

    def _alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _looking(self) -> None:
        while not self._stop.is_set():
            self._watch.look()
            _give_back()
            self._stop.wait(self._interval)


def _give_back() -> None:
    """Gives memory that a look has freed back to the system, where the C library can: glibc would keep some 5 MB."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 30  # of a client that says nothing

    def log_message(self, format: str, *args: Any) -> None:
        """A line a scrape tells nobody anything."""


def _app(
    registry: CollectorRegistry, watch: Watch, alive: Callable[[], bool]
) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        if path == "/healthz":
            return _state(start, alive(), "the thread that reads the store has ended: see the log")
        if path == "/readyz":
            return _state(start, watch.ready, "not read yet")
        return _text(start, "404 Not Found", "see /metrics")

    return app


def _state(start: StartResponse, good: bool, otherwise: str) -> Iterable[bytes]:
    return _text(start, "200 OK", "ok") if good else _text(start, "503 Service Unavailable", otherwise)


def _text(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
