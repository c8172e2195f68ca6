"""Does a store keep its promise that one of racing claims wins? Some S3 servers take the condition and ignore it."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

from sparring.errors import StoreError
from sparring.store.base import Store

_RACERS = 4
_RACES = 4


def check_conditional_puts(store: Store) -> None:
    """Races claims in this store and refuses it (StoreError) unless each has exactly one winner, whose bytes stay."""
    for _ in range(_RACES):
        key = f"checks/{uuid.uuid4().hex}"
        try:
            _race(store, key)
        except BaseException:
            with suppress(StoreError):  # what failed first is what is told
                store.delete(key)
            raise
        store.delete(key)


def _race(store: Store, key: str) -> None:
    barrier = Barrier(_RACERS)

    def claim(racer: int) -> bool:
        barrier.wait()
        return store.put_if_absent(key, f"racer {racer}".encode())

    with ThreadPoolExecutor(_RACERS) as pool:
        won = [racer for racer, first in enumerate(pool.map(claim, range(_RACERS))) if first]
    late = store.put_if_absent(key, b"late")
    kept = store.get(key).decode(errors="replace")
    if late or len(won) != 1 or kept != f"racer {won[0]}":
        raise StoreError(
            f"{store.url} does not hold conditional puts: {len(won) + late} of {_RACERS + 1} claims of one name won,"
            f" it holds {kept!r}",
            hint="use a store that knows If-None-Match, else two runs can both promote",
        )
