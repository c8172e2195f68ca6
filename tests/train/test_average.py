"""The candidate is the mean of the last steps' weights, also of a training that was killed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from sparring.errors import TrainingStopped
from sparring.policy.load import Policy
from sparring.train.average import Average, first_step
from sparring.train.session import train
from sparring.train.states import newest_state
from tests.train.small import SMALL, session, weights
from tests.train.test_resume import Killed, same

LONG = SMALL.model_copy(update={"steps": 5, "average_share": 0.6})
"""Averages the steps 3, 4 and 5."""


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.floats(0, 1), st.integers(0, 99))
def test_the_mean_is_torch_s_and_goes_on_from_a_state(steps: int, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    model, first = torch.nn.Linear(3, 2), first_step(steps, share)
    model.bias.requires_grad_(False)
    taken, reference = Average(first), AveragedModel(model)
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.weight += torch.randn_like(model.weight)
        taken.on_step_end(None, SimpleNamespace(global_step=step), None, model=model)
        if step > first:
            reference.update_parameters(model)
    last = model.weight.clone()
    taken.put(model)
    torch.testing.assert_close(model.weight, reference.module.weight if first < steps else last, rtol=1e-5, atol=1e-6)
    assert 0 <= first <= steps and taken.count == steps - first


def test_the_trained_model_has_the_mean_of_the_last_states(policy: Policy, folder: Path, tmp_path: Path) -> None:
    """Each step's weights are read from the training states that transformers leaves."""
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def look(*_: Any) -> None:
        if found := newest_state(tmp_path):
            seen[found[0]] = load_file(found[1] / "model.safetensors")

    config = LONG.model_copy(update={"save_steps": 1})
    found = weights(train(session(policy, folder, tmp_path, config), 12, look))
    look()
    assert sorted(seen) == [1, 2, 3, 4, 5]
    for name, parameter in found.items():
        expected = torch.stack([seen[step][name] for step in (3, 4, 5)]).mean(0)
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(p, seen[5][name]) for name, p in found.items())


@pytest.mark.parametrize("adapters", ["none", "shared", "per_role"])
@pytest.mark.parametrize("step", [3, 5])
def test_a_kill_changes_nothing(policy: Policy, folder: Path, tmp_path: Path, adapters: str, step: int) -> None:
    def stop(at: int, *_: Any) -> None:
        if at == step:
            raise Killed

    config = LONG.model_copy(update={"adapters": adapters})
    whole = weights(train(session(policy, folder, tmp_path / "whole", config), 12, lambda *_: None))
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path / "killed", config), 12, stop)
    assert same(whole, weights(train(session(policy, folder, tmp_path / "killed", config), 12, lambda *_: None)))


def test_a_guard_leaves_the_last_good_step(policy: Policy, folder: Path, tmp_path: Path) -> None:
    guards = LONG.guards.model_copy(update={"min_entropy": 100.0, "patience": 4})
    with pytest.raises(TrainingStopped) as stopped:
        train(
            session(policy, folder, tmp_path, LONG.model_copy(update={"guards": guards, "save_steps": 1})),
            12,
            lambda *_: None,
        )
    number, state = newest_state(tmp_path) or (0, tmp_path)
    assert number == 4 and same(weights(stopped.value.model), load_file(state / "model.safetensors"))
