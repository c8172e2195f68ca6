"""Rounds with one adapter a role, and against a league: what goes on, what is stored, what is served, what gc keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparring.config.run import RunConfig
from sparring.errors import NotFoundError, UsageError
from sparring.policy.load import load_policy
from sparring.progress import Progress
from sparring.registry.adapters import lineage, read_adapters
from sparring.registry.champion import append, read_log
from sparring.registry.checkpoints import has_checkpoint, load_checkpoint, load_manifest
from sparring.registry.export import promoted_digest
from sparring.registry.gc import sweep
from sparring.registry.marks import Retention
from sparring.steps import selfplay
from sparring.steps.players import champions, load_player
from sparring.steps.results import SelfplayResult
from sparring.steps.selfplay import SelfplayInputs, SelfplayStepConfig
from sparring.train.adapters import WEIGHTS
from sparring.train.roles import ATTACKER, DEFENDER
from tests.steps.test_model_steps import RUN, Line, line

__all__ = ["line"]

ADAPTERS = {"adapters": "per_role", "lora": {"rank": 4}, "steps": 1, "learning_rate": 1e-2}


def round_of(line: Line, number: int, start: str, **selfplay_keys: Any) -> SelfplayResult:
    sections = {**RUN, "selfplay": {**RUN["selfplay"], **selfplay_keys}}
    config = SelfplayStepConfig.of(
        RunConfig.model_validate({**sections, "game": {**RUN["game"], "generated_share": 0.5}})
    )
    prepared = line.prepared.model_copy(update={"round": number, "start": start})
    return selfplay.run(config, line.store, SelfplayInputs(prepared, 0, line.work), Progress("selfplay"))


def promote(line: Line, number: int, digest: str) -> None:
    append(
        line.store, expected_head=read_log(line.store).head, kind="promotion", actor="test", round=number,
        candidate=digest, decision="PROMOTE", reason="",
    )  # fmt: skip


def adapter(line: Line, digest: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(
        load_checkpoint(line.store, digest, line.work / "checkpoints") / WEIGHTS
    )
    return tensors


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[5, 6, 7, 8]])).logits
    return found


@pytest.fixture(scope="module")
def rounds(line: Line) -> dict[int, SelfplayResult]:
    """Round 1 is promoted, round 2 rejected, round 3 starts from round 1's candidate again."""
    first = round_of(line, 1, line.prepared.base, **ADAPTERS)
    promote(line, 1, first.candidate)
    return {
        1: first,
        2: round_of(line, 2, first.candidate, **ADAPTERS),
        3: round_of(line, 3, first.candidate, **ADAPTERS, opponent="league", league_share=1.0),
    }


