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
    line: Annotated[
        list[str] | None, typer.Option("--line", help="Model line, also several; else the run file's.")
    ] = None,
    all_lines: Annotated[bool, typer.Option("--all-lines", help="All lines of the store, later ones too.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = PORT,
    interval: Annotated[float, typer.Option(min=1, help="Seconds between two looks at the store.")] = INTERVAL,
) -> None:
    """Serve rounds, champion, rates, pool and judges to Prometheus, from the store's records; writes nothing."""

    def action() -> None:
        from sparring.errors import UsageError
        from sparring.monitor.exporter import Exporter, Watch
        from sparring.store import open_store

        if line and all_lines:
            raise UsageError("--line and --all-lines exclude each other")
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
        runs = [load(config, None, store=store, line=name) for name in (line or (None,))]
        lines = None if all_lines else list(dict.fromkeys(run.line for run in runs))
        watch = Watch(open_store(runs[0].store), lines)
        with Exporter(watch, host, port, interval) as server:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: server.stop())
            print(f"{', '.join(lines or ['all lines'])} of {runs[0].store} at {server.address}", flush=True)
            server.wait()

    finish(action)
