"""Self-play training against stock TRL and a brute-force REINFORCE++."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig, GRPOTrainer

from sparring.errors import TrainingError
from sparring.game.records import Game
from sparring.policy.load import Policy, load_policy
from sparring.train.roles import DEFENDER, SharedRoles
from sparring.train.rows import rollout_rows
from sparring.train.session import micro_batch, train
from sparring.train.supervised import Example, collate
from sparring.train.trainer import Features, SelfPlayTrainer
from tests.train.small import SMALL, VoidJudge, player, session, weights


def test_with_all_features_off_a_step_equals_stock_trl(folder: Path, tmp_path: Path) -> None:
    found = []
    for kind in (GRPOTrainer, SelfPlayTrainer):
        trainer = kind(
            model=str(folder),
            reward_funcs=lambda completions, **_: [float(len(c)) for c in completions],
            args=GRPOConfig(
                output_dir=str(tmp_path / kind.__name__),
                max_steps=1,
                logging_steps=1,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                num_generations=4,
                max_completion_length=8,
                learning_rate=1e-3,
                beta=0.04,
                bf16=False,
                gradient_checkpointing=False,
                dataloader_pin_memory=False,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                model_init_kwargs={"dtype": "float32"},
                seed=5,
            ),
            train_dataset=Dataset.from_list([{"prompt": "Name a river."}, {"prompt": "Name a sea."}]),
        )
        trainer.train()
        found.append((weights(trainer.model), trainer.state.log_history[0]))
    (stock, stock_log), (ours, our_log) = found
    assert all(torch.equal(stock[name], ours[name]) for name in stock)
    assert {k for k in stock_log if "time" not in k} == {k for k in our_log if "time" not in k}
    assert stock_log["loss"] == our_log["loss"] and stock_log["grad_norm"] == our_log["grad_norm"]


def test_training_moves_the_weights_and_records_every_game(policy: Policy, folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, list[Game], dict[str, float]]] = []
    model = train(session(policy, folder, tmp_path), 12, lambda *step: steps.append(step))
    before = weights(load_policy(folder).model)
    assert any(not torch.equal(p, before[name]) for name, p in weights(model).items())
    assert [step for step, _, _ in steps] == [1, 2]
    assert all(len(games) == 8 for _, games, _ in steps)
    first = steps[0][2]
    assert abs(first["kl"]) < 1e-4  # the first games are played by the reference itself
    assert all(math.isfinite(v) for _, _, curve in steps for v in curve.values())


def test_learning_rate_zero_trains_nothing(policy: Policy, folder: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"learning_rate": 0.0})
    model = train(session(policy, folder, tmp_path, config), 12, lambda *_: None)
    before = weights(load_policy(folder).model)
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())


def test_a_training_killed_between_steps_ends_in_the_same_weights(policy: Policy, folder: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(step: int, *_: Any) -> None:
        if step == 2:
            raise Killed

    whole = weights(train(session(policy, folder, tmp_path / "whole"), 12, lambda *_: None))
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path / "cut"), 12, stop)
    resumed = weights(train(session(policy, folder, tmp_path / "cut"), 12, lambda *_: None))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_too_many_void_games_stop_the_training(policy: Policy, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"8 of 8 games are void.*the endpoint is down"):
        train(session(policy, folder, tmp_path, judge=VoidJudge()), 12, lambda *_: None)


def test_void_and_frozen_rows_carry_no_loss(policy: Policy) -> None:
    played = player(policy).play(SharedRoles(policy.model, policy.chat.eos), 0)
    rows = rollout_rows(played, trained=[DEFENDER])
    for role, valid, mask in zip(rows["role"], rows["valid"], rows["env_mask"], strict=True):
        assert bool(valid) == any(mask) and (role == 1 or not valid)
    again = player(policy).play(SharedRoles(policy.model, policy.chat.eos), 0)
    assert [g.answer for g in again.games] == [g.answer for g in played.games]


@given(st.integers(1, 40), st.sampled_from([2, 4]), st.integers(2, 32))
def test_micro_batches_keep_groups_whole(groups: int, group: int, wanted: int) -> None:
    rows = groups * group
    size = micro_batch(rows, group, wanted)
    assert rows % size == 0 and size % group == 0 and size <= max(group, wanted * 3 // 2)


@pytest.mark.slow
def test_a_stop_of_one_process_is_a_stop_of_all(tmp_path: Path) -> None:
    """Two processes over gloo, started as `accelerate launch` starts them."""
    script = tmp_path / "agree.py"
    script.write_text(
        "from accelerate import Accelerator\n"
        "from sparring.train.watch import anyones\n"
        "accelerator = Accelerator(cpu=True)\n"
        "assert accelerator.num_processes == 2\n"
        "assert anyones(accelerator, accelerator.process_index == 1)\n"
        "assert not anyones(accelerator, False)\n"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)],
        cwd=root, env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}, check=True, timeout=300,
    )  # fmt: skip


def test_training_in_bf16_is_near_training_in_fp32(policy: Policy, folder: Path, tmp_path: Path) -> None:
    def curve(bf16: bool) -> list[dict[str, float]]:
        lines: list[dict[str, float]] = []
        asked = replace(session(policy, folder, tmp_path / str(bf16)), bf16=bf16)
        model = train(asked, 12, lambda step, games, line: lines.append(line))
        assert all(p.dtype == torch.float32 for p in model.parameters())
        return lines

    for one, other in zip(curve(False)[:1], curve(True)[:1], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=0.05) and abs(other["kl"]) < 0.05
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.1)


def test_padding_and_kept_logits_change_no_loss(policy: Policy) -> None:
    model = policy.model
    rows = [Example([5, 6, 7, 8], [9]), Example([5], [10, 11, 12])]
    total = sum(len(row.answer) for row in rows)
    together = model(**collate(rows, model.config)).loss
    alone = [model(input_ids=torch.tensor([row.prompt + row.answer])).logits[0].log_softmax(-1) for row in rows]
    picked = [
        logs[len(row.prompt) - 1 + i, token]
        for row, logs in zip(rows, alone, strict=True)
        for i, token in enumerate(row.answer)
    ]
    torch.testing.assert_close(together, -torch.stack(picked).sum() / total)


def test_features_are_off_unless_asked_for() -> None:
    assert Features() == Features(kl=0.0, sft_coef=0.0, sft=None)