@pytest.mark.slow
def test_the_candidate_is_the_base_with_the_defenders_adapter_and_nothing_else(
    line: Line, rounds: dict[int, SelfplayResult]
) -> None:
    record = read_adapters(line.store, 1)
    assert (record.base, record.candidate) == (line.prepared.base, rounds[1].candidate)
    names = {file.name for file in load_manifest(line.store, record.candidate).files}
    assert names == {file.name for file in load_manifest(line.store, record.base).files}
    folder = load_checkpoint(line.store, record.candidate, line.work / "checkpoints")
    base = load_policy(line.model).model.state_dict()
    candidate = load_policy(folder).model.state_dict()
    changed = {name for name, value in candidate.items() if not torch.equal(value, base[name])}
    assert changed and all(name.split(".")[-2] in set(RunConfig().selfplay.lora.targets) for name in changed)
    scale = RunConfig().selfplay.lora.alpha / 4
    for name, value in adapter(line, record.defender).items():
        if "lora_B" in name:
            first = adapter(line, record.defender)[name.replace("lora_B", "lora_A")]
            plain = name.removeprefix("base_model.model.").replace("lora_B.weight", "weight")
            torch.testing.assert_close(candidate[plain], base[plain] + scale * value @ first, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_no_adapter_is_ever_served(line: Line, rounds: dict[int, SelfplayResult]) -> None:
    record = read_adapters(line.store, 1)
    for digest in (record.attacker, record.defender):
        assert "config.json" not in {file.name for file in load_manifest(line.store, digest).files}
        with pytest.raises(UsageError, match="does not name one promoted checkpoint"):
            promoted_digest(read_log(line.store), digest)


@pytest.mark.slow
def test_the_next_round_goes_on_from_both_adapters_on_the_same_base(
    line: Line, rounds: dict[int, SelfplayResult]
) -> None:
    one, two, three = (read_adapters(line.store, number) for number in (1, 2, 3))
    assert one.base == two.base == three.base == line.prepared.base
    found = lineage(line.store, one.candidate, 2)
    assert (found.base, found.attacker, found.defender) == (one.base, one.attacker, one.defender)
    found = lineage(line.store, one.candidate, 3)  # round 2 was rejected: its attacker goes on, its defender does not
    assert (found.attacker, found.defender) == (two.attacker, one.defender)
    assert lineage(line.store, "f" * 64, 3).defender is None
    far = {name: value for name, value in adapter(line, two.attacker).items() if "lora_A" in name}
    near = adapter(line, one.attacker)
    assert all((value - near[name]).abs().max() < 0.02 for name, value in far.items())  # one step of 0.01 away


@pytest.mark.slow
def test_a_learning_rate_of_zero_leaves_the_champion_s_digest(line: Line, rounds: dict[int, SelfplayResult]) -> None:
    still = round_of(line, 4, rounds[1].candidate, **{**ADAPTERS, "learning_rate": 0.0})
    assert still.candidate == rounds[1].candidate
    assert read_adapters(line.store, 4).attacker == read_adapters(line.store, 3).attacker


@pytest.mark.slow
def test_a_past_champion_attacks_with_the_adapter_beside_it(line: Line, rounds: dict[int, SelfplayResult]) -> None:
    folder = line.work / "checkpoints"
    assert champions(line.store) == [rounds[1].candidate]
    defender = load_player(line.store, rounds[1].candidate, DEFENDER, folder)
    attacker = load_player(line.store, rounds[1].candidate, ATTACKER, folder)
    assert torch.equal(logits(defender), logits(load_policy(folder / rounds[1].candidate).model))
    assert not torch.equal(logits(attacker), logits(defender))
    base = load_player(line.store, line.prepared.base, ATTACKER, folder)  # trained without adapters: itself
    assert torch.equal(logits(base), logits(load_policy(line.model).model))


@pytest.mark.slow
def test_gc_keeps_what_a_league_and_the_next_round_need(line: Line, rounds: dict[int, SelfplayResult]) -> None:
    sweep(line.store, Retention(keep_rounds=0, keep_champions=1, grace=0.0))
    assert all(has_checkpoint(line.store, digest) for digest in read_adapters(line.store, 1).digests)
    found = round_of(line, 5, rounds[1].candidate, **ADAPTERS)
    assert has_checkpoint(line.store, found.candidate)


@pytest.mark.slow
def test_a_champion_that_is_gone_is_named_with_what_to_do(line: Line, rounds: dict[int, SelfplayResult]) -> None:
    second = round_of(line, 6, rounds[1].candidate, steps=4)
    assert second.candidate != rounds[1].candidate
    promote(line, 6, second.candidate)
    gone = rounds[1].candidate
    for key in line.store.list(f"checkpoints/{gone}/"):
        line.store.delete(key)
    with pytest.raises(NotFoundError, match=rf"champion {gone[:12]}.*league_champions = 4.*no longer") as error:
        round_of(line, 7, second.candidate, steps=1, opponent="league")
    assert "league_champions to 1" in str(error.value.hint)
    assert round_of(line, 7, second.candidate, steps=1, opponent="league", league_champions=1).games == 8


def test_a_league_without_champions_plays_itself(line: Line, tmp_path: Path) -> None:
    fresh = Line(line.store, line.prepared, tmp_path, line.model)
    if read_log(line.store).champion is None:
        league = round_of(fresh, 50, line.prepared.base, steps=1, opponent="league")
        alone = round_of(fresh, 51, line.prepared.base, steps=1)
        assert league.games == alone.games
