"""The pods as they are compiled, on a real Kubernetes under the restricted profile, with a root that cannot be written.

Kubeflow's launcher is left out: what it would hand over is written here. So this runs without Kubeflow.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.package import package
from pipelines.pods import RUN_LABEL
from sparring.config.cluster import ClusterConfig
from sparring.config.load import load_run
from sparring.monitor import ledger
from sparring.registry.champion import read_log
from sparring.registry.rounds import load_end
from tests.conftest import Seaweed
from tests.e2e_kfp.conftest import Cluster, secret
from tests.pipelines.planted import BETTER, plant

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RUN = "a-run"


@pytest.fixture(scope="module")
def restricted(
    kubernetes_core: Any, reachable_store: Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    name = f"sparring-pods-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes_core.create_namespace({"metadata": {"name": name, "labels": labels}})
    with secret(kubernetes_core, name, reachable_store), pytest.MonkeyPatch.context() as patch:
        for key, value in reachable_store.environment.items():
            patch.setenv(key, value)
        yield Cluster(name, kubernetes_core, reachable_store)
    kubernetes_core.delete_namespace(name)


def test_a_decided_round_is_promoted_and_reported_in_compiled_pods(restricted: Cluster, tmp_path: Path) -> None:
    config = load_run(restricted.run_file(tmp_path, "default"))
    planted = plant(tmp_path, BETTER, config, url=config.store)
    play = Player(restricted, config.cluster, planted.request.model_dump_json())
    assert play("selfplay", "1") == planted.candidate  # done already: skipped without torch
    assert play("gate", "1") == "PROMOTE"
    assert play("promote", "1") == "1"
    assert play("report").endswith("report/index.html")
    end = load_end(planted.store, 1)
    assert end is not None and end.decision == "PROMOTE"
    assert read_log(planted.store).champion == planted.candidate
    attempts = [one for entry in ledger.read(planted.store, 1).values() for one in entry.attempts]
    assert {one.run for one in attempts} == {RUN} and len(attempts) == 3
    assert 0 < play.numbers["asr.macro.candidate"] < 1 and play.numbers["seconds.gate"] > 0


class Player:
    """Plays compiled steps, a pod each, and returns what each gives to Kubeflow."""

    def __init__(self, cluster: Cluster, settings: ClusterConfig, run: str) -> None:
        spec, platform = yaml.safe_load_all(package(settings).text)
        self._executors = spec["deploymentSpec"]["executors"]
        self._pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._cluster, self._run = cluster, run
        self.numbers: dict[str, float] = {}

    def __call__(self, step: str, number: str = "") -> str:
        made = self._cluster.core.create_namespaced_pod(self._cluster.namespace, self._pod(step, number))
        output = json.loads(self._finished(made.metadata.name).rpartition("\nOUTPUT ")[2])
        for artifact in output.get("artifacts", {}).get("numbers", {}).get("artifacts", ()):
            self.numbers = artifact["metadata"]
        return str(output["parameterValues"]["Output"])

    def _pod(self, step: str, number: str) -> dict[str, Any]:
        container, platform = self._executors[f"exec-{step}"]["container"], self._pods[f"exec-{step}"]
        command = [
            *container["command"],
            "--executor_input",
            json.dumps(_input(self._run, number)),
            *container["args"][2:],
        ]
        shell = '"$@"; code=$?; printf "\\nOUTPUT "; cat /tmp/output.json; exit $code'
        field = platform["fieldPathAsEnv"][0]
        user = platform["securityContext"]
        main = {
            "name": "main",
            "image": container["image"],
            "imagePullPolicy": platform["imagePullPolicy"],
            "command": ["sh", "-c", shell, "sh", *command],
            "env": [
                *container["env"],
                {"name": field["name"], "valueFrom": {"fieldRef": {"fieldPath": field["fieldPath"]}}},
                *(
                    _secret_variable(one["secretName"], key)
                    for one in platform["secretAsEnv"]
                    for key in one["keyToEnv"]
                ),
            ],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "securityContext": {
                "runAsUser": int(user["runAsUser"]),
                "runAsNonRoot": user["runAsNonRoot"],
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }  # the last three as Kubeflow sets them itself
        spec = {"containers": [main], "restartPolicy": "Never", "volumes": [{"name": "tmp", "emptyDir": {}}]}
        return {"metadata": {"generateName": f"{step}-", "labels": {RUN_LABEL: RUN}}, "spec": spec}

    def _finished(self, name: str) -> str:
        """The log of a pod that succeeds within two minutes."""
        core, namespace = self._cluster.core, self._cluster.namespace
        for _ in range(240):
            phase = core.read_namespaced_pod(name, namespace).status.phase
            if phase in ("Succeeded", "Failed"):
                break
            time.sleep(0.5)
        log = str(core.read_namespaced_pod_log(name, namespace))
        assert phase == "Succeeded", log
        return log


def _secret_variable(name: str, key: dict[str, str]) -> dict[str, Any]:
    return {"name": key["envVar"], "valueFrom": {"secretKeyRef": {"name": name, "key": key["secretKey"]}}}


def _input(run: str, number: str) -> dict[str, Any]:
    """What Kubeflow's launcher hands to a component."""
    parameters = {"run": run} | ({"round": number} if number else {})
    artifacts = {
        name: {
            "artifacts": [{"name": name, "type": {"schemaTitle": f"system.{kind}"}, "uri": f"/tmp/artifacts/{name}"}]
        }
        for name, kind in (("numbers", "Metrics"), ("page", "HTML"))
    }
    outputs = {"parameters": {"Output": {"outputFile": "/tmp/parameter"}}, "artifacts": artifacts}
    return {"inputs": {"parameterValues": parameters}, "outputs": {**outputs, "outputFile": "/tmp/output.json"}}
