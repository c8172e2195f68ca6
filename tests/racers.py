"""Many processes doing one thing to one store at one moment: `python -m tests.racers URL COUNT`; outcomes as JSON.

Forked from one small process, so that sixteen start at once and not one after another.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

from sparring.errors import BusyError, ConflictError
from sparring.registry import champion, rounds
from sparring.store import Store, open_store


def race(url: str, count: int) -> dict[str, list[str]]:
    """Sorted outcomes of `count` racing processes in each of `RACES`, for tests."""
    command = [sys.executable, "-m", "tests.racers", url, str(count)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, list[str]] = json.loads(done.stdout)
    return outcomes


def _claim(store: Store, racer: int) -> str:
    return "won" if store.put_if_absent("name", f"racer {racer}".encode()) else "lost"


def _claim_same(store: Store, racer: int) -> str:
    return "won" if store.put_if_absent("name", b"the same bytes") else "lost"


def _append(store: Store, racer: int) -> str:
    try:
        champion.append(
            store,
            expected_head=0,
            kind="promotion",
            actor="race",
            round=racer + 1,
            candidate=f"{racer:064d}",
            decision="PROMOTE",
            reason="race",
        )
    except ConflictError:
        return "lost"
    return "won"


def _append_same(store: Store, racer: int) -> str:
    """Twins of one round: each gets the one record."""
    record = champion.append(store, expected_head=0, kind="hold", actor="race", round=1, decision="REJECT", reason="x")
    return record.nonce


def _round(store: Store, racer: int) -> str:
    try:
        found = rounds.claim(store, config_digest=f"{racer:064d}", now=datetime.now(UTC))
    except BusyError:
        return "lost"
    return "resumed" if found.resumed else "won"


RACES: dict[str, Callable[[Store, int], str]] = {
    "claim": _claim,
    "claim_same": _claim_same,
    "append": _append,
    "append_same": _append_same,
    "round": _round,
}


def _run(url: str, racer: int, barrier: Barrier, queue: multiprocessing.SimpleQueue[tuple[str, str]]) -> None:
    store = open_store(url)
    store.list()  # connections stand before the start
    for name, run in RACES.items():
        barrier.wait(60)
        queue.put((name, run(store.scope(name), racer)))


def main(url: str, count: int) -> None:
    """Starts the racers and prints what became of each."""
    open_store(url)  # imports once, before the forks
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(count), context.SimpleQueue()
    racers = [context.Process(target=_run, args=(url, racer, barrier, queue)) for racer in range(count)]
    for racer in racers:
        racer.start()
    outcomes: dict[str, list[str]] = {name: [] for name in RACES}
    for racer in racers:
        racer.join(90)
    while not queue.empty():
        name, outcome = queue.get()
        outcomes[name].append(outcome)
    print(json.dumps({name: sorted(found) for name, found in outcomes.items()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
