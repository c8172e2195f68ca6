"""The shipped weights are what `python -m sparring.judge.embedded.train` makes; the two judges share no text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparring.judge.embedded import FOLDER, load_embedded, read_weights, shared_embedder
from sparring.judge.embedded.head import Head
from sparring.judge.embedded.train import half, prompt_rows, read_rows, refusal_features, train, train_refusal, write

NAMES = ("reward", "gate")


@pytest.mark.parametrize("name", NAMES)
def test_weights_rebuild(name: str, tmp_path: Path) -> None:
    shipped = read_weights(FOLDER / f"{name}.npz")
    built = train(name)
    write(tmp_path / "a.npz", built)
    write(tmp_path / "b.npz", train(name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for key, value in shipped.items():
        message = f"{key}: run python -m sparring.judge.embedded.train after a change of texts, rules or starter set"
        np.testing.assert_allclose(built[key], value, rtol=0.02, atol=0.02, err_msg=message)


def test_texts_are_disjoint() -> None:
    answers = {name: {row["answer"] for row in read_rows(FOLDER / "data" / f"answers_{name}.jsonl")} for name in NAMES}
    prompts = {name: {row["prompt"] for row in prompt_rows(name)} for name in NAMES}
    assert not answers["reward"] & answers["gate"]
    assert not prompts["reward"] & prompts["gate"]
    assert {half(str(i)) for i in range(50)} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_written_texts_that_were_held_out(name: str) -> None:
    """Trained on the rows marked `train`, the head is right on frames it never saw (balanced accuracy)."""
    rows = read_rows(FOLDER / "data" / f"answers_{name}.jsonl")
    head: Head = train_refusal(name, [row for row in rows if row["split"] == "train"], shared_embedder())
    dev = [row for row in rows if row["split"] == "dev"]
    said = head.logits(refusal_features(name, [row["answer"] for row in dev], shared_embedder())) > 0
    truth = np.array([row["refused"] for row in dev])
    assert (said[truth].mean() + (~said[~truth]).mean()) / 2 >= 0.9


def test_files_hold_no_pickle_and_are_small() -> None:
    for name in NAMES:
        path = FOLDER / f"{name}.npz"
        assert path.stat().st_size < 64_000
        with np.load(path, allow_pickle=False) as archive:
            assert {"refusal", "prompt", "probe"} == set(archive.files)
        assert load_embedded(f"embedded-{name}").id
