"""What is compiled for a cluster: the branch on the single decision, no caching, the exit handler, the image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
STEPS = {"prepare", "selfplay", "update-pool", "answer", "judge", "gate", "promote", "hold", "report"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "round.yaml"
    command = [sys.executable, "-m", "pipelines", "compile", "-o", str(path)]
    environment = {**os.environ, "SPARRING_IMAGE": "registry.example/sparring:test"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def dag(spec: dict[str, Any], component: str) -> dict[str, Any]:
    tasks = spec["components"][component]["dag"]["tasks"]
    assert isinstance(tasks, dict)
    return tasks


def all_tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    return {name: task for one in dags for name, task in one["tasks"].items()}


def test_every_step_is_there_once_and_takes_the_image(spec: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == STEPS
    images = {executor["container"]["image"] for executor in executors.values()}
    assert images == {"registry.example/sparring:test"}


def test_steps_install_nothing_at_run_time(spec: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"]
    assert not [
        name for name, executor in executors.items() if "pip install" in " ".join(executor["container"]["command"])
    ]


def test_no_task_is_cached(spec: dict[str, Any]) -> None:
    cached = [name for name, task in all_tasks(spec).items() if task.get("cachingOptions", {}).get("enableCache")]
    unset = [name for name in STEPS if "cachingOptions" not in all_tasks(spec)[name]]
    assert not cached and not unset  # an empty mapping is how "off" is written; a missing one means "on"


def test_report_runs_whatever_happened(spec: dict[str, Any]) -> None:
    report = spec["root"]["dag"]["tasks"]["report"]
    assert report["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert report["dependentTasks"] == ["exit-handler-1"]


def test_one_decision_leads_to_promote_and_every_other_word_to_hold(spec: dict[str, Any]) -> None:
    branches = dag(spec, "comp-condition-branches-2")
    conditions = {}
    for task in branches.values():
        (step,) = dag(spec, task["componentRef"]["name"])
        conditions[step] = task["triggerPolicy"]["condition"]
    decision = "inputs.parameter_values['pipelinechannel--gate-Output']"
    assert conditions == {"promote": f"{decision} == 'PROMOTE'", "hold": f"!({decision} == 'PROMOTE')"}


def test_the_decision_is_the_only_output_of_the_gate(spec: dict[str, Any]) -> None:
    outputs = spec["components"]["comp-gate"]["outputDefinitions"]
    assert outputs == {"parameters": {"Output": {"parameterType": "STRING"}}}


def test_order_of_the_work(spec: dict[str, Any]) -> None:
    tasks = dag(spec, "comp-exit-handler-1")
    before = {name: set(task.get("dependentTasks", ())) - {"prepare"} for name, task in tasks.items()}
    assert before == {
        "prepare": set(),
        "selfplay": set(),
        "update-pool": {"selfplay"},
        "answer": {"selfplay"},
        "judge": {"answer"},
        "gate": {"judge", "update-pool"},
        "condition-branches-2": {"gate"},
    }


@pytest.mark.parametrize(
    ("output", "words"), [("round.txt", "must end in .yaml"), ("no/such/round.yaml", "does not exist")]
)
def test_wrong_output_is_one_line(output: str, words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "compile", "-o", str(tmp_path / output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
