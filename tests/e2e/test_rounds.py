"""Two rounds in pods of overlay cronjob, with everything that befalls them: a first promotion, a pod out of memory, a
pod killed in the middle, a wrong key. The tests are one story and stand in its order.

Images: SPARRING_CONTROL_IMAGE, SPARRING_TRAIN_IMAGE, SPARRING_SEAWEEDFS_IMAGE (tests/e2e/seaweedfs.Containerfile).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import _free_ports
from tests.e2e.conftest import Kubectl
from tests.e2e.install import alone, until
from tests.e2e.rounds import HERE, SECONDS, Installed, installed, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cluster(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with alone(kubectl), installed(kubectl, tmp_path_factory.mktemp("installed")) as found:
        yield found


@pytest.fixture(scope="module")
def first(cluster: Installed) -> dict[str, Any]:
    """Round 1, begun by the schedule itself: the model in /models/first against the base model."""
    cluster.settings(run(candidate="/models/first"), schedule="* * * * *", suspend=False)
    (job,) = until("a job of the schedule", 90, cluster.jobs)
    name = job["metadata"]["name"]
    most = 1

    def over() -> bool:
        nonlocal most
        active = [one for one in cluster.jobs() if one["status"].get("active")]
        most = max(most, len(active))
        return not active or "JobAlreadyActive" in cluster.kubectl(*HERE, "get", "events", "-o", "jsonpath={..reason}")

    until("the next minute, or the round's end", SECONDS, over)
    cluster.kubectl(*HERE, "patch", "cronjob/sparring-round", "-p", '{"spec":{"suspend":true}}')
    assert most == 1
    end, log = cluster.end(name), cluster.log(name)
    return {"end": end, "log": log, "jobs": len(cluster.jobs()), **cluster.state()}


def test_the_schedule_plays_the_first_round_and_its_model_is_promoted(first: dict[str, Any]) -> None:
    assert first["end"] == "Complete", first["log"]
    assert "round 1: PROMOTE" in first["log"]
    assert first["records"] == ["promotion"] and first["champion"] and first["last"] == 1 and first["open"] == 0
    assert {status for attempts in first["steps"].values() for status in attempts} == {"ok"}


@pytest.fixture(scope="module")
def starved(cluster: Installed, first: dict[str, Any]) -> dict[str, Any]:
    """Round 2 trains, from the champion, in a pod that has not the memory for it."""
    cluster.settings(run(), memory="800Mi", again=0)
    cluster.start("starved")
    end = cluster.end("starved")
    return {"end": end, "log": cluster.log("starved"), **cluster.state()}


def test_a_round_without_memory_fails_and_says_at_which_step(starved: dict[str, Any]) -> None:
    assert starved["end"] == "Failed"
    assert starved["steps"]["selfplay"] == ["killed"], starved["log"]  # began, and never told its end
    assert starved["open"] == 2 and starved["records"] == ["promotion"]
    errors = [line for line in starved["log"].splitlines() if line.startswith("error:")]
    if errors:  # where the kernel ends one process of the pod and not all of them
        assert re.match(r"error: step selfplay was killed", errors[0]) and len(errors) == 1
    assert "Traceback" not in starved["log"]


@pytest.fixture(scope="module")
def second(cluster: Installed, starved: dict[str, Any]) -> dict[str, Any]:
    """The next job takes round 2 up; its pod is killed while it answers, and the job's next pod finishes it."""
    cluster.settings(run())
    cluster.start("resumed")
    until("step answer", SECONDS, lambda: "answer" in cluster.state()["steps"], pause=1.0)
    (pod,) = cluster.pods("resumed")
    killed = pod["metadata"]["name"]
    cluster.kubectl(*HERE, "delete", f"pod/{killed}", "--grace-period=0", "--force")
    end = cluster.end("resumed")
    return {"end": end, "killed": killed, "log": cluster.log("resumed"), **cluster.state()}


def test_the_next_pod_finishes_a_killed_round(second: dict[str, Any], cluster: Installed) -> None:
    assert second["end"] == "Complete", second["log"]
    assert "round 2 goes on at step" in second["log"]
    assert second["killed"] not in [pod["metadata"]["name"] for pod in cluster.pods("resumed")]
    assert second["last"] == 2 and second["open"] == 0 and second["decision"] in ("PROMOTE", "REJECT", "INCONCLUSIVE")
    assert second["steps"]["answer"] == ["killed", "ok"]
    assert second["steps"]["selfplay"][0] == "killed" and second["steps"]["selfplay"][-1] == "ok"
    assert len(second["steps"]["gate"]) == 1


