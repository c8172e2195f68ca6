"""What `sparring exporter` costs at a long history: `python -m benchmarks exporter`.

One planted round is decided, promoted and reported by the real steps; its objects, and ledger entries of nine steps,
are then written out as rounds 1 to N with their numbers, and a champion log of N chained records beside them. The
exporter runs as users run it, a process of its own; measured are the time to its first complete look, a scrape of
/metrics over HTTP (which answers from memory), a look that finds nothing new, one that finds a new round, and its
resident memory. Locally and on SeaweedFS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from sparring.monitor import ledger
from sparring.registry.champion import FIRST_PREVIOUS, Record
from sparring.steps.entry import execute
from sparring.store import Store, open_store
from sparring.store.canonical import canonical, sha256
from tests.pipelines.planted import BETTER, Planted, plant

ROUNDS = 1000
SCRAPES, LOOKS = 50, 5
LIMITS = {"scrape_ms": 100.0, "rss_mb": 80.0}
STEPS = ("prepare", "selfplay", "update_pool", "answer", "judge", "gate", "promote", "report")
ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "exporter.json"
_FIRST = re.compile(r"000001")
_BEGUN = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)


def main(quick: bool, rounds: int) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/exporter.json` unless `quick`."""
    result: dict[str, Any] = {
        "bench": "exporter",
        "peer": "stated limits",
        "rounds": rounds,
        "n": SCRAPES,
        "cores": os.cpu_count(),
        "load": [round(os.getloadavg()[0], 1)],
        "versions": {"python": platform.python_version(), "prometheus-client": version("prometheus-client")},
        "limits": LIMITS,
    }
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(Path(folder), BETTER)
        for step in ("gate", "promote", "report"):
            execute(step, planted.request.model_dump_json(), str(planted.number))
        objects = history(planted, rounds + 1)
        result["objects"] = sum(len(each) for each in objects)
        result["local"] = measure(f"{folder}/long", objects)
        if not quick:
            with seaweed() as url:
                result |= {"s3": measure(url, objects)} if url else {}
    worst = {name: max(result[where][name] for where in ("local", "s3") if where in result) for name in LIMITS}
    result["ratio"] = round(min(LIMITS[name] / worst[name] for name in LIMITS), 2)
    result["load"].append(round(os.getloadavg()[0], 1))
    _print(result)
    if not quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return result


def history(planted: Planted, rounds: int) -> list[dict[str, bytes]]:
    """Objects of each round, in order, as the steps wrote those of round 1."""
    for step in STEPS:
        if step not in ledger.read(planted.store, 1):
            ledger.started(planted.store, 1, step)
            metrics = {f"number {i}": float(i) for i in range(12)}
            ledger.finished(planted.store, 1, step, status="ok", metrics=metrics, error=None)
    names = [key for key in planted.store.list() if re.match(r"(rounds|ledger|gate)/.*\.json$", key)]
    first = {key: planted.store.get(key) for key in names}
    config = {key: planted.store.get(key) for key in planted.store.list("configs/")}
    previous, found = FIRST_PREVIOUS, []
    for number in range(1, rounds + 1):
        objects = {_FIRST.sub(f"{number:06d}", key): _renumbered(data, number) for key, data in first.items()}
        data, previous = _record(planted.candidate, number, previous)
        found.append({**objects, **(config if number == 1 else {}), f"champion/log/{number:06d}.json": data})
    return found


def _renumbered(data: bytes, number: int) -> bytes:
    text = re.sub(rb'"(round|number)":( ?)1\b', rb'"\1":\g<2>%d' % number, data)
    return text.replace(b"000001", b"%06d" % number)


def _record(digest: str, number: int, previous: str) -> tuple[bytes, str]:
    """A record as the champion log keeps it: a promotion, then holds."""
    first = number == 1
    record = Record(
        number=number, kind="promotion" if first else "hold", time=_BEGUN + timedelta(days=number), actor="pipeline",
        round=number, candidate=digest, champion=digest, decision="PROMOTE" if first else "REJECT",
        reason="attack success rate is lower" if first else "attack success rate is not lower",
        details={"decision_key": f"rounds/{number:06d}/gate/decision.json", "began_at": number - 1},
        previous=previous, nonce=f"{number:032x}",
    )  # fmt: skip
    body = record.model_dump(mode="json")
    digest = sha256(canonical(body))
    return canonical({"schema_version": 1, "record": body, "sha256": digest}), digest


