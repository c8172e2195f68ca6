"""Sixteen long-lived processes that promote at once, race after race: `python -m tests.long_racers URL RACES [plain]`.

Each race is a champion log of its own that all append record 1 to, behind a barrier. `plain` switches conditional puts
off: a put that looks first and writes then. Prints, as JSON, what each said of each race.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from sparring.errors import ConflictError
from sparring.registry import champion
from sparring.store import Store, open_store

RACERS = 16
WON, LOST = "won", "lost"


class Unconditional:
    """A store without conditional puts: it looks whether the name is free, and writes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """True for whoever saw the name free, however many those are."""
        if self._store.exists(key):
            return False
        self._store.put(key, data)
        return True


def races(url: str, count: int, *, plain: bool = False) -> list[list[str]]:
    """For each race what its sixteen racers said, by racer: won, or the loser's one line."""
    command = [sys.executable, "-m", "tests.long_racers", url, str(count), *(["plain"] if plain else [])]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: list[list[str]] = json.loads(done.stdout)
    return said


def place(race: int) -> str:
    """Where one race's log lies in the store."""
    return f"races/{race:05d}"


def candidate(racer: int) -> str:
    """The digest that a racer promotes."""
    return f"{racer + 1:064x}"


def _promote(store: Store, racer: int) -> str:
    try:
        champion.append(
            store,
            expected_head=0,
            kind="promotion",
            actor=f"racer {racer}",
            round=racer + 1,
            candidate=candidate(racer),
            decision="PROMOTE",
            reason="race",
        )
    except ConflictError as error:
        return f"{LOST}: {error.message}"
    return WON


def _run(
    url: str, racer: int, count: int, plain: bool, barrier: Barrier, queue: multiprocessing.SimpleQueue[Any]
) -> None:
    root = open_store(url)
    said = []
    for race in range(count):
        store: Any = root.scope(place(race))
        barrier.wait(120)
        said.append(_promote(Unconditional(store) if plain else store, racer))
    queue.put((racer, said))


def main(url: str, count: int, plain: bool) -> None:
    """Starts the racers, once for all races, and prints what each said."""
    open_store(url)  # imports once, before the forks
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(RACERS), context.SimpleQueue()
    racers = [context.Process(target=_run, args=(url, i, count, plain, barrier, queue)) for i in range(RACERS)]
    for racer in racers:
        racer.start()
    said = dict(queue.get() for _ in racers)
    for racer in racers:
        racer.join(60)
    print(json.dumps([[said[i][race] for i in range(RACERS)] for race in range(count)]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["plain"])
