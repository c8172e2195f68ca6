"""Why a run failed, asked of a real Kubernetes: the pods, their logs, and what Argo wrote of its nodes."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from pipelines.backend import Run
from pipelines.follow import _from_cluster, _node_lines
from pipelines.kube import Kube
from pipelines.pods import RUN_LABEL

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SHELL = "localhost/busybox:1.35"
RAISES = "echo 'Traceback (most recent call last):'; echo 'sparring.errors.DataError: s3://x/y.csv: row 3'; exit 1"


@pytest.fixture(scope="module")
def namespace(kubernetes_core: Any) -> Iterator[str]:
    name = f"sparring-follow-{secrets.token_hex(3)}"
    kubernetes_core.create_namespace({"metadata": {"name": name}})
    yield name
    kubernetes_core.delete_namespace(name)


def pod(core: Any, namespace: str, run: str, script: str, **container: Any) -> None:
    main = {"name": "main", "image": SHELL, "command": ["sh", "-c", script], **container}
    spec = {"containers": [main], "restartPolicy": "Never"}
    metadata = {"generateName": "step-", "labels": {RUN_LABEL: run}}
    core.create_namespaced_pod(namespace, {"metadata": metadata, "spec": spec})


def explained(namespace: str, run: str) -> tuple[int, str, str]:
    """Exit code, line and everything printed."""
    screen = Console(file=io.StringIO(), width=200)
    failed = Run(run, "name", "FAILED", datetime.now(UTC), "", None)
    code, line = _from_cluster(Kube(namespace), failed, screen, "nothing is known", {})
    assert isinstance(screen.file, io.StringIO)
    return code, line, screen.file.getvalue()


def until(check: Callable[[], bool]) -> None:
    for _ in range(120):
        if check():
            return
        time.sleep(0.5)
    pytest.fail("not within a minute")


def test_an_error_of_ours_in_the_log_is_the_line_and_the_code(kubernetes_core: Any, namespace: str) -> None:
    pod(kubernetes_core, namespace, "raises", RAISES)
    kube = Kube(namespace)
    until(lambda: [one.phase for one in kube.pods(f"{RUN_LABEL}=raises")] == ["Failed"])
    code, line, said = explained(namespace, "raises")
    assert (code, line) == (2, "s3://x/y.csv: row 3")
    assert "Traceback" in said


def test_a_pod_without_its_secret_says_so(kubernetes_core: Any, namespace: str) -> None:
    lacking = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "id"}}}]
    pod(kubernetes_core, namespace, "lacks", "true", env=lacking)
    kube = Kube(namespace)
    until(lambda: any(one.trouble for one in kube.pods(f"{RUN_LABEL}=lacks")))
    code, line, said = explained(namespace, "lacks")
    assert code == 1 and line == "nothing is known (Kubeflow: FAILED)"
    assert 'CreateContainerConfigError: secret "no-such-secret" not found' in said


def test_a_pod_out_of_memory_and_one_too_large(kubernetes_core: Any, namespace: str) -> None:
    pod(kubernetes_core, namespace, "large", "true", resources={"requests": {"memory": "900Gi"}})
    kube = Kube(namespace)
    until(lambda: any("Insufficient memory" in one.trouble for one in kube.pods(f"{RUN_LABEL}=large")))
    pod(kubernetes_core, namespace, "oom", "tail /dev/zero", resources={"limits": {"memory": "16Mi"}})
    until(lambda: [one.phase for one in kube.pods(f"{RUN_LABEL}=oom")] == ["Failed"])
    assert "OOMKilled" in explained(namespace, "oom")[2]


def test_a_node_is_told_once_with_its_message() -> None:
    leaf = {"type": "Pod", "phase": "Failed", "displayName": "executor(0)", "message": "OOMKilled\n(exit code 137)"}
    nodes = [leaf, leaf, {**leaf, "type": "Retry"}, {**leaf, "phase": "Succeeded"}]
    assert _node_lines(nodes) == ["node executor: OOMKilled (exit code 137)"]
