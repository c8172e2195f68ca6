"""Rounds on a real Kubeflow: both branches, a killed pod, a failure explained, a schedule that never overlaps.

Rounds are planted up to the judge, so that a run of nine tasks needs no GPU and a few minutes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp
import pytest

from sparring.config.load import load_run
from sparring.monitor import ledger
from sparring.registry import lease, rounds
from sparring.registry.champion import read_log
from sparring.steps.results import ReportResult
from tests.e2e_kfp.conftest import Cluster, fresh, pipelines
from tests.gate.worlds import World
from tests.pipelines.planted import BASE, BETTER, Planted, plant

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]  # kfp's client warns

WORSE = replace(BASE, asr=0.95)
RUN = re.compile(r"^run (\S+) \(", re.MULTILINE)


def planted(path: Path, folder: Path, world: World) -> Planted:
    config = load_run(path)
    return plant(folder, world, config, url=config.store)


def submitted(path: Path, *more: str) -> str:
    begun = time.monotonic()
    said = pipelines("submit", "-c", path, *more)
    print(f"submit took {time.monotonic() - begun:.1f} s\n{said}")
    found = RUN.search(said)
    assert found, said
    return found[1]


def until(check: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(1)
    return pytest.fail(f"not within {seconds:.0f} s: {what}")


def test_a_promotion(cluster: Cluster, tmp_path: Path) -> None:
    path = cluster.run_file(tmp_path, fresh("promoted"))
    round_ = planted(path, tmp_path, BETTER)
    run = submitted(path, "--resume")
    assert f"run {run}" in pipelines("submit", "-c", path, code=1)  # a second one of this line is refused
    said = pipelines("wait", run, "-c", path)
    assert "PROMOTE" in said and "✓ gate" in said and "✓ promote" in said
    log = read_log(round_.store)
    assert (log.champion, log.head) == (round_.candidate, 1)
    attempts = [one for entry in ledger.read(round_.store, 1).values() for one in entry.attempts]
    assert {one.run for one in attempts} == {run} and len({one.host for one in attempts}) == len(attempts)
    assert f"{run}" in pipelines("list", "-c", path) and "round 1: PROMOTE" in pipelines("list", "-c", path)
    assert "nothing to resume" in pipelines("submit", "-c", path, "--resume")
    details = kfp.Client().get_run(run)
    assert details.state == "SUCCEEDED"
    branch = {task.display_name: task.state for task in details.run_details.task_details}
    assert branch["promote"] == "SUCCEEDED" and branch.get("hold") in (None, "SKIPPED")


def test_a_hold_with_a_pod_killed_on_the_way(cluster: Cluster, tmp_path: Path) -> None:
    label = {"sparring-e2e-step": fresh("hold")}
    path = cluster.run_file(tmp_path, fresh("held"), steps={"hold": {"labels": label}})
    round_ = planted(path, tmp_path, WORSE)
    with lease.hold(round_.store, 1, "hold", beat=3600.0):  # the pod waits to see whether this holder lives
        run = submitted(path)
        killed = _kill_running(cluster, *label.items())
    said = pipelines("wait", run, "-c", path)
    assert "REJECT" in said and "✓ hold" in said
    log = read_log(round_.store)
    assert (log.champion, log.head) == (None, 1)
    (pod,) = _pods(cluster, *label.items())  # of the killed one nothing is left; Argo may give its name again
    assert pod.status.phase == "Succeeded" and pod.metadata.uid != killed
    assert {task.state for task in _tasks(run, "hold")} == {"SUCCEEDED"}
    assert not _tasks(run, "promote")


def _kill_running(cluster: Cluster, *label: tuple[str, str]) -> str:
    """Kills the pod with that label while it works, as a lost node would, and returns its uid."""

    def found() -> Any:
        return [pod.metadata for pod in _pods(cluster, *label) if pod.status.phase == "Running"]

    pod = until(found, 900, "a pod to kill")[0]
    time.sleep(15)  # it is at work by then: what Argo does for one that was hardly started proves little
    cluster.core.delete_namespaced_pod(pod.name, cluster.namespace, grace_period_seconds=0)
    return str(pod.uid)


def _pods(cluster: Cluster, *label: tuple[str, str]) -> list[Any]:
    selector = ",".join("=".join(pair) for pair in label)
    return list(cluster.core.list_namespaced_pod(cluster.namespace, label_selector=selector).items)


def _tasks(run: str, name: str) -> list[Any]:
    details = kfp.Client().get_run(run).run_details
    return [task for task in details.task_details if task.display_name == name]


def test_a_mistake_in_the_data_is_explained_by_our_record(cluster: Cluster, tmp_path: Path) -> None:
    path = cluster.run_file(tmp_path, fresh("mistaken"))
    missing = f"s3://{cluster.store.bucket}/no-such.csv"
    run = submitted(path, "--set", f"data.harmful=[{missing}]")
    said = pipelines("wait", run, "-c", path, code=2)
    assert "error: step prepare: " in said and "no-such.csv" in said and "Traceback" not in said
    assert "goes on with the round" in said


def test_a_missing_secret_is_found_before_and_explained_after(cluster: Cluster, tmp_path: Path) -> None:
    lacking = {"no-such-secret": {"id": "AWS_ACCESS_KEY_ID", "key": "AWS_SECRET_ACCESS_KEY"}}
    path = cluster.run_file(tmp_path, fresh("lacking"), secrets=lacking, control={"timeout_s": 90, "retries": 0})
    assert "missing: secret 'no-such-secret'" in pipelines("submit", "-c", path, code=2)
    run = submitted(path, "--no-preflight")
    said = pipelines("wait", run, "-c", path, code=1)
    error = said.rstrip().splitlines()[-1]
    assert 'secret "no-such-secret" not found' in error and "no step of it has written a record" in error


def test_a_schedule_fires_twice_and_never_overlaps(cluster: Cluster, tmp_path: Path) -> None:
    line = fresh("clock")
    path = cluster.run_file(tmp_path, line)
    first = planted(path, tmp_path / "1", WORSE)
    said = pipelines("schedule", "* * * * *", "-c", path)
    assert "0 * * * * *" in said and said.count(" UTC") == 3
    assert "stands as it is" in pipelines("schedule", "* * * * *", "-c", path)
    until(lambda: rounds.load_result(first.store, 1, "report", ReportResult), 900, "the page of round 1")
    planted(path, tmp_path / "2", WORSE)  # some pods are between the page and the next run's first look
    until(lambda: rounds.load_end(first.store, 2), 900, "the end of round 2")
    said = pipelines("unschedule", "-c", path)
    assert "waiting for run" in said and "deleted" in said
    assert "no schedule" in pipelines("unschedule", "-c", path)
    runs = _runs_of(line)
    assert len(runs) == 2
    assert runs[0].finished_at <= runs[1].created_at
    assert [_played(first, number) for number in (1, 2)] == [{runs[0].run_id}, {runs[1].run_id}]
    assert read_log(first.store).head == 2


def _played(round_: Planted, number: int) -> set[str]:
    """Runs that played a step of a round."""
    return {one.run for entry in ledger.read(round_.store, number).values() for one in entry.attempts}


def _runs_of(line: str) -> list[Any]:
    """Runs of a line, oldest first."""
    client = kfp.Client()
    experiment = client.get_experiment(experiment_name="sparring-e2e").experiment_id
    found = client.list_runs(experiment_id=experiment, page_size=50, sort_by="created_at desc").runs or []
    return sorted((run for run in found if f'"{line}"' in str(run.runtime_config.parameters["run"])), key=_created)


def _created(run: Any) -> datetime:
    created: datetime = run.created_at
    return created
