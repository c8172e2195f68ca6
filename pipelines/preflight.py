"""What would otherwise hang or mislead, looked for before anything is submitted. Each finding is one line.

A missing secret or claim, a pod that no node can hold, an image without a registry: Kubeflow shows such a run as
RUNNING for as long as one cares to watch.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pipelines.capacity import obstacle
from pipelines.kube import ForbiddenError, Kube
from sparring.config.cluster import STEP_NAMES, ClusterConfig, Step
from sparring.config.hooks import secrets_of
from sparring.config.judges import EndpointConfig
from sparring.config.run import RunConfig
from sparring.errors import ClusterError, StoreError, UsageError
from sparring.store import open_store
from sparring.store.conditional import check_conditional_puts

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_PROBE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One line. A note only says what could not be looked at."""

    text: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'missing'}: {self.text}"


def preflight(config: RunConfig, say: Callable[[str], None], *, cluster: bool = True) -> None:
    """Looks at everything and says each finding. Raises UsageError when something is missing.

    `cluster`: ask Kubernetes and the judges too; without a kubeconfig that is a finding of its own.
    """
    found = [*from_settings(config), *from_store(config)]
    if cluster:
        found += _asked(config)
    else:
        found.append(Finding("Kubernetes and the judges were not looked at (--no-preflight)", is_note=True))
    for finding in found:
        say(str(finding))
    missing = sum(not finding.is_note for finding in found)
    if missing:
        hint = "mend it, or leave out what asks the cluster and the judges by --no-preflight"
        raise UsageError(f"nothing was submitted: {missing} of the above would hang or fail", hint=hint)


def _asked(config: RunConfig) -> Iterator[Finding]:
    try:
        kube = Kube(config.cluster.namespace)
        yield from from_kubernetes(config.cluster, kube)
        yield from from_judges(config, kube)
    except ClusterError as error:
        yield Finding(error.message)


def from_settings(config: RunConfig) -> Iterator[Finding]:
    """What the run file alone shows: images, paths that pods do not have, credentials that no pod is given."""
    cluster = config.cluster
    for key, image in (("control", cluster.images.control), ("train", cluster.images.train)):
        if trouble := image_trouble(image):
            yield Finding(f"cluster.images.{key} = {image!r} {trouble}")
    for key, path in _paths(config):
        if path.startswith("/") and not any(f"{path}/".startswith(f"{folder}/") for folder in cluster.claims.values()):
            yield Finding(f"{key} = {path!r} is a folder of this machine: no pod has it; use s3:// or cluster.claims")
    yield from _credentials(config)


def image_trouble(image: str) -> str | None:
    """What is wrong with an image's name, None when it can be pulled again later and be the same."""
    name, _, digest = image.partition("@")
    last = name.rpartition("/")[2]
    host = name.partition("/")[0] if "/" in name else ""
    if not ("." in host or ":" in host or host == "localhost"):
        return "names no registry, as in registry.example/sparring:1"
    if digest:
        return None if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else "has a digest that is no sha256"
    tag = last.partition(":")[2]
    return f"has {'the tag latest' if tag else 'no tag'}: name a version or a digest" if tag in ("", "latest") else None


def _paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "store", config.store
    yield "model.source", config.model.source
    yield "candidate", config.candidate or ""
    for key in ("harmful", "benign"):
        yield from ((f"data.{key}", path) for path in getattr(config.data, key))
    yield from ((f"data.suites.{suite.name}", suite.path) for suite in config.data.suites)
    yield from (("gate.first_run", config.gate.first_run), ("gate.policy", config.gate.policy))
    yield "registry.verify_key", config.registry.verify_key or ""


def _credentials(config: RunConfig) -> Iterator[Finding]:
    """Variables that a step reads and its pod does not have."""
    here = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    given = {step: _variables(config.cluster, step) for step in STEP_NAMES}
    if config.store.startswith("s3://"):
        astray = [step for step in STEP_NAMES if here and not given[step] & set(_ENDPOINTS)]
        if astray:
            yield Finding(f"{here} is set here but not for {_pods(astray)}: add it to cluster.env or a secret")
        bare = [step for step in STEP_NAMES if "AWS_ACCESS_KEY_ID" not in given[step]]
        if bare and config.cluster.service_account is None:
            yield Finding(f"{_pods(bare)} have no AWS_ACCESS_KEY_ID and no service account of yours", is_note=True)
    for name, endpoint in _judges(config):
        steps: list[Step] = ["selfplay"] if name == config.judge.reward else []
        steps += ["judge"] if name in config.judge.gate_names else []
        for step in steps:
            for variable in sorted(_secret_variables(endpoint) - given[step]):
                yield Finding(f"the pod of {step} has no {variable}, which judge {name} needs: name a secret with it")
    for hook in config.hooks:
        for variable in sorted({secret.env for secret in secrets_of(hook) if secret.env} - given["report"]):
            yield Finding(f"the pod of report has no {variable}, which hook {hook.name} needs: name a secret with it")