def measure(url: str, objects: list[dict[str, bytes]]) -> dict[str, float]:
    """All figures of a store at `url` with all but the last round, to which that one comes."""
    store = open_store(url).scope("lines/default")
    for each in objects[:-1]:
        _write(store, each)
    with exporter(url) as (process, address):
        begun = time.perf_counter()
        while not _ready(address):
            time.sleep(0.05)
        first = time.perf_counter() - begun
        scrapes = [_seconds(f"{address}/metrics") for _ in range(SCRAPES)]
        idle = [_look(address) for _ in range(LOOKS)]
        quiet = process.memory_info().rss / 1e6
        _write(store, objects[-1])
        while f'sparring_round{{line="default"}} {float(len(objects))}' not in _text(f"{address}/metrics"):
            time.sleep(0.05)
        grown = _value(_text(f"{address}/metrics"), "sparring_exporter_look_duration_seconds")
        text = _text(f"{address}/metrics")
        return {
            "first_look_s": first,
            "scrape_ms": 1e3 * statistics.median(scrapes),
            "scrape_worst_ms": 1e3 * max(scrapes),
            "look_ms": 1e3 * statistics.median(idle),
            "look_new_round_ms": 1e3 * grown,
            "rss_mb": max(quiet, process.memory_info().rss / 1e6),
            "peak_mb": _peak_mb(process.pid),
            "series": sum(not line.startswith("#") for line in text.splitlines()),
            "text_kb": len(text) / 1e3,
        }


def _write(store: Store, objects: dict[str, bytes]) -> None:
    """Past `put` in a folder, which waits for the disk at every object."""
    if store.url.startswith("s3://"):
        with ThreadPoolExecutor(8) as workers:
            list(workers.map(lambda key: store.put(key, objects[key]), objects))
        return
    for key, data in objects.items():
        path = Path(store.url) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextmanager
def exporter(url: str) -> Iterator[tuple[psutil.Process, str]]:
    """The program as a user starts it, on a free port."""
    program = "from sparring.cli.main import main; main()"
    command = [sys.executable, "-c", program, "exporter", "--store", url, "--port", "0", "--interval", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            yield psutil.Process(process.pid), said.rsplit(" ", 1)[-1].strip().removesuffix("/metrics")
        finally:
            process.terminate()
            process.wait(30)


def _ready(address: str) -> bool:
    try:
        return bool(_text(f"{address}/readyz"))
    except OSError:
        return False


def _look(address: str) -> float:
    """Seconds of the next look."""
    name = "sparring_exporter_look_duration_seconds"
    before = now = _value(_text(f"{address}/metrics"), name)
    while now == before:
        time.sleep(0.1)
        now = _value(_text(f"{address}/metrics"), name)
    return now


def _text(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        return str(answer.read().decode())


def _seconds(url: str) -> float:
    begun = time.perf_counter()
    _text(url)
    return time.perf_counter() - begun


def _value(text: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


@contextmanager
def seaweed() -> Iterator[str | None]:
    """The url of an empty bucket in a SeaweedFS of its own; None without the program."""
    from tests.conftest import running_seaweed

    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, running_seaweed(program, Path(folder)) as server:
        os.environ.update(server.environment)
        yield f"s3://{server.bucket}/line"


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"exporter, {result['rounds']:,} rounds, {result['objects']:,} objects", title_justify="left")
    places = [where for where in ("local", "s3") if where in result]
    for name in ("", *places, "limit"):
        table.add_column(name, justify="right")
    for name in result["local"]:
        limit = f"{LIMITS[name]:g}" if name in LIMITS else ""
        table.add_row(name, *(f"{result[where][name]:.3g}" for where in places), limit)
    Console(width=100).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="200 rounds, a folder only")
    parser.add_argument("--rounds", type=int, default=None)
    options = parser.parse_args()
    main(options.quick, options.rounds or (200 if options.quick else ROUNDS))
