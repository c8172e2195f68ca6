"""Compiles the pipeline for a cluster: the very YAML that is uploaded, named by what it holds."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from pipelines.pipeline import make_pipeline
from sparring import __version__
from sparring.config.cluster import ClusterConfig


@dataclass(frozen=True)
class Package:
    """A compiled pipeline. `version` names its content: equal settings of equal releases have one version."""

    name: str
    version: str
    text: str


def package(cluster: ClusterConfig) -> Package:
    """The compiled pipeline of these settings."""
    text = _compile(cluster)
    return Package(cluster.pipeline, f"{__version__}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", text)


def manifest(cluster: ClusterConfig) -> str:
    """The same as Pipeline and PipelineVersion resources, for backends that keep pipelines in Kubernetes."""
    version = package(cluster).version.lower()
    options = KubernetesManifestOptions(
        pipeline_name=cluster.pipeline,
        pipeline_version_name=f"{cluster.pipeline}-{version}",
        pipeline_version_display_name=version,
        namespace=cluster.namespace,
        include_pipeline_manifest=True,
    )
    return _compile(cluster, options)


def _compile(cluster: ClusterConfig, options: KubernetesManifestOptions | None = None) -> str:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp's own deprecations say nothing to our users
        path = Path(folder) / "round.yaml"
        compiler.Compiler().compile(
            make_pipeline(cluster),
            str(path),
            kubernetes_manifest_format=options is not None,
            kubernetes_manifest_options=options,
        )
        return path.read_text(encoding="utf-8")
