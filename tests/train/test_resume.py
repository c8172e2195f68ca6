"""A training that ends anywhere and goes on ends in the weights of one that never ended, bit for bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sparring.config.run import SelfplayConfig
from sparring.errors import TrainingError
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.policy.load import Policy
from sparring.train.session import train
from sparring.train.states import newest_state
from tests.train.small import SMALL, KeywordJudge, session, weights
from tests.train.test_processes import ROOT, run

MANY = SMALL.model_copy(update={"steps": 5, "save_steps": 2})
RECIPES: dict[str, tuple[SelfplayConfig, int]] = {
    "reinforce_pp": (MANY, 12),
    "a shared adapter, a share of the rows, the mean of three steps": (
        MANY.model_copy(update={"adapters": "shared", "trained_share": 0.5, "micro_batch": 4, "average_share": 0.6}), 8,
    ),
    "grpo, two answers": (MANY.model_copy(update={"estimator": "grpo", "answers_per_attack": 2}), 2 * (2 + 3 * 2)),
}  # fmt: skip


class Killed(BaseException):
    pass


class Mortal(KeywordJudge):
    """Is killed when it is asked for the n-th time: in the middle of a step, before its update."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        self.calls -= 1
        if self.calls == 0:
            raise Killed
        return super().judge(cases)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    from sparring.policy.load import load_policy

    policy, found = load_policy(folder), {}
    for name, (config, rows) in RECIPES.items():
        work = tmp_path_factory.mktemp("whole")
        found[name] = weights(train(session(policy, folder, work, config), rows, lambda *_: None))
    return found


def resumed(policy: Policy, folder: Path, work: Path, name: str) -> dict[str, torch.Tensor]:
    config, rows = RECIPES[name]
    return weights(train(session(policy, folder, work, config), rows, lambda *_: None))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(p, other[name]) for name, p in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_killed_after_any_step(
    policy: Policy, folder: Path, tmp_path: Path, whole: dict[str, dict[str, torch.Tensor]], name: str, step: int
) -> None:
    def stop(at: int, *_: Any) -> None:
        if at == step:
            raise Killed

    config, rows = RECIPES[name]
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path, config), rows, stop)
    assert same(whole[name], resumed(policy, folder, tmp_path, name))


@pytest.mark.parametrize("call", [2, 4])
def test_killed_while_games_are_judged_twice_in_a_row(
    policy: Policy, folder: Path, tmp_path: Path, whole: dict[str, dict[str, torch.Tensor]], call: int
) -> None:
    config, rows = RECIPES["reinforce_pp"]
    for calls in (call, 1):  # the second try is killed at once
        with pytest.raises(Killed):
            train(session(policy, folder, tmp_path, config, Mortal(calls)), rows, lambda *_: None)
    assert same(whole["reinforce_pp"], resumed(policy, folder, tmp_path, "reinforce_pp"))


@pytest.mark.parametrize("left", ["trainer_state.json", "optimizer.pt"])
def test_a_state_that_was_cut_off_is_passed_over(
    policy: Policy, folder: Path, tmp_path: Path, whole: dict[str, dict[str, torch.Tensor]], left: str
) -> None:
    def stop(at: int, *_: Any) -> None:
        if at == 3:
            raise Killed

    config, rows = RECIPES["reinforce_pp"]
    with pytest.raises(Killed):
        train(session(policy, folder, tmp_path, config), rows, stop)
    assert (newest_state(tmp_path) or (0,))[0] == 2
    cut = tmp_path / "checkpoint-4"
    cut.mkdir()
    (cut / left).write_text('{"global_st')
    assert (newest_state(tmp_path) or (0,))[0] == 2
    assert same(whole["reinforce_pp"], resumed(policy, folder, tmp_path, "reinforce_pp"))


def test_a_full_disk_leaves_the_state_before(
    policy: Policy, folder: Path, tmp_path: Path, whole: dict[str, dict[str, torch.Tensor]]
) -> None:
    """No file may grow beyond 64 KiB from the third step on: writing the state of the fourth fails for real."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(at: int, *_: Any) -> None:
        if at == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))

    config, rows = RECIPES["reinforce_pp"]
    try:
        with pytest.raises(
            TrainingError, match=r"state of step 4 cannot be written to .*checkpoint-4.*free some space"
        ):
            train(session(policy, folder, tmp_path, config), rows, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (newest_state(tmp_path) or (0,))[0] == 2 and not (tmp_path / "checkpoint-4").exists()
    assert same(whole["reinforce_pp"], resumed(policy, folder, tmp_path, "reinforce_pp"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_with_signal_9_at_random_moments(folder: Path, tmp_path: Path) -> None:
    """A process of its own is killed at six random moments, then left alone."""
    changes = {"steps": 6, "save_steps": 1, "estimator": "grpo", "answers_per_attack": 2}
    done = run(folder, tmp_path / "one", 1, changes, 16, [])
    assert done.returncode == 0, done.stderr[-2000:]
    command = [sys.executable, "-m", "tests.train.ranked", str(folder), str(tmp_path / "work"), str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    rng, states = random.Random(7), set()
    for _ in range(6):
        process = subprocess.Popen([*command, "1", json.dumps(changes), "16"], cwd=ROOT, env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        _wait_for_work(process, tmp_path / "work", rng)
        process.send_signal(signal.SIGKILL)
        process.wait()
        states.add((newest_state(tmp_path / "work") or (0,))[0])
        if (tmp_path / "two.json").exists():
            break
    process = subprocess.Popen([*command, "1", json.dumps(changes), "16"], cwd=ROOT, env=environment)
    assert process.wait(timeout=600) == 0 and len(states) > 1
    one, two = (torch.load(tmp_path / f"{name}.0.pt", weights_only=True) for name in ("one", "two"))
    assert all(torch.equal(p, two[name]) for name, p in one.items() if not name.startswith("grad."))


def _wait_for_work(process: subprocess.Popen[bytes], work: Path, rng: random.Random) -> None:
    """Until the training has saved something more, then a moment longer."""
    before, end = (newest_state(work) or (0,))[0], time.monotonic() + 240
    while process.poll() is None and (newest_state(work) or (0,))[0] == before and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.6))
