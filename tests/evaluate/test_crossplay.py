"""Cross-play: what counts in a cell, the matrix as it is stored, and forgetting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from sparring.errors import CorruptError, NotFoundError
from sparring.evaluate.crossplay import (
    Cell,
    CrossPlay,
    cell,
    crossplay_key,
    forgotten,
    play_matrix,
    put_crossplay,
    read_crossplay,
)
from sparring.game.records import BROKEN_ANSWER, BROKEN_ATTACK, Game
from sparring.store import open_store
from sparring.train.talk import WORDLESS

GAME = Game(
    round=1, step=0, game=0, kind="generated", seed_id="s", seed="s", label="harmful", behavior="b", attack_id="a",
    attack="a", answer="b", prompt_harmful=True, refused=False, harmful=True, degenerate=False, similarity=1.0,
    faithful=True, attacker_reward=1.0, defender_reward=-1.0, attacker_void=False, defender_void=False,
)  # fmt: skip
VOID = replace(GAME, harmful=None, refused=None, prompt_harmful=None)


def matrix(rates: list[list[float]], games: int = 100) -> CrossPlay:
    names = tuple(f"round {i + 1}" for i in range(len(rates)))
    cells = tuple(
        Cell(attacker=a, defender=d, judged=games, worked=round(games * rate), void=0)
        for a, row in enumerate(rates)
        for d, rate in enumerate(row)
    )
    return CrossPlay(
        attackers=names, defenders=names, digests={}, behaviors=games, judge="j", seed=0, cells=cells
    )  # fmt: skip


def test_what_broke_the_rules_did_not_work_and_what_nobody_judged_counts_nowhere() -> None:
    games = [
        GAME,
        replace(GAME, harmful=False),
        replace(VOID, reason="the endpoint is down"),
        replace(VOID, reason=WORDLESS),
        replace(VOID, reason=BROKEN_ATTACK),
        replace(VOID, reason=BROKEN_ANSWER),
        replace(GAME, reason=WORDLESS),  # its filler was judged: the plain seed, no attack
    ]
    found = cell(1, 2, games)
    assert (found.attacker, found.defender) == (1, 2)
    assert (found.judged, found.worked, found.void) == (6, 1, 1)
    nobody = cell(0, 0, [replace(VOID, reason="the endpoint is down")])
    assert nobody.rate is None and nobody.interval == (0.0, 1.0)


@given(st.integers(1, 200), st.integers(0, 200))
def test_intervals_are_statsmodels_wilson(judged: int, worked: int) -> None:
    found = Cell(attacker=0, defender=0, judged=judged, worked=min(worked, judged), void=0)
    assert found.interval == pytest.approx(proportion_confint(found.worked, judged, method="wilson"), abs=1e-6)


def test_every_attacker_meets_every_defender_once() -> None:
    met: list[tuple[int, int]] = []

    def play(attacker: int, defender: int) -> list[Game]:
        met.append((attacker, defender))
        return [GAME]

    cells = play_matrix(2, 3, play)
    assert met == [(c.attacker, c.defender) for c in cells] == [(a, d) for a in range(2) for d in range(3)]


def test_what_an_old_attacker_wins_again_is_forgotten() -> None:
    found = matrix([[0.4, 0.1, 0.7], [0.5, 0.2, 0.25], [0.5, 0.4, 0.1]])
    (one,) = forgotten(found)
    assert (one.attacker, one.then, one.now) == ("round 1", 0.4, 0.7)
    assert not forgotten(matrix([[0.4]])) and not forgotten(matrix([[0.4, 0.45], [0.4, 0.1]]))


def test_it_is_stored_and_read_back_and_a_broken_one_is_named(tmp_path: Path) -> None:
    store, found = open_store(str(tmp_path / "line")), matrix([[0.4, 0.1], [0.5, 0.2]])
    with pytest.raises(NotFoundError):
        read_crossplay(store, 3)
    put_crossplay(store, 3, found)
    assert read_crossplay(store, 3) == found
    text = store.get(crossplay_key(3))
    store.put(
        crossplay_key(3), text.replace(b'"attacker":1', b'"attacker":0').replace(b'"attacker": 1', b'"attacker": 0')
    )
    with pytest.raises(CorruptError, match=r"rounds/000003/crossplay.json.*no cross-play matrix"):
        read_crossplay(store, 3)
