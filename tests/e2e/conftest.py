"""Tests against a real Kubernetes, named by KUBECONFIG; its node has the images (docs/images.md)."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest


class Kubectl(Protocol):
    """Runs kubectl with `arguments`, `text` on its standard input, and returns what it prints."""

    def __call__(self, *arguments: str, text: str = "", check: bool = True) -> str: ...


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    program = shutil.which("kubectl")
    if not os.environ.get("KUBECONFIG") or program is None:
        pytest.skip("no cluster: KUBECONFIG and kubectl on the PATH are needed (../shared/cluster/up starts one)")

    def run(*arguments: str, text: str = "", check: bool = True) -> str:
        done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the module's own under the restricted profile; it goes with all that is in it."""
    name = f"sparring-e2e-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
