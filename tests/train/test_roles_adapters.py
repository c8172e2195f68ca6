"""One adapter a role: whose gradient goes where, what is sampled from, what is kept and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from sparring.config.roles import LoraConfig
from sparring.errors import ModelError
from sparring.policy.generate import generate
from sparring.policy.load import Policy, load_policy, save_policy
from sparring.train.adapters import AdapterRoles, act, acting, fit_adapters, load_adapter, lora, plain, save_adapter
from sparring.train.roles import ATTACKER, DEFENDER, Begun
from tests.models import save_tiny

SMALL = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def policy(folder: Path) -> Policy:
    return load_policy(folder)


def adapted(policy: Policy, section: LoraConfig = SMALL, *, filled: bool = True) -> Any:
    """A PEFT model with both adapters; `filled`: as if both had been trained."""
    torch.manual_seed(2)
    model = get_peft_model(policy.model, lora(section, 2))
    fit_adapters(model, Begun(), 3)
    if filled:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.05, generator=generator)
    return model.eval()


def adapters_of(model: Any, name: str) -> dict[str, torch.Tensor]:
    return {key: p for key, p in model.named_parameters() if f".{name}." in key}


def ids(policy: Policy) -> Any:
    return torch.tensor(policy.chat.encode(["Name a river."], 64))


def test_both_adapters_begin_as_the_base_and_differ_in_their_random_halves(policy: Policy) -> None:
    before = policy.model(ids(policy)).logits
    model = adapted(policy, filled=False)
    for role in (ATTACKER, DEFENDER):
        with acting(model, role):
            torch.testing.assert_close(model(ids(policy)).logits, before, rtol=0, atol=0)
    pairs = zip(adapters_of(model, "attacker").items(), adapters_of(model, "default").items(), strict=True)
    assert all(torch.equal(a, d) == ("lora_B" in name) for (name, a), (_, d) in pairs)


def test_both_stay_trainable_and_the_base_does_not(policy: Policy) -> None:
    model = adapted(policy)
    for role in (ATTACKER, DEFENDER):
        act(model, role)
        assert {n for n, p in model.named_parameters() if p.requires_grad} == {
            n for n, _ in model.named_parameters() if ".lora_" in n
        }


def test_plain_weights_answer_as_the_adapter_and_leave_no_trace(policy: Policy) -> None:
    model = adapted(policy)
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    for role in (ATTACKER, DEFENDER):
        with acting(model, role):
            expected = model(ids(policy)).logits
        with plain(model, role) as merged:
            assert not any("lora" in name or "base_layer" in name for name, _ in merged.named_parameters())
            torch.testing.assert_close(merged(ids(policy)).logits, expected, rtol=1e-5, atol=1e-4)
    after = dict(model.named_parameters())
    assert after.keys() == kept.keys() and all(torch.equal(after[name], kept[name]) for name in kept)


def test_an_error_while_sampling_gives_the_base_back(policy: Policy) -> None:
    model = adapted(policy)
    before = model(ids(policy)).logits
    with pytest.raises(KeyboardInterrupt), plain(model, ATTACKER):
        raise KeyboardInterrupt
    assert torch.equal(model(ids(policy)).logits, before)


def test_each_role_is_sampled_from_its_own_weights(policy: Policy, folder: Path, tmp_path: Path) -> None:
    """Against the checkpoint that PEFT's own merge writes."""
    prompts = policy.chat.encode(["Name a river.", "Name a long, long river."], 64)
    asked: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 5}
    roles = AdapterRoles(adapted(policy), policy.chat.eos)
    found = {role: roles.sample(role, prompts, slots=[0, 1], **asked) for role in (ATTACKER, DEFENDER)}
    for role, name in ((ATTACKER, "attacker"), (DEFENDER, "default")):
        other = adapted(load_policy(folder)).merge_and_unload(adapter_names=[name])
        expected = generate(other, prompts, eos=policy.chat.eos, **asked)
        assert found[role].ids == expected.ids
    assert found[ATTACKER].ids != found[DEFENDER].ids


def test_the_candidate_is_plain_safetensors_of_base_and_defender(policy: Policy, folder: Path, tmp_path: Path) -> None:
    model = adapted(policy)
    expected = model(ids(policy)).logits
    with plain(model, DEFENDER) as merged:
        save_policy(merged, folder, tmp_path / "candidate")
    found = load_policy(tmp_path / "candidate").model
    torch.testing.assert_close(found(ids(policy)).logits, expected, rtol=1e-5, atol=1e-4)
    assert not any("lora" in name for name in found.state_dict())
    assert not (tmp_path / "candidate" / "adapter_config.json").exists()


def test_a_saved_adapter_is_taken_up_bit_for_bit_and_names_no_path(
    policy: Policy, folder: Path, tmp_path: Path
) -> None:
    model = adapted(policy)
    save_adapter(model, ATTACKER, tmp_path / "attacker", "0" * 64)
    fresh = get_peft_model(load_policy(folder).model, lora(SMALL, 2))
    fit_adapters(fresh, Begun(attacker=tmp_path / "attacker"), 9)
    for (_, was), (_, now) in zip(
        adapters_of(model, "attacker").items(), adapters_of(fresh, "attacker").items(), strict=True
    ):
        assert torch.equal(was, now)
    assert all(not p.any() for name, p in adapters_of(fresh, "default").items() if "lora_B" in name)
    text = (tmp_path / "attacker" / "adapter_config.json").read_text()
    assert str(folder) not in text and "0" * 64 in text
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # and PEFT itself reads it
    from peft import PeftModel

    with acting(model, ATTACKER):
        expected = model(ids(policy)).logits
    read = PeftModel.from_pretrained(other, tmp_path / "attacker")
    torch.testing.assert_close(read(ids(policy)).logits, expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_of_another_shape_is_refused_by_name(policy: Policy, folder: Path, tmp_path: Path) -> None:
    save_adapter(adapted(policy), DEFENDER, tmp_path / "a", "0" * 64)
    for section in (LoraConfig(rank=2), LoraConfig(rank=4, targets=["q_proj"])):
        model = get_peft_model(load_policy(folder).model, lora(section, 2))
        with pytest.raises(ModelError, match=r"adapter in .*/a does not fit selfplay.lora"):
            load_adapter(model, DEFENDER, tmp_path / "a")
