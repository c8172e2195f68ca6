"""A step has one player at a time; a dead one is succeeded at once on its machine, a silent one after a while."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparring.errors import BusyError
from sparring.registry import lease
from sparring.store import Store, open_store

ROOT = Path(__file__).parents[2]
HOLDER = """
import socket, sys, time
from sparring.registry import lease
from sparring.store import open_store
if sys.argv[2]:
    socket.gethostname = lambda: sys.argv[2]  # another machine
with lease.hold(open_store(sys.argv[1]), 1, "selfplay", beat=0.1, patience=5):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
print("given back", flush=True)
"""
KEY = "ledger/000001/selfplay.leases/{:06d}.json"


@contextmanager
def holder(url: str, host: str = "", seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDER, url, host, str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def takes(store: Store, patience: float = 2.0) -> float:
    """Seconds until the step is ours."""
    begun = time.monotonic()
    with lease.hold(store, 1, "selfplay", patience=patience):
        return time.monotonic() - begun


@pytest.mark.parametrize("host", ["", "elsewhere"])
def test_a_living_holder_keeps_the_step_and_is_named(any_store_url: str, host: str) -> None:
    store = open_store(any_store_url)
    with holder(any_store_url, host) as other:
        with pytest.raises(BusyError, match=rf"selfplay of round 1 .* process {other.pid}"):
            takes(store, patience=20.0)
        assert lease.BEAT * 3 < lease.PATIENCE  # in earnest as here: a holder is heard several times meanwhile


def test_a_dead_holder_of_this_machine_is_succeeded_at_once_even_before_it_is_reaped(tmp_path: Path) -> None:
    url = str(tmp_path)
    with holder(url) as other:
        other.send_signal(signal.SIGKILL)
        while not lease._is_zombie(other.pid):
            time.sleep(0.01)
        assert takes(open_store(url), patience=60.0) < 5


def test_a_dead_holder_of_another_machine_is_succeeded_after_the_silence(any_store_url: str) -> None:
    with holder(any_store_url, "elsewhere") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert 1.5 <= takes(open_store(any_store_url)) < 20


def test_a_holder_that_gives_back_is_succeeded_without_the_silence(tmp_path: Path) -> None:
    url = str(tmp_path)
    with holder(url, "elsewhere", seconds=0.0) as other:
        other.wait()
        assert takes(open_store(url), patience=60.0) < 5


def test_who_was_silent_finds_the_successor_and_ends(tmp_path: Path) -> None:
    url = str(tmp_path)
    with holder(url, "elsewhere") as other:
        other.send_signal(signal.SIGSTOP)
        takes(open_store(url), patience=1.0)
        other.send_signal(signal.SIGCONT)
        assert other.wait(timeout=30) == 1
        assert other.stderr is not None and "taken over" in other.stderr.read()


def test_an_error_in_the_block_gives_the_step_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(RuntimeError), lease.hold(store, 1, "selfplay"):
        raise RuntimeError("the step failed")
    assert json.loads(store.get(KEY.format(1)))["released"] is True


def test_the_same_process_number_in_a_new_container_is_another_process(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    dead = lease._Holder(nonce="of an earlier process", host=socket.gethostname(), pid=os.getpid())
    store.put(KEY.format(1), dead.model_dump_json().encode())
    assert takes(store, patience=60.0) < 5
    with lease.hold(store, 1, "selfplay"), lease.hold(store, 2, "selfplay"), lease.hold(store, 1, "gate"):
        pass  # other steps and rounds are free
