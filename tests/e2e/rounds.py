"""Overlay cronjob on the cluster, as a user has it: manifests/store beside it, small real models on a claim, jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.data import starter
from tests.e2e.conftest import Kubectl
from tests.e2e.install import CONTROL, SEAWEEDFS, TRAIN, apply, images, overlay, until
from tests.manifests.objects import MANIFESTS
from tests.pipelines.memorised import Memory
from tests.pipelines.real_rounds import SMALL, refuses

PLACE = "sparring/store"
HERE = ("--namespace", "sparring")
SECONDS = 900.0
_STATE = """
import json
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.steps.entry import RunRequest
from sparring.steps.results import PrepareResult
store = RunRequest(store="s3://sparring/store", line="default", config="").open()
last = rounds.last_round(store)
entries = ledger.read(store, last) if last else {}
prepared = rounds.load_result(store, last, "prepare", PrepareResult) if last else None
current = rounds.open_round(store)
end = rounds.load_end(store, last) if last else None
print(json.dumps({
    "last": last, "open": current.number if current else 0, "decision": end.decision if end else "",
    "start": prepared.start if prepared else "",
    "records": [record.kind for record in read_log(store).records], "champion": read_log(store).champion,
    "steps": {step: [each.status for each in entry.attempts] for step, entry in entries.items()},
}))
"""


@dataclass(frozen=True)
class Installed:
    """The overlay on the cluster; `folder` holds the user's overlay over ours."""

    kubectl: Kubectl
    folder: Path

    def settings(self, run: dict[str, Any], *, memory: str = "3Gi", suspend: bool = True, again: int = 1,
                 schedule: str = "0 3 * * 1", secret: str = "sparring-store-round") -> None:  # fmt: skip
        """Applies the overlay with these settings, as a user changes them."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "sparring.yaml").write_text(json.dumps(run), encoding="utf-8")
        container = {
            "name": "round",
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": memory}},
            "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
            "envFrom": [{"configMapRef": {"name": "sparring-store"}}, {"secretRef": {"name": secret}}],
        }
        volume = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
        pod = {"template": {"spec": {"containers": [container], "volumes": [volume]}}, "backoffLimit": again}
        job = {"schedule": schedule, "suspend": suspend, "jobTemplate": {"spec": pod}}
        patch = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "sparring-round"}, "spec": job}
        endpoint = "AWS_ENDPOINT_URL=http://sparring-store.sparring-store:8333"
        overlay(
            self.folder,
            "overlays/cronjob",
            namespace="sparring",
            images=images({"localhost/sparring-control": CONTROL, "localhost/sparring-train": TRAIN}),
            configMapGenerator=[
                {"name": "sparring-run", "behavior": "replace", "files": ["sparring.yaml"]},
                {"name": "sparring-store", "behavior": "merge", "literals": [endpoint]},
            ],
            patches=[{"patch": json.dumps(patch)}],
        )
        apply(self.kubectl, self.folder)

    def start(self, name: str) -> None:
        """A job of the CronJob, out of turn."""
        self.kubectl(*HERE, "create", "job", name, "--from=cronjob/sparring-round")

    def end(self, job: str, seconds: float = SECONDS) -> str:
        """`Complete` or `Failed`, when it has come to that."""

        def look() -> str:
            found = self.get(f"job/{job}")["status"].get("conditions", [])
            return next((one["type"] for one in found if one["type"] in ("Complete", "Failed")), "")

        return str(until(f"end of job {job}", seconds, look))

    def jobs(self) -> list[dict[str, Any]]:
        """Jobs that the CronJob itself made."""
        found: list[dict[str, Any]] = self.get("jobs")["items"]
        return [job for job in found if job["metadata"].get("ownerReferences")]

    def pods(self, job: str) -> list[dict[str, Any]]:
        """Its pods, the oldest first."""
        found: list[dict[str, Any]] = self.get("pods", "-l", f"batch.kubernetes.io/job-name={job}")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def log(self, job: str) -> str:
        """What its last pod printed."""
        name = self.pods(job)[-1]["metadata"]["name"]
        return self.kubectl(*HERE, "logs", f"pod/{name}")

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl(*HERE, "get", *what, "-o", "json"))

    def state(self) -> dict[str, Any]:
        """What the store says of the last round, read by the exporter's pod with the exporter's key."""
        found: dict[str, Any] = json.loads(self.inside(_STATE))
        return found

    def metrics(self) -> str:
        """A scrape."""
        return self.inside(
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
        )

    def inside(self, code: str) -> str:
        return self.kubectl(*HERE, "exec", "deploy/sparring-exporter", "--", "python", "-c", code)


@contextmanager
def installed(kubectl: Kubectl, folder: Path) -> Iterator[Installed]:
    """Store, keys, bucket, models, and the overlay with nothing running: docs/operate.md, step by step."""
    store = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "sparring-store"},
             "spec": {"resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    small = overlay(
        folder / "store", "store", namespace="sparring-store", patches=[{"patch": json.dumps(store)}],
        images=images({"docker.io/chrislusf/seaweedfs": SEAWEEDFS}),
    )  # fmt: skip
    found = Installed(kubectl, folder / "cronjob")
    apply(kubectl, small)
    found.settings(run())
    made = [sys.executable, str(MANIFESTS / "store-access" / "rights.py"), "seaweedfs", PLACE]
    kubectl("apply", "-f", "-", text=subprocess.run(made, capture_output=True, text=True, check=True).stdout)
    where = ("--namespace", "sparring-store")
    kubectl(*where, "rollout", "status", "deploy/sparring-store", "--timeout=180s")
    kubectl(
        *where, "exec", "-i", "deploy/sparring-store", "--", "weed", "shell", text="s3.bucket.create -name sparring\n"
    )
    _models(kubectl, folder / "models")
    kubectl(*HERE, "rollout", "status", "deploy/sparring-exporter", "--timeout=180s")
    yield found


def run(**changes: Any) -> dict[str, Any]:
    """The run file of a small round."""
    data = {"harmful": ["/models/harmful.jsonl"], "benign": ["/models/benign.jsonl"]}
    return {"store": f"s3://{PLACE}", **SMALL, "model": {"source": "/models/base"}, "data": data, **changes}


def _models(kubectl: Kubectl, folder: Path) -> None:
    """Models and seeds on the claim `models`, put there through a pod."""
    memory = Memory()
    memory.save(folder / "base", refuses(memory, harmful=0.05, benign=0.0))
    memory.save(folder / "first", refuses(memory, harmful=0.5, benign=0.05))
    for kind, rows in (("harmful", starter.harmful("train")), ("benign", starter.benign("plain", "train"))):
        lines = [json.dumps({"prompt": row.prompt}) for row in rows[:80]]
        (folder / f"{kind}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"},
             "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    kubectl(*HERE, "apply", "-f", "-", text=json.dumps(claim))
    kubectl(*HERE, "apply", "-f", "-", text=json.dumps(_loader()))
    kubectl(*HERE, "wait", "pod/loader", "--for=condition=Ready", "--timeout=180s")
    kubectl(*HERE, "cp", f"{folder}/.", "sparring/loader:/models")
    kubectl(*HERE, "delete", "pod/loader", "--grace-period=1", "--wait=true")


def _loader() -> dict[str, Any]:
    closed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "loader", "image": CONTROL, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"],
        "securityContext": closed, "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }  # fmt: skip
    own = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    spec = {"containers": [container], "volumes": volumes, "securityContext": own, "restartPolicy": "Never",
            "automountServiceAccountToken": False}  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loader"}, "spec": spec}
