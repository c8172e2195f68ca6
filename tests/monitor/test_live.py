"""A step's metrics while it works: off unless a port is named, on loopback, gone with the step."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sparring.errors import ConfigError, SetupError
from sparring.monitor import HOST_VARIABLE, PORT_VARIABLE, ledger
from sparring.monitor.live import serving
from sparring.progress import Progress
from sparring.steps.entry import execute
from tests.monitor.scraping import answer, free_port, series, value
from tests.pipelines.planted import BETTER, plant

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, named for live metrics."""
    port = free_port()
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    monkeypatch.delenv(HOST_VARIABLE, raising=False)
    monkeypatch.delenv("RANK", raising=False)
    return port


def test_progress_and_training_are_shown_and_end_with_the_step(port: int) -> None:
    with serving("selfplay") as listener:
        progress = Progress("selfplay", listener)
        progress.update("supervised set", 0, 1)
        progress.update("self-play", 1, 12, numbers={"step": 1.0, "tokens": 300.0, "seconds": 2.0, "kl": 0.5})
        progress.update("self-play", 2, 12, numbers={"step": 2.0, "tokens": 100.0, "seconds": 4.0, "kl": 0.25})
        found = series(answer(f"http://127.0.0.1:{port}/metrics")[1])
    assert value(found, "sparring_live_done", step="selfplay", stage="self-play") == 2
    assert value(found, "sparring_live_planned", step="selfplay", stage="self-play") == 12
    assert value(found, "sparring_live_trained_tokens_total", step="selfplay") == 400
    assert value(found, "sparring_live_trained_tokens_per_second", step="selfplay") == 25
    assert value(found, "sparring_live_training", curve="kl") == 0.25
    assert value(found, "sparring_live_training", curve="tokens") is None
    told = value(found, "sparring_live_told_timestamp_seconds", step="selfplay")
    assert told == pytest.approx(time.time(), abs=60)
    assert (value(found, "process_resident_memory_bytes") or 0) > 1e6
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_only_loopback_listens(port: int) -> None:
    with serving("judge"), socket.socket() as other:
        other.bind(("127.0.0.2", port))  # would be taken by a server that listens on all addresses


def test_the_first_of_several_processes_serves(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with serving("selfplay") as listener, pytest.raises(OSError, match="refused"):
        Progress("selfplay", listener).update("self-play", 1, 2)
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_cannot_be_is_one_line(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("selfplay"), pytest.raises(SetupError, match=f"127.0.0.1:{port}: Address already in use"):
        serving("judge").__enter__()
    for wrong in ("http", "0", "70000", "-1", "²"):
        monkeypatch.setenv(PORT_VARIABLE, wrong)
        with pytest.raises(ConfigError, match=PORT_VARIABLE):
            serving("judge").__enter__()


def test_a_step_serves_while_it_works(port: int, tmp_path: Path) -> None:
    planted, seen = plant(tmp_path, BETTER), threading.Event()

    def look() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not seen.is_set():
            try:
                found = series(answer(f"http://127.0.0.1:{port}/metrics")[1])
            except OSError:
                time.sleep(0.01)
                continue
            if value(found, "sparring_live_planned", step="gate", stage="step") == 1:
                seen.set()

    thread = threading.Thread(target=look)
    thread.start()
    assert execute("gate", planted.request.model_dump_json(), "1") == "PROMOTE"
    thread.join()
    assert seen.is_set()


def test_a_step_that_cannot_serve_says_so_in_the_ledger(port: int, tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    with serving("judge"), pytest.raises(SetupError):
        execute("gate", planted.request.model_dump_json(), "1")
    assert ledger.read(planted.store, 1)["gate"].status == "failed"
    assert execute("gate", planted.request.model_dump_json(), "1") == "PROMOTE"


def test_who_shows_nothing_does_not_pay_for_it() -> None:
    code = "import sys, sparring.steps.entry; print('prometheus_client' in sys.modules)"
    environment = {name: text for name, text in os.environ.items() if name != PORT_VARIABLE}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert found.stdout.strip() == b"False"
