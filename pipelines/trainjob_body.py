"""The TrainJob of a round's self-play, as the API server is sent it: a pure function of run file and request."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

from sparring.config.cluster import ClusterConfig, PodConfig
from sparring.monitor.ledger import RUN_VARIABLE
from sparring.steps.entry import RunRequest
from sparring.steps.work import WORK_VARIABLE

API: Final = {"group": "trainer.kubeflow.org", "version": "v1alpha1"}
NODE: Final = "node"
"""Name of the runtime's replicated job and of its container."""
_MANAGER: Final = "sparring.dev/selfplay"
_QUEUE: Final = "kueue.x-k8s.io/queue-name"
_REQUEST: Final = "sparring.dev/run"
_PART_OF: Final = {"app.kubernetes.io/part-of": "sparring", "app.kubernetes.io/component": "round"}


def job_name(request: RunRequest, number: int) -> str:
    """The job's name: the same for every try of a round, another for every round of every line of every store."""
    digest = hashlib.sha256("\n".join((request.store, request.line, str(number))).encode()).hexdigest()
    return f"sparring-selfplay-{number}-{digest[:10]}"


def body(cluster: ClusterConfig, request: RunRequest, number: int) -> dict[str, Any]:
    """The object. Secrets stand in it by reference."""
    pod, trainjob = cluster.pod("selfplay"), cluster.trainjob
    queue = {_QUEUE: trainjob.queue} if trainjob.queue else {}
    command = ["python", "-m", "pipelines.trainjob", request.model_dump_json(), str(number)]
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": API["group"], "kind": "TrainingRuntime", "name": trainjob.runtime},
        "activeDeadlineSeconds": pod.timeout_s,
        "trainer": {
            "image": cluster.images.train,
            "command": command,
            "numNodes": 1,
            "env": _environment(cluster),
            "resourcesPerNode": _resources(pod),
        },
    }
    if patch := _patch(cluster, pod):
        spec["runtimePatches"] = [{"manager": _MANAGER, "trainingRuntimeSpec": {"template": {"spec": patch}}}]
    return {
        "apiVersion": f"{API['group']}/{API['version']}",
        "kind": "TrainJob",
        "metadata": {
            "name": job_name(request, number),
            "labels": {**_PART_OF, **queue},
            "annotations": {_REQUEST: request.model_dump_json()},
        },
        "spec": spec,
    }


def _environment(cluster: ClusterConfig) -> list[dict[str, Any]]:
    """What `pods.shape` gives a pod of Kubeflow Pipelines: plain values, the run's id, secrets by reference.

    Each name once: a secret wins over a plain value.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"value": value}
        for name, value in {"HOME": "/tmp", WORK_VARIABLE: "/tmp/sparring", **cluster.env}.items()
    }
    if run := os.environ.get(RUN_VARIABLE):
        found[RUN_VARIABLE] = {"value": run}
    for name, keys in cluster.secrets_of("selfplay").items():
        for key, variable in keys.items():
            found[variable] = {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
    return [{"name": name, **given} for name, given in found.items()]


def _resources(pod: PodConfig) -> dict[str, dict[str, str]]:
    gpus = {pod.accelerator: str(pod.accelerators)} if pod.accelerator else {}
    limit = {"cpu": pod.cpu_limit} if pod.cpu_limit else {}
    return {
        "requests": {"cpu": pod.cpu, "memory": pod.memory, **gpus},
        "limits": {**limit, "memory": pod.memory, **gpus},
    }


def _patch(cluster: ClusterConfig, pod: PodConfig) -> dict[str, Any] | None:
    """What the runtime's pod is given on top of its own: place, pull secrets, claims, labels. None for nothing."""
    container: dict[str, Any] = {
        "volumeMounts": [{"name": claim, "mountPath": folder} for claim, folder in cluster.claims.items()],
    }
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in cluster.claims]
    group = {} if cluster.run_as_group is None else {"runAsGroup": cluster.run_as_group}
    spec = {
        "serviceAccountName": cluster.service_account,
        "securityContext": {"runAsNonRoot": True, "runAsUser": cluster.run_as_user, **group} if _other(cluster) else {},
        "imagePullSecrets": [{"name": name} for name in cluster.images.pull_secrets],
        "nodeSelector": pod.node_selector,
        "tolerations": [one.model_dump(exclude_none=True) for one in pod.tolerations],
        "volumes": volumes,
        "containers": [{"name": NODE, **container}] if volumes else [],
    }
    metadata = {"labels": pod.labels, "annotations": pod.annotations}
    template = {
        key: kept
        for key, part in (("metadata", metadata), ("spec", spec))
        if (kept := {name: value for name, value in part.items() if value})
    }
    return {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": template}}}]} if template else None


def _other(cluster: ClusterConfig) -> bool:
    """Whether the user is another than the runtime's."""
    return cluster.run_as_user != 10001 or cluster.run_as_group is not None
