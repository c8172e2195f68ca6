"""The lines below a round's panel: what became of its hooks, and a budget that ended self-play."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.closing import print_closing
from sparring.config.run import RunConfig
from sparring.integrations.after_round import after_round
from sparring.registry import rounds
from sparring.steps.entry import execute
from sparring.steps.results import SelfplayResult
from tests.integrations.receiver import receiver
from tests.pipelines.planted import BETTER, Planted, plant


def closed(folder: Path, config: RunConfig) -> Planted:
    planted = plant(folder, BETTER, config)
    assert execute("gate", planted.request.model_dump_json(), "1") == "PROMOTE"
    execute("promote", planted.request.model_dump_json(), "1")
    return planted


def shown(planted: Planted) -> str:
    screen = Console(file=io.StringIO(), width=100)
    print_closing(screen, planted.store, 1, "1 s")
    return screen.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (500, "failing")])
def test_each_hook_has_a_line(status: int, state: str, tmp_path: Path) -> None:
    with receiver() as server:
        server.plan = lambda seen, count: (status, b"")
        hooks = [
            {"name": name, "kind": "alertmanager", "url": server.url, "attempts": 1} for name in ("one", "another")
        ]
        config = RunConfig.model_validate({"hooks": hooks, "gate": {"approve_first_run": True}})
        planted = closed(tmp_path, config)
        after_round(planted.request.model_dump_json())
    lines = [line for line in shown(planted).splitlines() if line.startswith("hook")]
    assert sorted(lines) == [f"hook      {name} (promote) {state}: answered {status}" for name in ("another", "one")]


def test_a_budget_that_ended_self_play_has_a_line(tmp_path: Path) -> None:
    planted = closed(tmp_path, RunConfig.model_validate({"gate": {"approve_first_run": True}}))
    assert "self-play ended early" not in shown(planted)
    trained = rounds.load_result(planted.store, 1, "selfplay", SelfplayResult)
    assert trained is not None
    why = "budget.hours is used up (2.1 of 2) after step 5 of 12"
    rounds.save_result(planted.store, 1, "selfplay", trained.model_copy(update={"stopped": why}), replace=True)
    assert f"budget    self-play ended early: {why}" in shown(planted)
