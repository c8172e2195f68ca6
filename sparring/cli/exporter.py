"""`sparring exporter`: serves the records of model lines to Prometheus."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from sparring.cli.common import ConfigOption, StoreOption, finish, load
from sparring.monitor import INTERVAL, PORT


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command()(exporter)


def exporter(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: Annotated[list[str] | None, typer.Option("--line", help="Model line; may be given more than once.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = PORT,
    interval: Annotated[float, typer.Option(min=1, help="Seconds between two looks at the store.")] = INTERVAL,
) -> None:
    """Serve rounds, champion, rates, pool and judges to Prometheus, from the store's records; writes nothing."""

    def action() -> None:
        from sparring.monitor.exporter import Exporter, Watch
        from sparring.monitor.facts import LineReader
        from sparring.store import open_store

        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
        found = load(config, None, store=store)
        opened = open_store(found.store)
        lines = list(dict.fromkeys(line or [found.line]))
        watch = Watch([LineReader(opened.scope(f"lines/{name}"), name) for name in lines])
        with Exporter(watch, host, port, interval) as server:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: server.stop())
            print(f"lines {', '.join(lines)} of {found.store} at {server.address}", flush=True)
            server.wait()

    finish(action)
