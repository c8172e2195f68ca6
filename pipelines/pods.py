"""Gives a compiled task the pod that section `cluster` describes: image, sizes, place, limits, secrets by reference.

A pod suits the *restricted* pod security profile: the platform drops capabilities and escalation, the user is set here.
`/tmp` is the only folder that is written to, and a volume of its own, so that a read-only root file system will do.
"""

from __future__ import annotations

from typing import Any, Final

from kfp import kubernetes

from pipelines.executor import EXECUTOR_VARIABLE
from sparring.config.cluster import ClusterConfig, PodConfig, Step
from sparring.monitor.ledger import RUN_VARIABLE
from sparring.steps.work import WORK_VARIABLE

RUN_LABEL: Final = "pipeline/runid"
"""Label with the run's id that Kubeflow puts on each pod."""
_LONGEST_PAUSE: Final = "600s"


def shape(task: Any, step: Step, cluster: ClusterConfig) -> None:
    """Applies everything to one task. The gate asks for no retry; its decision is claimed once all the same."""
    pod = cluster.kubeflow_pod(step)
    task.set_container_image(cluster.kubeflow_image(step))
    kubernetes.set_image_pull_policy(task, cluster.images.pull_policy)
    if cluster.images.pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.images.pull_secrets)
    _sizes(task, pod)
    _place(task, pod)
    _environment(task, step, cluster)
    _volumes(task, cluster, pod)
    kubernetes.set_security_context(
        task, run_as_user=cluster.run_as_user, run_as_group=cluster.run_as_group, run_as_non_root=True
    )
    kubernetes.set_timeout(task, pod.timeout_s)
    if pod.retries:
        task.set_retry(pod.retries, f"{pod.retry_pause_s}s", 2.0, _LONGEST_PAUSE)


def _sizes(task: Any, pod: PodConfig) -> None:
    task.set_cpu_request(pod.cpu)
    if pod.cpu_limit:
        task.set_cpu_limit(pod.cpu_limit)
    task.set_memory_request(pod.memory)
    task.set_memory_limit(pod.memory)
    if pod.accelerator:
        task.set_accelerator_type(pod.accelerator)
        task.set_accelerator_limit(pod.accelerators)


def _place(task: Any, pod: PodConfig) -> None:
    for key, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    for key, value in pod.labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in pod.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)


def _environment(task: Any, step: Step, cluster: ClusterConfig) -> None:
    executor = {EXECUTOR_VARIABLE: "trainjob"} if cluster.waits(step) else {}
    for name, value in {"HOME": "/tmp", WORK_VARIABLE: "/tmp/sparring", **cluster.env, **executor}.items():
        task.set_env_variable(name, value)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, f"metadata.labels['{RUN_LABEL}']")
    for name, keys in cluster.secrets_of(step).items():
        kubernetes.use_secret_as_env(task, name, keys)


def _volumes(task: Any, cluster: ClusterConfig, pod: PodConfig) -> None:
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=pod.tmp)
    if pod.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=pod.shm)
    for claim, folder in cluster.claims.items():
        kubernetes.mount_pvc(task, claim, folder)
