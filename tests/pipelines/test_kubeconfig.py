"""A kubeconfig that is none ends in one line, which does not tell what stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.kube import Kube
from sparring.errors import ClusterError


@pytest.mark.parametrize(
    "text",
    [
        "current-context: [x\ntoken: geheim",
        "geheim",
        "[geheim]",
        "current-context: x\ncontexts: geheim",
        "current-context: x\ncontexts: [{name: x, context: geheim}]",
        "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: 7\nusers: geheim",
        "\x00geheim",
        "",
    ],
)
def test_what_is_no_kubeconfig(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(ClusterError) as told:
        Kube("team")
    assert "kubeconfig" in told.value.message and "\n" not in told.value.message
    assert "geheim" not in told.value.message
