"""Sixteen processes at one moment, on a folder and on a real S3 server."""

from __future__ import annotations

from sparring.registry.champion import read_log
from sparring.store import open_store
from tests.racers import race

RACERS = 16


def test_each_name_record_and_round_has_one_winner(any_store_url: str) -> None:
    outcomes = race(any_store_url, RACERS)
    one_winner = ["lost"] * (RACERS - 1) + ["won"]
    assert outcomes["claim"] == one_winner
    assert outcomes["claim_same"] == one_winner
    assert outcomes["append"] == one_winner
    assert read_log(open_store(any_store_url).scope("append")).head == 1
    assert len(outcomes["append_same"]) == RACERS
    assert len(set(outcomes["append_same"])) == 1
    assert outcomes["round"].count("won") == 1
    assert len(outcomes["round"]) == RACERS
