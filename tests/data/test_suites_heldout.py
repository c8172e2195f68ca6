"""Behaviours that never train: the same ones whatever the order of the seeds, and never on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.config.run import DataConfig
from sparring.data.seeds import clean_seeds, collect_seeds, held_out_rows, heldout_behaviors, seeds_table
from sparring.data.text import normalise
from sparring.game.records import Seed
from sparring.store import open_store
from sparring.store.datasets import save_table

words = st.sampled_from([f"w{i}" for i in range(12)])


@st.composite
def seed_lists(draw: Any) -> list[Seed]:
    rows = draw(st.lists(st.tuples(words, words, st.sampled_from(["harmful", "benign"]), st.booleans()), max_size=30))
    return [
        Seed(str(i), f"{text}!" if i % 2 else text.upper(), label, f"b-{behavior}", "", "starter" if own else "f.csv")
        for i, (text, behavior, label, own) in enumerate(rows)
    ]


@settings(deadline=None)
@given(seed_lists(), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_a_behavior_and_a_text_stand_on_one_side_in_any_order(seeds: list[Seed], random: Any, share: float) -> None:
    aside = held_out_rows(seeds, share)
    sides: dict[str, set[bool]] = {}
    for row, seed in enumerate(seeds):
        for key in (f"behavior {seed.behavior}", f"text {normalise(seed.text)}"):
            sides.setdefault(key, set()).add(row in aside)
    assert all(len(side) == 1 for side in sides.values())
    assert not any(seeds[row].source == "starter" for row in aside)
    shuffled = random.sample(range(len(seeds)), len(seeds))
    again = held_out_rows([seeds[row] for row in shuffled], share)
    assert {shuffled[row] for row in again} == aside
    assert held_out_rows(seeds, 0.0) == set() and aside <= held_out_rows(seeds, 0.5)


def test_about_a_tenth_is_held_out() -> None:
    seeds = [Seed(str(i), f"text {i}", "harmful", f"b{i}", "", "f.csv") for i in range(5000)]
    assert abs(len(held_out_rows(seeds, 0.1)) - 500) < 90  # four standard deviations


def test_the_starter_set_keeps_its_own_split() -> None:
    assert held_out_rows(collect_seeds(DataConfig()).seeds, 0.5) == set()


def test_a_seed_near_a_held_out_one_does_not_train(tmp_path: Path) -> None:
    lines = "prompt\n" + "".join(f"say {i}\n" for i in range(40))
    harmful, benign = tmp_path / "h.csv", tmp_path / "b.csv"
    harmful.write_text(lines)
    benign.write_text(lines.replace("say", "ask"))
    config = DataConfig(harmful=[str(harmful)], benign=[str(benign)], starter_suites=False, heldout_share=0.3)
    collected = collect_seeds(config)
    aside = held_out_rows(collected.seeds, 0.3)
    first = next(row for row in range(40) if row in aside)
    later = next(row for row in range(40) if row not in aside)
    vectors = np.eye(80, dtype=np.float32)
    vectors[later] = vectors[first]
    clean = clean_seeds(collected, vectors, [], np.zeros((0, 80), dtype=np.float32), config)
    assert [(drop.row, drop.other, drop.reason) for drop in clean.duplicates] == [(later, first, "near duplicate")]
    trained = {seed.id for seed in clean.seeds}
    assert len(clean.held_out) == len(aside) and len(trained) == 80 - len(aside) - 1
    store = open_store(str(tmp_path / "store"))
    digest = save_table(store, seeds_table(clean.held_out), name="heldout", meta={})
    found = heldout_behaviors(store, digest)
    assert found == tuple(seed for seed in clean.held_out if seed.label == "harmful")
    assert heldout_behaviors(store, "") == ()