def _pods(steps: list[Step]) -> str:
    return "the pods" if len(steps) == len(STEP_NAMES) else f"the pods of {', '.join(steps)}"


def _variables(cluster: ClusterConfig, step: Step) -> set[str]:
    secrets = cluster.secrets_of(step).values()
    return set(cluster.env) | {variable for keys in secrets for variable in keys.values()}


def _secret_variables(endpoint: EndpointConfig) -> set[str]:
    own = {endpoint.api_key_env} if endpoint.api_key_env else set()
    return own | set(endpoint.headers_env.values())


def _judges(config: RunConfig) -> list[tuple[str, EndpointConfig]]:
    """The endpoints that this run asks."""
    named = {config.judge.reward, *config.judge.gate_names}
    return [(name, endpoint) for name, endpoint in config.judge.endpoints.items() if name in named]


def from_store(config: RunConfig) -> Iterator[Finding]:
    """Whether the store can be reached and written from here, and holds conditional puts."""
    try:
        check_conditional_puts(open_store(config.store).scope(f"lines/{config.line}"))
    except StoreError as error:
        yield Finding(str(error))


def from_kubernetes(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    """What the cluster lacks. Raises ClusterError when it cannot be reached."""
    asked = (_namespace, _service_account, _secrets, _claims, _places, _runtime)
    for question in asked:
        try:
            yield from question(cluster, kube)
        except ForbiddenError as error:
            yield Finding(error.message, is_note=True)


def _namespace(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    if not kube.has_namespace():
        yield Finding(f"namespace {cluster.namespace!r} (cluster.namespace)")


def _service_account(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    name = cluster.service_account
    if name and not kube.has_service_account(name):
        yield Finding(f"service account {name!r} in {cluster.namespace} (cluster.service_account)")


def _secrets(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    wanted: dict[str, set[str]] = {name: set() for name in cluster.images.pull_secrets}
    for step in STEP_NAMES:
        for name, keys in cluster.secrets_of(step).items():
            wanted.setdefault(name, set()).update(keys)
    for name, names in wanted.items():
        found = kube.secret_keys(name)
        if found is None:
            yield Finding(f"secret {name!r} in {cluster.namespace}: kubectl create secret generic {name} …")
        elif lacks := sorted(names - found):
            yield Finding(f"key {lacks[0]!r} in secret {name!r} of {cluster.namespace}")


def _claims(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    for name in cluster.claims:
        phase = kube.claim_phase(name)
        if phase is None:
            yield Finding(f"claim {name!r} in {cluster.namespace} (cluster.claims)")
        elif phase == "Lost":
            yield Finding(f"the volume of claim {name!r} in {cluster.namespace}: it is Lost")


def _runtime(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    name = cluster.trainjob.runtime
    if cluster.executor == "trainjob" and not kube.has_training_runtime(name):
        yield Finding(
            f"TrainingRuntime {name!r} in {cluster.namespace} (cluster.trainjob.runtime): install Kubeflow Trainer and "
            "manifests/components/trainer"
        )


def _places(cluster: ClusterConfig, kube: Kube) -> Iterator[Finding]:
    nodes, said = kube.nodes(), set[str]()
    for step in STEP_NAMES:
        obstacles = {node.name: obstacle(cluster.pod(step), node) for node in nodes}
        if None in obstacles.values():
            continue
        why = "; ".join(f"{name} {text}" for name, text in list(obstacles.items())[:3]) or "none takes pods"
        if why not in said:
            said.add(why)
            yield Finding(f"a node that can hold the pod of {step}: {why} (an autoscaler may yet make one)")


def from_judges(config: RunConfig, kube: Kube) -> Iterator[Finding]:
    """Whether each judge's endpoint answers: from here, or as a Service of the cluster that has ready pods."""
    for name, endpoint in _judges(config):
        host = urlsplit(endpoint.base_url).hostname or ""
        service = host.split(".")
        try:
            inside = not _resolves(host) and (len(service) == 1 or "svc" in service[2:3] or len(service) == 2)
            trouble = _of_service(kube, service) if inside else _probe(endpoint)
        except ForbiddenError as error:
            yield Finding(f"judge {name}: {error.message}", is_note=True)
            continue
        if trouble:
            yield Finding(f"judge {name} at {endpoint.base_url}: {trouble}")


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _of_service(kube: Kube, host: list[str]) -> str | None:
    namespace = host[1] if len(host) > 1 else kube.namespace
    ready = kube.service_is_ready(host[0], namespace)
    return None if ready else f"service {host[0]!r} in {namespace} has no pod that is ready"


def _probe(endpoint: EndpointConfig) -> str | None:
    """None when there is any answer but a server's error: a missing key is the pods' affair."""
    import httpx2

    try:
        status = httpx2.get(f"{endpoint.base_url}/models", timeout=_PROBE_SECONDS).status_code
    except httpx2.HTTPError as error:
        return f"no answer: {type(error).__name__} {error}".rstrip()
    return f"answers {status}" if status >= 500 else None
