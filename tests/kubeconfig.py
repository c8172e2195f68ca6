"""A kubeconfig that names a server of a test's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest


def point_at(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the kubernetes client ask the API server at `url`, as nobody in particular."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    use(config, folder, monkeypatch)


def use(config: Mapping[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the kubernetes client take this configuration: it reads KUBECONFIG once, when it is imported."""
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
