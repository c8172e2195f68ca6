"""Two CPU processes over gloo train what one process trains: same games, loss, gradients and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparring.config.run import SelfplayConfig
from sparring.errors import SetupError
from sparring.policy.generate import generate
from sparring.policy.load import Policy
from sparring.train.ranks import check_world, padded, share
from sparring.train.session import micro_batch, process_rows

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def run(folder: Path, out: Path, processes: int, changes: dict[str, Any], rows: int, launcher: list[str]) -> Any:
    command = [sys.executable, *launcher, "-m", "tests.train.ranked", str(folder), str(out) + ".work", str(out)]
    return subprocess.run(
        [*command, str(processes), json.dumps(changes), str(rows)], cwd=ROOT, timeout=500, check=False, text=True,
        capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "reinforce_pp": ({}, 12),
    "grpo, three answers, fillers": (
        # one wordless attack of a random model makes three games void
        {"estimator": "grpo", "answers_per_attack": 3, "max_void_share": 1.0},
        2 * (2 + 4 * 2),
    ),
    "a shared adapter, a share of the rows": ({"adapters": "shared", "trained_share": 0.5, "micro_batch": 4}, 8),
    "attacker frozen, few lessons": ({"train_attacker": False, "sft_batch": 1, "micro_batch": 2}, 12),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_what_one_does(name: str, folder: Path, tmp_path: Path) -> None:
    changes, rows = VARIANTS[name]
    for out, processes, launcher in (("one", 1, []), ("two", 2, TORCHRUN)):
        done = run(folder, tmp_path / out, processes, changes, rows, launcher)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two, other = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("one.0", "two.0", "two.1"))
    assert all(torch.equal(two[k], other[k]) for k in two)
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-5, rtol=1e-5, msg=key)
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert len(first) == len(second) == 2
    for a, b in zip(first, second, strict=True):
        for key in ("loss", "grad_norm", "kl", "sft_loss", "attacker_reward", "defender_reward", "void", "tokens"):
            assert b.get(key) == pytest.approx(a.get(key), abs=1e-5), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "launcher", "found"), [(2, [], "1 process trains"), (1, TORCHRUN, "2 processes train")]
)
def test_as_many_processes_train_as_were_asked_for(
    folder: Path, tmp_path: Path, asked: int, launcher: list[str], found: str
) -> None:
    done = run(folder, tmp_path / "out", asked, {}, 12, launcher)
    assert done.returncode != 0 and f"selfplay.processes = {asked}, but {found}" in done.stderr


def test_the_world_is_checked() -> None:
    check_world(2, 2)
    with pytest.raises(SetupError, match="torchrun --nproc_per_node 2"):
        check_world(2, 1)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_shares_are_the_whole_in_order(items: list[int], size: int) -> None:
    parts = [share(items, rank, size) for rank in range(size)]
    assert [x for part, _ in parts for x in part] == items
    assert all(items[start : start + len(part)] == list(part) for part, start in parts)
    assert max(len(p) for p, _ in parts) - min(len(p) for p, _ in parts) <= 1


@given(st.integers(1, 30), st.integers(2, 4), st.integers(1, 5))
def test_fillers_carry_no_loss_and_groups_stay_whole(groups: int, group: int, processes: int) -> None:
    count = groups * group
    rows: dict[str, list[Any]] = {"valid": [1] * count, "env_mask": [[1, 1]] * count, "slot": list(range(count))}
    config = SelfplayConfig(group=group, games=group * 4, micro_batch=group * 4, processes=processes)
    filled = padded(rows, group * processes)
    assert filled["valid"][:count] == rows["valid"] and not any(filled["valid"][count:])
    assert all(mask == [0, 0] for mask in filled["env_mask"][count:])
    each = process_rows(count, config)
    assert each * processes == len(filled["slot"]) and each % group == 0
    assert each % micro_batch(each, group, config.micro_batch) == 0
    assert count == len(rows["valid"])


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 10**6))
def test_random_numbers_are_those_of_the_place_in_the_whole(count: int, skip: int, seed: int) -> None:
    whole = torch.rand(skip + count, 7, generator=torch.Generator().manual_seed(seed))
    more = torch.rand(skip + count + 50, 7, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(whole, more[: skip + count])


def test_a_part_of_the_prompts_gets_the_answers_of_the_whole(policy: Policy) -> None:
    prompts = policy.chat.encode([f"Name {i} rivers" for i in range(7)], 64)
    asked: dict[str, Any] = {"eos": policy.chat.eos, "max_new_tokens": 6, "temperature": 1.0, "seed": 3}
    whole = generate(policy.model, prompts, **asked)
    part = generate(policy.model, prompts[3:], skip=3, **asked)
    assert part.ids == whole.ids[3:]
