"""One LoRA adapter that both roles train, on a part of the model's layers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from sparring.config.load import load_run
from sparring.config.roles import LoraConfig
from sparring.errors import ConfigError
from sparring.policy.load import Policy, load_policy
from sparring.train.adapters import plain, span
from sparring.train.roles import ATTACKER, DEFENDER
from sparring.train.session import train
from tests.train.small import SMALL, session, weights

SHARED = SMALL.model_copy(
    update={"adapters": "shared", "lora": LoraConfig(rank=4, alpha=8.0, layers=(0.5, 1.0)), "learning_rate": 1e-2}
)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 200))
def test_a_part_of_the_depth_has_a_layer_and_none_outside(a: float, b: float, depth: int) -> None:
    layers = span((min(a, b), max(a, b)), depth)
    assert layers and layers.start >= 0 and layers.stop <= depth and layers.step == 1
    assert span((0.0, 1.0), depth) == range(depth)


def test_parts_that_meet_leave_no_layer_out_and_take_none_twice() -> None:
    for depth in range(2, 60):
        lower, upper = span((0.0, 0.5), depth), span((0.5, 1.0), depth)
        assert [*lower, *upper] == list(range(depth))


def test_both_roles_train_the_adapter_on_its_layers_and_the_base_stays(
    policy: Policy, folder: Path, tmp_path: Path
) -> None:
    curves: list[dict[str, float]] = []
    model = train(session(policy, folder, tmp_path, SHARED), 12, lambda _, games, curve: curves.append(curve))
    assert isinstance(model, PeftModel) and list(model.peft_config) == ["default"]
    adapted = {
        int(number[1])
        for n, _ in model.named_parameters()
        if "lora_" in n and (number := re.search(r"layers\.(\d+)", n))
    }
    assert adapted == {1}  # the upper of two
    assert any(bool(p.any()) for n, p in model.named_parameters() if "lora_B" in n)
    base = weights(load_policy(folder).model)
    found = {n.replace(".base_layer", "").removeprefix("base_model.model."): p for n, p in model.named_parameters()}
    assert all(torch.equal(found[name], p) for name, p in base.items())
    assert abs(curves[0]["kl"]) < 1e-4  # it begins as the base, which is the reference
    assert abs(curves[1]["kl"]) > 1e-5  # and has left it


def test_either_role_s_plain_model_is_the_base_with_the_one_adapter(
    policy: Policy, folder: Path, tmp_path: Path
) -> None:
    model = train(session(policy, folder, tmp_path, SHARED), 12, lambda *_: None)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model(ids).logits
        for role in (ATTACKER, DEFENDER):
            with plain(model, role) as merged:
                torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-5)
                assert not any("lora" in name for name, _ in merged.named_parameters())
        torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("frozen", ["train_attacker", "train_defender"])
def test_one_role_alone_trains_it_too(policy: Policy, folder: Path, tmp_path: Path, frozen: str) -> None:
    config = SHARED.model_copy(update={frozen: False, "sft_coef": 0.0, "steps": 1})
    model = train(session(policy, folder, tmp_path, config), 12, lambda *_: None)
    assert any(bool(p.any()) for n, p in model.named_parameters() if "lora_B" in n)


def test_a_seed_makes_one_training_and_a_kill_changes_nothing(policy: Policy, folder: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(step: int, *_: Any) -> None:
        if step == 2:
            raise Killed

    config = SHARED.model_copy(update={"steps": 3})
    whole = weights(train(session(policy, folder, tmp_path / "whole", config), 12, lambda *_: None))
    torch.manual_seed(99)  # what was drawn before does not matter
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path / "cut", config), 12, stop)
    resumed = weights(train(session(policy, folder, tmp_path / "cut", config), 12, lambda *_: None))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_head_cannot_have_an_adapter() -> None:
    with pytest.raises(ConfigError, match=r"selfplay.lora.targets must not name lm_head"):
        load_run(None, ["selfplay.adapters=shared", "selfplay.lora.targets=[lm_head]"])


@pytest.mark.parametrize("part", [(0.5, 0.5), (0.7, 0.2)])
def test_a_part_of_the_depth_rises(part: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="give the lower end first"):
        load_run(None, [f"selfplay.lora.layers={list(part)}"])
