"""Trainings with one adapter a role, with frozen roles and against opponents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model

from sparring.config.roles import LoraConfig
from sparring.config.run import SelfplayConfig
from sparring.game.records import Game, Kind
from sparring.policy.load import Policy, load_policy
from sparring.train.adapter_trainer import AdapterTrainer
from sparring.train.adapters import AdapterRoles, fit_adapters, lora, plain, save_adapter
from sparring.train.league import Cast, Opponents, OpposedRoles, cast, rest_opponents
from sparring.train.players import trainer_of
from sparring.train.roles import ATTACKER, DEFENDER, Begun, SharedRoles
from sparring.train.rows import rollout_rows
from sparring.train.session import train
from tests.models import save_tiny
from tests.train.small import SMALL, player, session, weights

LORA = LoraConfig(rank=4, alpha=8.0)
PER_ROLE = SMALL.model_copy(update={"adapters": "per_role", "lora": LORA, "learning_rate": 1e-2})


def moved(model: Any, name: str) -> bool:
    """Whether an adapter has left the base: its second factor begins as zero."""
    return any(bool(p.any()) for key, p in model.named_parameters() if f"lora_B.{name}." in key)


def test_both_adapters_learn_and_the_base_stays(policy: Policy, folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[list[Game], dict[str, float]]] = []
    model = train(session(policy, folder, tmp_path, PER_ROLE), 12, lambda _, games, curve: steps.append((games, curve)))
    assert isinstance(model, PeftModel) and moved(model, "attacker") and moved(model, "default")
    with plain(model, DEFENDER):
        pass
    base = weights(load_policy(folder).model)
    found = {n.replace(".base_layer", "").removeprefix("base_model.model."): p for n, p in model.named_parameters()}
    assert all(torch.equal(found[name], p) for name, p in base.items())
    assert abs(steps[0][1]["kl"]) < 1e-4  # both begin as the base, which is the reference
    assert abs(steps[1][1]["kl"]) > 1e-5  # and have left it


@pytest.mark.parametrize(("frozen", "key"), [("attacker", "train_attacker"), ("default", "train_defender")])
def test_a_role_that_is_not_trained_keeps_its_adapter(
    policy: Policy, folder: Path, tmp_path: Path, frozen: str, key: str
) -> None:
    config = PER_ROLE.model_copy(update={key: False, "sft_coef": 0.0, "steps": 1})
    model = train(session(policy, folder, tmp_path, config), 12, lambda *_: None)
    assert {name: moved(model, name) for name in ("attacker", "default")} == {
        name: name != frozen for name in ("attacker", "default")
    }


def test_killed_between_steps_both_adapters_end_the_same(policy: Policy, folder: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(step: int, *_: Any) -> None:
        if step == 2:
            raise Killed

    config = PER_ROLE.model_copy(update={"steps": 3})
    whole = weights(train(session(policy, folder, tmp_path / "whole", config), 12, lambda *_: None))
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path / "cut", config), 12, stop)
    resumed = weights(train(session(policy, folder, tmp_path / "cut", config), 12, lambda *_: None))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def alone(folder: Path, batch: dict[str, Any], role: int, begun: dict[int, Path], clip: float) -> dict[str, Any]:
    """Gradients of one role's rows by PEFT's own single-adapter model and padded passes, written out."""
    base = load_policy(folder).model
    model = PeftModel.from_pretrained(base, begun[role], is_trainable=True)
    rows = (batch["role"] == role).nonzero().squeeze(1)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)[rows]
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)[rows]
    keep = batch["completion_ids"].shape[1]
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=seen, position_ids=positions).logits[:, -keep - 1 : -1]
    logps = logits.log_softmax(-1).gather(2, ids[:, -keep:, None]).squeeze(2)
    ratio = torch.exp(logps - logps.detach())
    advantages, mask = batch["advantages"][rows], (batch["completion_mask"] * batch["tool_mask"])[rows]
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    ((loss * mask).sum() / batch["num_items_in_batch"]).backward()
    return {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.grad is not None}


class Watched(AdapterTrainer):
    """Keeps the batches that the loss saw, and the gradients of the whole step before they are clipped."""

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self.__dict__.setdefault("batches", []).append(dict(inputs.items()))
        return super()._compute_loss(model, inputs)


def test_gradients_equal_those_of_each_role_alone(policy: Policy, folder: Path, tmp_path: Path) -> None:
    """Rows of both roles in one micro-batch; each adapter is given before the step, so that it matters which is on."""
    from datasets import Dataset
    from trl import GRPOConfig

    from sparring.train.session import _arguments, _groups, _recorded_score
    from sparring.train.trainer import Features

    model = get_peft_model(load_policy(folder).model, lora(LORA, 2))
    fit_adapters(model, Begun(), 3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    begun = {ATTACKER: tmp_path / "a", DEFENDER: tmp_path / "d"}
    for role, target in begun.items():
        save_adapter(model, role, target, "0" * 64)
    config = PER_ROLE.model_copy(update={"steps": 1, "micro_batch": 12, "learning_rate": 0.0, "sft_coef": 0.0})
    asked = replace(session(policy, folder, tmp_path / "work", config), begun=Begun(begun[ATTACKER], begun[DEFENDER]))
    args, data = _arguments(asked, 12), _groups(config, 12)
    assert isinstance(args, GRPOConfig) and isinstance(data, Dataset)
    args.max_grad_norm, args.save_strategy = 1e9, "no"
    found: dict[str, torch.Tensor] = {}

    def roll(prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        roles = AdapterRoles(trainer.accelerator.unwrap_model(trainer.model), policy.chat.eos)
        return rollout_rows(asked.player.play(roles, 0), trained=[ATTACKER, DEFENDER])

    trainer = Watched(
        model=str(folder), reward_funcs=_recorded_score, args=args, train_dataset=data, rollout_func=roll,
        processing_class=policy.tokenizer, features=Features(kl=0.01, group_baseline=True),
        **trainer_of(asked).keywords,  # type: ignore[attr-defined]
    )  # fmt: skip
    optimizer_step = trainer.accelerator.clip_grad_norm_

    def clip(parameters: Any, *rest: Any, **named: Any) -> Any:
        found.update({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
        return optimizer_step(parameters, *rest, **named)

    trainer.accelerator.clip_grad_norm_ = clip
    trainer.train()
    (batch,) = trainer.batches
    assert sorted(set(batch["role"].tolist())) == [ATTACKER, DEFENDER]
    for role, name in ((ATTACKER, "attacker"), (DEFENDER, "default")):
        expected = alone(folder, batch, role, begun, 0.2)
        mine = {n.replace(f".{name}.", "."): g for n, g in found.items() if f".{name}." in n}
        assert mine.keys() == expected.keys()
        scale = max(float(g.abs().max()) for g in expected.values())
        assert scale > 0
        for key, gradient in expected.items():
            torch.testing.assert_close(mine[key], gradient, rtol=1e-3, atol=2e-5 * scale)


KINDS: list[Kind] = ["vanilla", "vanilla", "generated", "generated", "generated", "generated", "replayed"]


@given(st.integers(0, 10**6), st.integers(0, 50), st.floats(0, 1), st.booleans(), st.booleans())
def test_the_league_plays_its_share_of_generated_slots(seed: int, step: int, share: float, a: bool, d: bool) -> None:
    config = SelfplayConfig(opponent="league", league_share=share, train_attacker=a, train_defender=d)
    seats = cast(config, KINDS, 3, seed, step)
    assert seats == cast(config, KINDS, 3, seed, step) and 0 <= seats.opponent < 3
    attackers, defenders = seats.slots[ATTACKER], seats.slots[DEFENDER]
    assert not attackers & defenders and attackers | defenders <= {2, 3, 4, 5}
    assert len(attackers | defenders) == round(4 * share)
    if a != d:
        assert not (attackers if a else defenders)
    else:
        assert abs(len(attackers) - len(defenders)) <= 1


def test_who_meets_whom_changes_from_step_to_step_and_nobody_plays_an_empty_league() -> None:
    config = SelfplayConfig(opponent="league", league_share=0.5)
    assert (
        len({(cast(config, KINDS, 4, 1, s).opponent, cast(config, KINDS, 4, 1, s).slots[ATTACKER]) for s in range(20)})
        > 5
    )
    assert not any(cast(config, KINDS, 0, 1, 0).slots.values())
    frozen = SelfplayConfig(opponent="start", train_attacker=False)
    assert cast(frozen, KINDS, 1, 1, 0).slots == {ATTACKER: frozenset(range(7)), DEFENDER: frozenset()}


def test_an_opponent_s_rows_are_its_own_and_never_train(policy: Policy, tmp_path: Path) -> None:
    other = load_policy(save_tiny(tmp_path / "other", seed=7)).model
    loads: list[tuple[int, int]] = []

    def load(number: int, role: int) -> Any:
        loads.append((number, role))
        return other

    seats = Cast({ATTACKER: frozenset({2}), DEFENDER: frozenset({3})}, 1)
    own = SharedRoles(policy.model, policy.chat.eos)
    opponents = Opponents(["x", "y"], load)
    played = player(policy).play(OpposedRoles(own, opponents, seats, policy.chat.eos), 0)
    assert loads == [(1, ATTACKER), (1, DEFENDER)]
    rows = rollout_rows(played, trained=[ATTACKER, DEFENDER])
    before = list(rows["valid"])
    slots = {ATTACKER: played.attackers.slots, DEFENDER: played.defenders.slots}
    rest_opponents(rows, slots, seats)
    places = [(r, s) for r, part in slots.items() for s in part]
    for (role, slot), was, now, mask, ids, prompt, logps in zip(
        places, before, rows["valid"], rows["env_mask"], rows["completion_ids"], rows["prompt_ids"], rows["logprobs"],
        strict=True,
    ):  # fmt: skip
        theirs = slot in seats.slots[role]
        assert now == (0 if theirs else was) and any(mask) == bool(now)
        model = other if theirs else policy.model
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logits.gather(1, torch.tensor(ids)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(logps), expected, rtol=1e-4, atol=1e-3)
    assert sum(before) > sum(rows["valid"])


def test_without_an_opponent_in_its_slots_a_step_is_the_same_bit_for_bit(policy: Policy) -> None:
    own = SharedRoles(policy.model, policy.chat.eos)
    nobody = OpposedRoles(
        own, Opponents([], lambda *_: None), Cast({0: frozenset(), 1: frozenset()}, 0), policy.chat.eos
    )
    assert player(policy).play(nobody, 0) == player(policy).play(own, 0)


def test_a_frozen_attacker_is_the_one_the_round_began_with(policy: Policy, folder: Path, tmp_path: Path) -> None:
    """Its attacks of a later step are those of the start, whatever the defender has learnt meanwhile."""
    attacks: dict[str, list[str]] = {}
    for opponent in ("start", "current"):
        config = SMALL.model_copy(update={"train_attacker": False, "opponent": opponent, "learning_rate": 5e-2})
        seen: list[str] = []

        def on_step(step: int, games: list[Game], _: Any, seen: list[str] = seen) -> None:
            seen += [g.attack for g in games if g.kind == "generated" and step == 2]

        train(session(policy, folder, tmp_path / opponent, config), 12, on_step)
        attacks[opponent] = seen
    start = SharedRoles(load_policy(folder).model, policy.chat.eos)
    seats = Cast({ATTACKER: frozenset(range(4)), DEFENDER: frozenset()}, 0)
    again = player(policy).play(
        OpposedRoles(start, Opponents(["s"], lambda *_: start.model), seats, policy.chat.eos), 1
    )
    assert attacks["start"] == [g.attack for g in again.games if g.kind == "generated"]
    assert attacks["current"] != attacks["start"]
