"""Sixteen long-lived processes promote at once, many times over, on a folder and on a real S3 server.

`SPARRING_RACES` sets the number of races; the benchmark's figure is for 500.
"""

from __future__ import annotations

import os

import pytest

from sparring.registry.champion import read_log
from sparring.store import open_store
from tests.long_racers import LOST, RACERS, WON, candidate, place, races

RACES = int(os.environ.get("SPARRING_RACES", "20"))
LIMIT = 300 + 4 * RACES
"""Seconds: a race in SeaweedFS takes about a second and a half on two busy cores."""


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_each_race_has_one_winner_in_the_store(any_store_url: str) -> None:
    root = open_store(any_store_url)
    for race, said in enumerate(races(any_store_url, RACES)):
        winners = [racer for racer, what in enumerate(said) if what == WON]
        assert len(winners) == 1, f"race {race}: {said}"
        losers = [what for what in said if what != WON]
        assert len(losers) == RACERS - 1 and all(what.startswith(f"{LOST}: ") for what in losers)
        store = root.scope(place(race))
        log = read_log(store)  # the chain is verified as it is read
        assert (log.head, log.champion) == (1, candidate(winners[0]))
        assert store.list() == ["champion/log/000001.json"]  # no lock file decides


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_without_conditional_puts_two_win(any_store_url: str) -> None:
    """The test above sees the fault that it is there for."""
    found = races(any_store_url, RACES, plain=True)
    assert any(said.count(WON) > 1 for said in found)
