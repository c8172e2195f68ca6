"""The step `selfplay` starts its processes itself; a fault of one is the step's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparring.config.run import RunConfig
from sparring.errors import SetupError, StoreError
from sparring.policy.load import load_policy
from sparring.progress import Event, Progress
from sparring.registry.checkpoints import load_checkpoint
from sparring.steps import selfplay
from sparring.steps.processes import Job, launch
from sparring.steps.results import SelfplayResult
from sparring.steps.selfplay import SelfplayInputs, SelfplayStepConfig
from tests.steps.test_model_steps import RUN, Line, line

__all__ = ["line"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def stepped(line: Line, number: int, processes: int, told: list[Event]) -> SelfplayResult:
    config = RunConfig.model_validate({**RUN, "selfplay": {**RUN["selfplay"], "processes": processes}})
    prepared = line.prepared.model_copy(update={"round": number})
    progress = Progress("selfplay", lambda event, numbers: told.append(event))
    return selfplay.run(SelfplayStepConfig.of(config), line.store, SelfplayInputs(prepared, 0, line.work), progress)


def test_two_processes_leave_the_candidate_of_one(line: Line, tmp_path: Path) -> None:
    told: list[Event] = []
    one, two = stepped(line, 21, 1, []), stepped(line, 21, 2, told)
    assert (two.games, two.trained_tokens, two.guard, two.stopped) == (one.games, one.trained_tokens, "", "")
    models = [load_policy(load_checkpoint(line.store, r.candidate, tmp_path)).model for r in (one, two)]
    for name, weight in models[0].named_parameters():
        torch.testing.assert_close(weight, dict(models[1].named_parameters())[name], atol=1e-5, rtol=1e-5)
    assert [event.done for event in told if event.stage == "self-play"] == [1, 2]
    assert line.store.list("rounds/000021/selfplay/states") == []


def test_what_a_process_raises_the_step_raises(line: Line) -> None:
    config = SelfplayStepConfig.of(RunConfig.model_validate({**RUN, "selfplay": {"processes": 2}}))
    prepared = line.prepared.model_copy(update={"round": 22, "seeds": "0" * 64})
    job = Job(config, SelfplayInputs(prepared, 0, line.work), line.store.url, line.model)
    with pytest.raises(StoreError, match="0000"):
        launch(job, Progress("selfplay"))


def test_the_world_is_checked_before_anything_is_loaded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparring.steps.processes import _JOB, main

    config = SelfplayStepConfig.of(RunConfig.model_validate({**RUN, "selfplay": {"processes": 2}}))
    job = Job(config, SelfplayInputs(line.prepared, 0, line.work), line.store.url, line.model)
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / "job.json"
    path.write_bytes(_JOB.dump_json(job))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SetupError, match=r"selfplay.processes = 2, but 1 process trains.*torchrun --nproc_per_node 2"):
        main(str(path))
