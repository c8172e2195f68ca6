"""Kubernetes objects of the repository: as files, and as `kubectl kustomize` renders an overlay."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("laptop", "gpu", "multi-user", "cronjob")
COMPONENTS = tuple(sorted(path.parent.name for path in (MANIFESTS / "components").glob("*/kustomization.yaml")))
Object = dict[str, Any]


def kubectl() -> str:
    """The program that renders; skips where there is none."""
    found = shutil.which(os.environ.get("KUBECTL", "kubectl"))
    if found is None:
        pytest.skip("no kubectl on the PATH: name one in $KUBECTL (../shared/cluster has one)")
    return found


@cache
def rendered(folder: Path) -> tuple[Object, ...]:
    """What is applied. Fails with kustomize's own words."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(item for item in yaml.safe_load_all(done.stdout) if item)


def documents() -> Iterator[tuple[Path, Object]]:
    """Every object as it stands in a file, patches left out."""
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if isinstance(item, dict) and "kind" in item and "metadata" in item:
                yield path, item


def pods(item: Object) -> Iterator[Object]:
    """The pod specifications in an object, at whatever depth: a Deployment's, a CronJob's, a TrainingRuntime's."""
    if isinstance(item.get("containers"), list):
        yield item
    for value in item.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from pods(part)


def named(objects: tuple[Object, ...], kind: str) -> dict[tuple[str, str], Object]:
    """Objects of a kind by namespace and name."""
    return {
        (item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
        for item in objects
        if item["kind"] == kind
    }