def test_the_second_round_started_from_the_firsts_champion(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert second["start"] == first["champion"] and second["start"]
    assert len(second["records"]) == 2 and second["records"][0] == "promotion"


def test_the_exporter_counts_what_was_killed(second: dict[str, Any], cluster: Installed) -> None:
    def counted() -> bool:
        said = cluster.metrics()
        lines = [f'sparring_step_attempts_total{{line="default",status="killed",step="{step}"}} 1.0'
                 for step in ("answer", "selfplay")]  # fmt: skip
        return all(line in said for line in lines) and 'sparring_round_open{line="default"} 0.0' in said

    until("the killed attempts among the metrics", 120, counted)


def test_a_wrong_key_is_one_clear_line(cluster: Installed, second: dict[str, Any]) -> None:
    wrong = ["--from-literal=AWS_ACCESS_KEY_ID=nobody", "--from-literal=AWS_SECRET_ACCESS_KEY=not-the-key"]
    cluster.kubectl(*HERE, "create", "secret", "generic", "sparring-store-wrong", *wrong)
    cluster.settings(run(), secret="sparring-store-wrong", again=0)
    cluster.start("wrong-key")
    assert cluster.end("wrong-key", 300) == "Failed"
    log = cluster.log("wrong-key")
    assert len(log.strip().splitlines()) <= 3 and "Traceback" not in log, log
    (line,) = [line for line in log.splitlines() if line.startswith("error:")]
    assert "not known there; look at AWS_ACCESS_KEY_ID" in line and "not-the-key" not in log
    (status,) = cluster.pods("wrong-key")[0]["status"]["containerStatuses"]
    assert status["state"]["terminated"]["message"].strip() in log  # so `kubectl describe pod` shows it
    assert cluster.state()["last"] == 2


def test_a_missing_secret_is_named_by_the_pod(cluster: Installed, second: dict[str, Any]) -> None:
    cluster.settings(run(), secret="sparring-store-nowhere", again=0)
    cluster.start("no-secret")

    def waiting() -> str:
        statuses = [one for pod in cluster.pods("no-secret") for one in pod["status"].get("containerStatuses", [])]
        return next((one["state"]["waiting"].get("message", "") for one in statuses if "waiting" in one["state"]), "")

    said = until("what the pod waits for", 120, waiting)
    assert "sparring-store-nowhere" in said
    cluster.kubectl(*HERE, "delete", "job/no-secret", "--wait=false")


# --- watched --------------------------------------------------------------------------------------------------------


def test_a_prometheus_scrapes_both_rounds(
    cluster: Installed, first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no `prometheus` on the PATH: Debian's package of that name has it")
    exporter, own = _free_ports(2)
    forward = ["kubectl", *HERE, "port-forward", "service/sparring-exporter", f"{exporter}:9464", "--address=127.0.0.1"]
    (tmp_path / "prometheus.yml").write_text(
        json.dumps({"scrape_configs": [{"job_name": "sparring", "scrape_interval": "2s",
                                        "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}]})
    )  # fmt: skip
    server = [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
              f"--web.listen-address=127.0.0.1:{own}"]  # fmt: skip
    with running(forward, tmp_path / "forward.log"), running(server, tmp_path / "server.log"):

        def ask(query: str) -> list[dict[str, Any]]:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{own}/api/v1/query?query={urllib.parse.quote(query)}", timeout=5
                ) as answer:
                    found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                    return found
            except OSError:
                return []

        until("a scrape", 90, lambda: [one for one in ask("up") if one["value"][1] == "1"])
        until("two rounds", 90, lambda: [one for one in ask("sum(sparring_rounds_total)") if one["value"][1] == "2"])
        (champion,) = ask("sparring_champion_info")
        assert champion["metric"]["digest"] == second["champion"]
        assert ask("sparring_champion_log_broken == 0") and not ask("sparring_champion_log_broken == 1")


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


# --- upgraded, removed ----------------------------------------------------------------------------------------------


def test_an_uninstalled_sparring_leaves_its_store(cluster: Installed, second: dict[str, Any]) -> None:
    cluster.kubectl("delete", "-k", str(cluster.folder), "--wait=true", "--timeout=180s")
    assert not cluster.kubectl("get", "namespace", "sparring", "--ignore-not-found")
    shell = "fs.ls /buckets/sparring/store/lines/default/champion/log\n"
    left = cluster.kubectl(
        "-n", "sparring-store", "exec", "-i", "deploy/sparring-store", "--", "weed", "shell", text=shell
    )
    assert {"000001.json", "000002.json"} <= set(re.findall(r"\d{6}\.json", left))
