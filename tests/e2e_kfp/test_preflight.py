"""Preflight on a real Kubernetes: what is not there is named, and nodes are judged as the scheduler judges them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.capacity import obstacle
from pipelines.kube import Kube
from pipelines.preflight import from_kubernetes
from sparring.config.cluster import ClusterConfig, PodConfig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAUSE = "localhost/pause:1"


@pytest.fixture(scope="module")
def namespace(kubernetes_core: Any) -> Iterator[str]:
    name = f"sparring-preflight-{secrets.token_hex(3)}"
    kubernetes_core.create_namespace({"metadata": {"name": name}})
    metadata: dict[str, Any] = {"metadata": {"name": "there"}}
    kubernetes_core.create_namespaced_secret(name, {**metadata, "stringData": {"id": "x"}})
    kubernetes_core.create_namespaced_service_account(name, metadata)
    volume = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    kubernetes_core.create_namespaced_persistent_volume_claim(name, {**metadata, "spec": volume})
    yield name
    kubernetes_core.delete_namespace(name)


def missing(**cluster: Any) -> list[str]:
    config = ClusterConfig.model_validate(
        {"control": {"cpu": "10m"}, "train": {"cpu": "10m", "memory": "1Gi"}, **cluster}
    )
    return [str(finding) for finding in from_kubernetes(config, Kube(config.namespace))]


def test_what_is_there_is_not_missing(namespace: str) -> None:
    there = {"secrets": {"there": {"id": "ID"}}, "claims": {"there": "/data"}, "service_account": "there"}
    assert missing(namespace=namespace, **there) == []


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"secrets": {"absent": {"id": "ID"}}}, "secret 'absent' in"),
        ({"secrets": {"there": {"key": "KEY"}}}, "key 'key' in secret 'there'"),
        ({"steps": {"promote": {"secrets": {"absent": {"id": "ID"}}}}}, "secret 'absent' in"),
        ({"images": {"pull_secrets": ["absent"]}}, "secret 'absent' in"),
        ({"claims": {"absent": "/data"}}, "claim 'absent' in"),
        ({"service_account": "absent"}, "service account 'absent' in"),
        ({"train": {"memory": "900Gi"}}, "node that can hold the pod of selfplay: "),
        ({"steps": {"answer": {"accelerator": "example.com/gpu", "accelerators": 1}}}, "example.com/gpu 0 of 1"),
        ({"control": {"node_selector": {"no": "such"}}}, "is not labelled no=such"),
    ],
)
def test_what_is_not_there_is_one_line(namespace: str, cluster: dict[str, Any], words: str) -> None:
    (line,) = missing(namespace=namespace, **cluster)
    assert line.startswith("missing: ") and words in line and "\n" not in line


def test_an_absent_namespace_is_named() -> None:
    assert any("namespace 'no-such-namespace'" in line for line in missing(namespace="no-such-namespace"))


@pytest.mark.parametrize(
    ("pod", "fits"),
    [
        ({"cpu": "1m", "memory": "4Mi"}, True),
        ({"cpu": "1m", "memory": "4000k"}, True),
        ({"cpu": "512", "memory": "4Mi"}, False),
        ({"cpu": "1m", "memory": "9Ti"}, False),
        ({"cpu": "1m", "memory": "4Mi", "accelerator": "example.com/gpu", "accelerators": 1}, False),
        ({"cpu": "1m", "memory": "4Mi", "node_selector": {"kubernetes.io/os": "linux"}}, True),
        ({"cpu": "1m", "memory": "4Mi", "node_selector": {"kubernetes.io/os": "plan9"}}, False),
    ],
)
def test_the_scheduler_agrees(kubernetes_core: Any, namespace: str, pod: dict[str, Any], fits: bool) -> None:
    settings = PodConfig.model_validate(pod)
    assert any(obstacle(settings, node) is None for node in Kube(namespace).nodes()) is fits
    assert is_scheduled(kubernetes_core, namespace, settings) is fits


def is_scheduled(core: Any, namespace: str, pod: PodConfig) -> bool:
    """What the real scheduler says of a pod with those requests."""
    asked = {"cpu": pod.cpu, "memory": pod.memory}
    own = {pod.accelerator: pod.accelerators} if pod.accelerator else {}
    container = {"name": "main", "image": PAUSE, "resources": {"requests": asked | own, "limits": own}}
    spec = {"containers": [container], "nodeSelector": pod.node_selector, "terminationGracePeriodSeconds": 0}
    made = core.create_namespaced_pod(namespace, {"metadata": {"generateName": "asked-"}, "spec": spec}).metadata.name
    try:
        for _ in range(120):
            for one in core.read_namespaced_pod(made, namespace).status.conditions or ():
                if one.type == "PodScheduled":
                    return bool(one.status == "True")
            time.sleep(0.25)
        pytest.fail("the scheduler said nothing in 30 s")
    finally:
        core.delete_namespaced_pod(made, namespace, grace_period_seconds=0)
