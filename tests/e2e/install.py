"""Puts overlays on the cluster for tests and takes them away again, touching nothing that was there before."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Kubectl
from tests.manifests.objects import MANIFESTS

CRDS = Path(__file__).parent / "crds"
OURS = ("sparring", "sparring-store")
CONTROL = os.environ.get("SPARRING_CONTROL_IMAGE", "localhost/sparring-control:dev")
TRAIN = os.environ.get("SPARRING_TRAIN_IMAGE", "localhost/sparring-train:dev")
SEAWEEDFS = os.environ.get("SPARRING_SEAWEEDFS_IMAGE", "localhost/sparring-e2e-seaweedfs:4.48")


@contextlib.contextmanager
def custom_kinds(kubectl: Kubectl) -> Iterator[None]:
    """The kinds of Kubeflow, Kueue and the Prometheus operator: the cluster's own, or else small ones of ours."""
    made = []
    for path in sorted(CRDS.glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if not kubectl("get", "crd", crd["metadata"]["name"], "--ignore-not-found"):
                kubectl("apply", "--server-side", "--validate=strict", "-f", "-", text=json.dumps(crd))
                made.append(f"crd/{crd['metadata']['name']}")
    try:
        if made:
            kubectl("wait", "--for=condition=Established", "--timeout=60s", *made)
        yield
    finally:
        if made:
            kubectl("delete", "--wait=true", *made)


@contextlib.contextmanager
def namespaces(kubectl: Kubectl, *names: str) -> Iterator[None]:
    """Namespaces that an overlay expects and does not bring; those that were there stay."""
    made = [name for name in names if not kubectl("get", "namespace", name, "--ignore-not-found")]
    for name in made:
        kubectl("create", "namespace", name)
    try:
        yield
    finally:
        for name in made:
            kubectl("delete", "namespace", name, "--wait=true", "--timeout=120s")


@contextlib.contextmanager
def alone(kubectl: Kubectl) -> Iterator[None]:
    """Fails where a sparring is installed, which the tests would ruin; leaves none behind."""
    there = [name for name in OURS if kubectl("get", "namespace", name, "--ignore-not-found")]
    if there:
        pytest.fail(f"namespace {there[0]} is on this cluster already: these tests want one without a sparring")
    try:
        yield
    finally:
        kubectl("delete", "namespace", *OURS, "--ignore-not-found", "--wait=true", "--timeout=180s")


def apply(kubectl: Kubectl, folder: Path) -> str:
    """What a user types, and strict: an unknown or a repeated field is an error."""
    return kubectl("apply", "-k", str(folder), "--server-side", "--validate=strict")


def overlay(folder: Path, base: str, **parts: Any) -> Path:
    """A user's overlay over one of ours: `parts` are its other fields, in kustomize's words."""
    folder.mkdir(parents=True, exist_ok=True)
    up = Path(*[".."] * (len(folder.resolve().parts) - 1))
    body = {"resources": [str(up / (MANIFESTS / base).relative_to("/"))], **parts}
    (folder / "kustomization.yaml").write_text(json.dumps(body), encoding="utf-8")
    return folder


def images(replaced: dict[str, str]) -> list[dict[str, str]]:
    """The `images` of an overlay: name → image with its tag."""
    parts = {name: image.rpartition(":") for name, image in replaced.items()}
    return [{"name": name, "newName": image, "newTag": tag} for name, (image, _, tag) in parts.items()]


def until(what: str, seconds: float, look: Callable[[], Any], pause: float = 2.0) -> Any:
    """The first thing that `look` finds; fails when it finds nothing in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(pause)
    pytest.fail(f"{what}: not in {seconds:.0f} seconds")
