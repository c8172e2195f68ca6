"""Would any node ever take a pod? Pure: compares what a step asks for with what nodes offer when they are empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from sparring.config.cluster import PodConfig, Toleration


@dataclass(frozen=True)
class Taint:
    """As on a node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Node:
    """A node that takes new pods. `allocatable`: resource → quantity as Kubernetes writes it."""

    name: str
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    allocatable: dict[str, str]


def obstacle(pod: PodConfig, node: Node) -> str | None:
    """Why the node would never take the pod, None when it would once it is empty."""
    return next(_obstacles(pod, node), None)


def _obstacles(pod: PodConfig, node: Node) -> Iterator[str]:
    for key, value in pod.node_selector.items():
        if node.labels.get(key) != value:
            yield f"is not labelled {key}={value}"
    for taint in node.taints:
        if taint.effect != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in pod.tolerations):
            yield f"has the taint {taint.key}:{taint.effect}"
    for resource, asked in requests(pod).items():
        offered = node.allocatable.get(resource, "0")
        if Decimal(parse_quantity(asked)) > Decimal(parse_quantity(offered)):
            yield f"offers {resource} {offered} of {asked}"


def requests(pod: PodConfig) -> dict[str, str]:
    """What a pod asks of its node: resource → quantity."""
    own = {pod.accelerator: str(pod.accelerators)} if pod.accelerator else {}
    return {"cpu": pod.cpu, "memory": pod.memory, **own}


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect is not None and toleration.effect != taint.effect:
        return False
    if toleration.key is None:
        return True
    return toleration.key == taint.key and (toleration.operator == "Exists" or (toleration.value or "") == taint.value)
