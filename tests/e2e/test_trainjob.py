"""Step selfplay as a TrainJob on a real Kubernetes, with the rights that manifests/components/trainer gives it.

Kubeflow Trainer's controller is played by a small one of ours: a pod of the runtime, owned by the job, and conditions.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.trainjob import Wait, play_as_job
from sparring.errors import ClusterError
from sparring.registry import rounds
from sparring.store import Store
from tests.e2e.conftest import Kubectl
from tests.e2e.install import CONTROL, custom_kinds, until
from tests.kubeconfig import use
from tests.manifests.objects import MANIFESTS
from tests.pipelines.test_trainjob import DONE, begun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TRAINER = MANIFESTS / "components" / "trainer"
WAIT = Wait(limit=120.0, poll=0.5)


@pytest.fixture(scope="module", autouse=True)
def _installed(kubectl: Kubectl, namespace: str) -> Iterator[None]:
    with custom_kinds(kubectl):
        kubectl("-n", namespace, "create", "serviceaccount", "sparring-runner")
        for name in ("runtime.yaml", "rights.yaml"):
            kubectl("-n", namespace, "apply", "--server-side", "--validate=strict", "-f", str(TRAINER / name))
        yield
        kubectl("-n", namespace, "delete", "trainjob", "--all", "--wait=false", check=False)


@pytest.fixture(autouse=True)
def _as_the_runner(kubectl: Kubectl, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our client has the token of the pods' service account, and no more."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    token = kubectl("-n", namespace, "create", "token", "sparring-runner").strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    use(config, tmp_path, monkeypatch)


@contextlib.contextmanager
def controller(kubectl: Kubectl, namespace: str, script: str, ended: Callable[[], None]) -> Iterator[None]:
    """Does for every TrainJob what Kubeflow Trainer would; the pod runs `script`, after which `ended` is called."""
    stop = threading.Event()

    def get(kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(kubectl("-n", namespace, "get", kind, "-o", "json"))["items"]
        return items

    def work() -> None:
        while not stop.wait(0.3):
            phases = {pod["metadata"]["name"]: pod["status"].get("phase") for pod in get("pods")}
            for job in get("trainjobs"):
                name = job["metadata"]["name"]
                if f"{name}-node-0-0" not in phases and "deletionTimestamp" not in job["metadata"]:
                    kubectl("-n", namespace, "create", "-f", "-", text=json.dumps(_pod(job, script)), check=False)
                elif (phase := phases.get(f"{name}-node-0-0")) in ("Succeeded", "Failed"):
                    if phase == "Succeeded":
                        ended()
                    _conclude(kubectl, namespace, name, "Complete" if phase == "Succeeded" else "Failed")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _pod(job: dict[str, Any], script: str) -> dict[str, Any]:
    """The runtime's pod with what the job brings, under our command."""
    runtime = yaml.safe_load((TRAINER / "runtime.yaml").read_text(encoding="utf-8"))
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    template, trainer = replicated["template"]["spec"]["template"], job["spec"]["trainer"]
    (container,) = template["spec"]["containers"]
    container |= {"image": trainer["image"], "command": ["sh", "-c", script], "resources": trainer["resourcesPerNode"]}
    container["env"] = [*container["env"], *trainer["env"]]
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": uid, "blockOwnerDeletion": True}
    labels = {**template["metadata"]["labels"], "jobset.sigs.k8s.io/jobset-name": name}
    metadata = {"name": f"{name}-node-0-0", "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _conclude(kubectl: Kubectl, namespace: str, name: str, kind: str) -> None:
    condition = {"type": kind, "status": "True", "reason": "Jobs", "message": "jobset ended"}
    patch = json.dumps({"status": {"conditions": [condition | {"lastTransitionTime": "2026-01-05T03:00:00Z"}]}})
    kubectl(
        "-n", namespace, "patch", "trainjob", name, "--subresource=status", "--type=merge", "-p", patch, check=False
    )


def small(folder: Path, namespace: str, image: str = CONTROL, memory: str = "64Mi") -> tuple[str, Store]:
    """A prepared round whose job fits this cluster."""
    cluster = {"executor": "trainjob", "namespace": namespace, "images": {"train": image}}
    return begun(folder, cluster={**cluster, "train": {"cpu": "50m", "memory": memory}})


def nothing_left(kubectl: Kubectl, namespace: str) -> bool:
    return not kubectl("-n", namespace, "get", "trainjobs,pods", "-o", "name").strip()


def test_a_job_that_ends_well_is_copied_and_removed(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    request, store = small(tmp_path, namespace)
    lines = "for i in $(seq 1 60); do echo line $i; sleep 0.05; done"
    said: list[str] = []
    with controller(kubectl, namespace, lines, lambda: rounds.save_result(store, 1, "selfplay", DONE)):
        play_as_job(request, "1", said.append, WAIT)
    assert [line for line in said if line.startswith("line ")] == [f"line {i}" for i in range(1, 61)]
    until("the pod's end", 60, lambda: nothing_left(kubectl, namespace))


def test_a_job_out_of_memory_says_so(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    request, _ = small(tmp_path, namespace, memory="24Mi")
    with (
        controller(kubectl, namespace, "echo begins; exec tail /dev/zero", lambda: None),
        pytest.raises(ClusterError, match=r"failed: OOMKilled \(exit 137\).*begins"),
    ):
        play_as_job(request, "1", lambda _: None, WAIT)
    until("the pod's end", 60, lambda: nothing_left(kubectl, namespace))


def test_why_a_job_waits_is_said_and_at_its_time_limit_it_goes(
    kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    request, _ = small(tmp_path, namespace, image="localhost/none:1")
    said: list[str] = []
    with (
        controller(kubectl, namespace, "true", lambda: None),
        pytest.raises(ClusterError, match=r"longer than 25 s, waiting: .*Image"),
    ):
        play_as_job(request, "1", said.append, Wait(limit=25.0, poll=0.5))
    assert any("waits: " in line for line in said)
    until("the pod's end", 60, lambda: nothing_left(kubectl, namespace))


def test_another_namespace_is_out_of_reach(kubectl: Kubectl, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match="no right to look"):
        play_as_job(small(tmp_path, "default")[0], "1", lambda _: None, WAIT)
    assert time.monotonic() - began < 30
