"""What Kubernetes is asked: does a thing exist, how large are the nodes, why did a pod not run, what did it print."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from pipelines.capacity import Node, Taint
from sparring.errors import ClusterError

TIMEOUT: Final = (5, 20)
_WORKFLOWS: Final = ("argoproj.io", "v1alpha1")
_RUNTIMES: Final = ("trainer.kubeflow.org", "v1alpha1", "trainingruntimes")


class ForbiddenError(ClusterError):
    """We may not look at this kind of thing."""


@dataclass(frozen=True)
class Pod:
    """One pod of a run. `trouble` says why it does not run, "" while it does or may yet."""

    name: str
    phase: str
    trouble: str


class Kube:
    """One namespace of the cluster that the kubeconfig, or the pod we run in, points at."""

    def __init__(self, namespace: str) -> None:
        """Raises ClusterError without a kubeconfig."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except ConfigException:
            try:
                config.load_kube_config(client_configuration=settings)
            except (ConfigException, OSError) as error:
                raise ClusterError(f"no kubeconfig: {error}") from error
            except (YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
                # the file's text is not told: it holds credentials
                hint = "see $KUBECONFIG or ~/.kube/config"
                raise ClusterError(f"the kubeconfig cannot be read ({type(error).__name__})", hint=hint) from error
        settings.retries = False
        self.namespace = namespace
        self._core = client.CoreV1Api(client.ApiClient(settings))
        self._discovery = client.DiscoveryV1Api(self._core.api_client)
        self._custom = client.CustomObjectsApi(self._core.api_client)

    def has_namespace(self) -> bool:
        """Whether our namespace is there."""
        return self._find("namespace", self.namespace, self._core.read_namespace, self.namespace) is not None

    def has_service_account(self, name: str) -> bool:
        """Whether it is in our namespace."""
        return self._in_namespace("service account", name, self._core.read_namespaced_service_account) is not None

    def secret_keys(self, name: str) -> frozenset[str] | None:
        """Its keys, None when there is no such secret. Its values are thrown away."""
        found = self._in_namespace("secret", name, self._core.read_namespaced_secret)
        return None if found is None else frozenset(found.data or {})

    def claim_phase(self, name: str) -> str | None:
        """`Bound`, `Pending` or `Lost`; None when there is no such claim."""
        found = self._in_namespace("claim", name, self._core.read_namespaced_persistent_volume_claim)
        return None if found is None else str(found.status.phase)

    def has_training_runtime(self, name: str) -> bool:
        """Whether Kubeflow Trainer is installed and has a runtime of that name in our namespace."""
        read, where = self._custom.get_namespaced_custom_object, (*_RUNTIMES[:2], self.namespace, _RUNTIMES[2], name)
        return self._find("TrainingRuntime", name, read, *where) is not None

    def service_is_ready(self, name: str, namespace: str) -> bool:
        """Whether a Service of that name has an address that is ready."""
        with self._asking(f"endpoints of service {name!r}"):
            found = self._discovery.list_namespaced_endpoint_slice(
                namespace, label_selector=f"kubernetes.io/service-name={name}", _request_timeout=TIMEOUT
            )
        return any(end.conditions.ready for one in found.items for end in one.endpoints or ())

    def nodes(self) -> list[Node]:
        """All nodes that take new pods."""
        with self._asking("nodes"):
            found = self._core.list_node(_request_timeout=TIMEOUT).items
        ready = [node for node in found if not node.spec.unschedulable and _is_ready(node)]
        return [_node(node) for node in ready]

    def pods(self, label: str) -> list[Pod]:
        """Pods with a label `key=value`, oldest first."""
        with self._asking("pods"):
            found = self._core.list_namespaced_pod(self.namespace, label_selector=label, _request_timeout=TIMEOUT).items
        found.sort(key=lambda pod: pod.metadata.creation_timestamp)
        return [Pod(pod.metadata.name, str(pod.status.phase), _trouble(pod.status)) for pod in found]

    def last_lines(self, pod: str, lines: int, container: str = "main") -> list[str]:
        """What a pod's container printed last, as one text; nothing when it has not started or is gone."""
        try:
            with self._asking(f"log of pod {pod!r}"):
                read = self._core.read_namespaced_pod_log
                return [str(read(pod, self.namespace, container=container, tail_lines=lines, _request_timeout=TIMEOUT))]
        except ForbiddenError:
            raise
        except ClusterError:
            return []

    def workflow_nodes(self, label: str) -> list[dict[str, Any]]:
        """Nodes of the Argo workflows with that label: `displayName`, `type`, `phase`, `message`, `id`."""
        with self._asking("workflows"):
            found = self._custom.list_namespaced_custom_object(
                *_WORKFLOWS, self.namespace, "workflows", label_selector=label, _request_timeout=TIMEOUT
            )
        return [node for flow in found["items"] for node in flow.get("status", {}).get("nodes", {}).values()]

    def _in_namespace(self, kind: str, name: str, read: Any) -> Any:
        return self._find(kind, name, read, name, self.namespace)

    def _find(self, kind: str, name: str, read: Any, *where: str) -> Any:
        """The object, None when there is none."""
        with self._asking(f"{kind} {name!r}"):
            try:
                return read(*where, _request_timeout=TIMEOUT)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            if error.status in (401, 403):
                raise ForbiddenError(f"{what}: no right to look ({error.status})") from error
            raise ClusterError(f"Kubernetes, asked for {what}: {error.status} {error.reason}") from error
        except HTTPError as error:
            raise ClusterError(f"Kubernetes cannot be reached: {' '.join(str(error).split())}") from error


def _is_ready(node: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in node.status.conditions or ())


def _node(node: Any) -> Node:
    taints = tuple(Taint(one.key, one.value or "", one.effect) for one in node.spec.taints or ())
    return Node(node.metadata.name, dict(node.metadata.labels or {}), taints, dict(node.status.allocatable))


def _trouble(status: Any) -> str:
    """Why a pod failed, or is not running and may stay so: unschedulable, no image, no secret, not allowed."""
    for one in status.conditions or ():
        if one.type == "PodScheduled" and one.status == "False":
            return f"{one.reason}: {one.message}"
    states = [one.state for one in [*(status.init_container_statuses or ()), *(status.container_statuses or ())]]
    for waiting in (state.waiting for state in states if state and state.waiting):
        if waiting.reason not in (None, "PodInitializing", "ContainerCreating"):
            return f"{waiting.reason}: {waiting.message or ''}".rstrip(": ")
    if status.phase != "Failed":
        return ""
    ended = [state.terminated for state in states if state and state.terminated and state.terminated.exit_code]
    return str(status.message or status.reason or "") or ", ".join(
        f"{one.reason} (exit {one.exit_code})" for one in ended
    )
