"""Which seeds the warm start teaches, and which are left for the games."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparring.config.run import WarmStartConfig
from sparring.game.records import Seed
from sparring.steps.training import taught_seeds, untaught_seeds


def seeds(harmful: int, benign: int) -> list[Seed]:
    return [Seed(f"h{i}", f"h {i}", "harmful", f"h{i}") for i in range(harmful)] + [
        Seed(f"b{i}", f"b {i}", "benign", f"b{i}") for i in range(benign)
    ]


@given(st.integers(4, 60), st.integers(4, 60), st.integers(4, 60), st.integers(4, 60), st.integers(0, 9))
def test_games_are_played_on_seeds_without_a_lesson_where_enough_are_left(
    harmful: int, benign: int, refused: int, helped: int, seed: int
) -> None:
    given_seeds = seeds(harmful, benign)
    config = WarmStartConfig(examples=refused, helpful_examples=helped)
    taught = {s.id for part in taught_seeds(given_seeds, config, seed) for s in part}
    assert len(taught) == min(harmful, refused) + min(benign, helped)
    rest = untaught_seeds(given_seeds, config, seed)
    few = 4 * (harmful - refused) < harmful or 4 * (benign - helped) < benign
    assert rest == (given_seeds if few else [s for s in given_seeds if s.id not in taught])
    assert {s.label for s in rest} == {"harmful", "benign"}
