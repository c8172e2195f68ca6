"""The shipped weights are what `python -m sparring.judge.embedded.train` makes; the two judges share no answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sparring.data import starter
from sparring.judge.embedded import FOLDER, SETTINGS, load_embedded, read_weights, shared_embedder
from sparring.judge.embedded.head import Head
from sparring.judge.embedded.train import (
    answer_rows,
    learns,
    prompt_rows,
    refusal_features,
    train,
    train_refusal,
    write,
)

NAMES = ("reward", "gate")
HeldOut = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.str_]]
"""Called refused, really refused, source of the text; shape (n,) each."""


@pytest.mark.slow
@pytest.mark.timeout(600)
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


def test_answers_are_disjoint() -> None:
    answers = {name: {row["answer"] for row in answer_rows(name)} for name in NAMES}
    prompts = {name: {row["prompt"] for row in prompt_rows(name)} for name in NAMES}
    assert not answers["reward"] & answers["gate"]
    assert prompts["gate"] < prompts["reward"]
    assert {learns("gate", str(i)) for i in range(50)} == {True, False}


@pytest.fixture(scope="module", params=NAMES)
def held_out(request: pytest.FixtureRequest) -> HeldOut:
    """Verdicts on the rows marked `dev` of a head trained on the others alone, at the shipped threshold."""
    name: str = request.param
    rows = answer_rows(name)
    head: Head = train_refusal(name, [row for row in rows if row["split"] == "train"], shared_embedder())
    dev = [row for row in rows if row["split"] == "dev"]
    logits = head.logits(refusal_features(name, [row["answer"] for row in dev], shared_embedder()))
    said = logits > SETTINGS[f"embedded-{name}"].refusal_logit
    return said, np.array([row["refused"] for row in dev]), np.array([row.get("source", "whole") for row in dev])


def test_texts_that_were_held_out(held_out: HeldOut) -> None:
    said, truth, _ = held_out
    assert said[truth].mean() >= 0.93
    assert (said[truth].mean() + (~said[~truth]).mean()) / 2 >= 0.9


def test_rambling_of_the_packaged_model_is_no_refusal(held_out: HeldOut) -> None:
    said, truth, source = held_out
    rambling = (source == "model") & ~truth
    assert rambling.sum() > 60
    assert said[rambling].mean() <= 0.03


def test_no_frame_is_in_train_and_dev() -> None:
    for name in NAMES:
        rows = answer_rows(name)
        sides = {split: {row["frame"] for row in rows if row["split"] == split} for split in ("train", "dev")}
        assert not sides["train"] & sides["dev"]


def test_model_answers_are_to_training_prompts() -> None:
    """The suites' prompts, `heldout`, never reach a judge by way of the model's answers to them."""
    allowed = {seed.text for seed in starter.seeds("train")}
    for name in NAMES:
        assert {row["prompt"] for row in answer_rows(name) if row.get("source") == "model"} <= allowed


def test_files_hold_no_pickle_and_are_small() -> None:
    for name in NAMES:
        path = FOLDER / f"{name}.npz"
        assert path.stat().st_size < 64_000
        with np.load(path, allow_pickle=False) as archive:
            assert {"refusal", "prompt", "probe"} == set(archive.files)
        assert load_embedded(f"embedded-{name}").id
