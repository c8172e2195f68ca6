"""Every overlay is applied with the server's strict validation, may do what it should and no more, and goes again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Kubectl
from tests.e2e.install import alone, custom_kinds, namespaces, overlay
from tests.manifests.objects import MANIFESTS, OVERLAYS, pods, rendered

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SYSTEM = ("kubeflow", "team-a")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RESOURCES = (
    ("", "pods"), ("", "pods/log"), ("", "pods/exec"), ("", "pods/ephemeralcontainers"), ("", "secrets"),
    ("", "configmaps"), ("", "services"), ("", "endpoints"), ("", "serviceaccounts"), ("", "serviceaccounts/token"),
    ("", "persistentvolumeclaims"), ("", "events"), ("", "namespaces"), ("", "nodes"), ("", "persistentvolumes"),
    ("apps", "deployments"), ("apps", "daemonsets"), ("batch", "jobs"), ("batch", "cronjobs"),
    ("networking.k8s.io", "networkpolicies"), ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"), ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("argoproj.io", "workflows"), ("argoproj.io", "workflowtaskresults"), ("pipelines.kubeflow.org", "pipelines"),
    ("trainer.kubeflow.org", "trainjobs"), ("trainer.kubeflow.org", "trainingruntimes"),
    ("kueue.x-k8s.io", "localqueues"), ("serving.kserve.io", "inferenceservices"),
    ("monitoring.coreos.com", "prometheusrules"), ("apiextensions.k8s.io", "customresourcedefinitions"),
)  # fmt: skip
Rule = tuple[str, str, str, str]
"""Verb, group, resource, name ("" when none is asked for)."""

KUBEFLOW: set[Rule] = {
    ("create", "argoproj.io", "workflowtaskresults", ""), ("patch", "argoproj.io", "workflowtaskresults", ""),
    ("get", "", "configmaps", "kfp-launcher"), ("get", "", "secrets", "mlpipeline-minio-artifact"),
}  # fmt: skip
TRAINER: set[Rule] = {
    *((verb, "trainer.kubeflow.org", "trainjobs", "") for verb in ("create", "get", "delete")),
    ("get", "trainer.kubeflow.org", "trainingruntimes", "sparring-selfplay"),
    ("list", "", "pods", ""), ("get", "", "pods/log", ""),
}  # fmt: skip
SERVING: set[Rule] = {
    (verb, "serving.kserve.io", "inferenceservices", "sparring-champion") for verb in ("get", "patch")
}
NAMES = sorted({rule[3] for rule in KUBEFLOW | TRAINER | SERVING} | {"", "sparring-store-promote"})


@pytest.fixture(scope="module")
def kinds(kubectl: Kubectl) -> Iterator[None]:
    with custom_kinds(kubectl), namespaces(kubectl, *SYSTEM), alone(kubectl):
        yield


@pytest.mark.parametrize("name", [*OVERLAYS, "store"])
def test_an_overlay_is_applied_and_goes_again(name: str, kubectl: Kubectl, kinds: None) -> None:
    folder = MANIFESTS / ("store" if name == "store" else f"overlays/{name}")
    objects = rendered(folder)
    try:
        first, second = generations(kubectl, folder), generations(kubectl, folder)
        assert len(first) == len(objects) and first == second, "applied twice, it is another thing"
    finally:
        kubectl("delete", "-k", str(folder), "--ignore-not-found", "--wait=true", "--timeout=180s")
    for item in objects:
        place = ["--namespace", item["metadata"]["namespace"]] if "namespace" in item["metadata"] else []
        assert not kubectl("get", item["kind"], item["metadata"]["name"], *place, "--ignore-not-found")


def generations(kubectl: Kubectl, folder: Path) -> dict[tuple[str, str], int]:
    """Applies an overlay: its objects, and how often the specification of each has changed."""
    said = json.loads(kubectl("apply", "-k", str(folder), "--server-side", "--validate=strict", "-o", "json"))
    metas = ((item["kind"], item["metadata"]) for item in said["items"])
    return {(kind, f"{meta.get('namespace')}/{meta['name']}"): meta.get("generation", 0) for kind, meta in metas}


def test_a_misspelt_field_is_refused(kubectl: Kubectl, kinds: None, tmp_path: Path) -> None:
    """The strict validation of the test above can fail: on our kinds as well as on Kubernetes' own."""
    for kind, name, patch in (
        ("CronJob", "sparring-round", {"concurrencyPolicie": "Forbid"}),
        ("InferenceService", "sparring-champion", {"predictor": {"model": {"storageUrl": "s3://a"}}}),
    ):
        base = "overlays/cronjob" if kind == "CronJob" else "overlays/gpu"
        target = {"kind": kind, "name": name}
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": patch}
        folder = overlay(tmp_path / kind, base, patches=[{"target": target, "patch": json.dumps(body)}])
        (wrong,) = [item for item in rendered(folder) if item["kind"] == kind]
        with pytest.raises(AssertionError, match=r"unknown field|field not declared"):
            arguments = ("apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-")
            kubectl(*arguments, text=json.dumps(wrong | {"metadata": {"name": name, "namespace": "kubeflow"}}))


def test_the_training_runtime_is_what_kubeflow_trainer_takes() -> None:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

    text = (MANIFESTS / "components" / "trainer" / "runtime.yaml").read_text(encoding="utf-8")
    runtime = yaml.safe_load(text)
    read = TrainerV1alpha1TrainingRuntime.from_dict(runtime)
    assert read is not None and without_defaults(read.to_dict()) == without_defaults(runtime)


def without_defaults(value: Any) -> Any:
    """Empty maps and lists are what is not there."""
    if isinstance(value, dict):
        return {key: part for key, item in value.items() if (part := without_defaults(item)) not in ({}, [], None)}
    return [without_defaults(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", OVERLAYS)
def test_admission_takes_every_pod_under_the_restricted_profile(name: str, kubectl: Kubectl, kinds: None) -> None:
    """A Deployment is taken whatever its pods are: so the pods themselves are shown to the API server."""
    where = "sparring-e2e-admission"
    with namespaces(kubectl, where):
        kubectl("label", "namespace", where, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
        kubectl("wait", "--for=create", "serviceaccount/default", "-n", where, "--timeout=30s")
        for item in rendered(MANIFESTS / "overlays" / name):
            for pod in pods(item):
                spec = {**pod, "serviceAccountName": "default"}
                body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": where}, "spec": spec}
                kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=json.dumps(body))


# --- who may do what ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(kubectl: Kubectl, kinds: None) -> Iterator[None]:
    """Overlay gpu with the roles of component trainer, so all roles, and nothing that would run."""
    folder = MANIFESTS / "overlays" / "gpu"
    roles = [
        item for item in rendered(folder) if item["kind"] in ("Namespace", "ServiceAccount", "Role", "RoleBinding")
    ]
    more = yaml.safe_load_all((MANIFESTS / "components" / "trainer" / "rights.yaml").read_text(encoding="utf-8"))
    for item in more:
        for here in (item["metadata"], *item.get("subjects", [])):
            here["namespace"] = "kubeflow"
        roles.append(item)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": roles})
    kubectl("apply", "--server-side", "--validate=strict", "-f", "-", text=text)
    yield
    kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=true", "--timeout=180s", text=text)


@pytest.mark.parametrize(
    ("account", "where", "allowed"),
    [
        ("kubeflow:sparring-runner", "kubeflow", KUBEFLOW | TRAINER),
        ("kubeflow:sparring-runner", "sparring", SERVING),
        ("kubeflow:sparring-runner", "default", set[Rule]()),
        ("sparring:sparring-exporter", "sparring", set[Rule]()),
        ("sparring:sparring-judge", "sparring", set[Rule]()),
        ("sparring:sparring-serving", "sparring", set[Rule]()),
    ],
)
def test_an_account_may_do_this_and_nothing_else(
    account: str, where: str, allowed: set[Rule], kubectl: Kubectl, everything: None
) -> None:
    """Every verb on every resource, by name where a role goes by name, asked as `kubectl auth can-i` asks."""
    asked: list[Rule] = [(verb, group, resource, "") for verb in VERBS for group, resource in RESOURCES]
    asked += [("get", "", "secrets", name) for name in NAMES if name]
    asked += [rule for rule in sorted(KUBEFLOW | TRAINER | SERVING) if rule[3]]
    asked += [("patch", "serving.kserve.io", "inferenceservices", "another"), ("impersonate", "", "users", "")]
    asked += [(verb, "rbac.authorization.k8s.io", "roles", "") for verb in ("bind", "escalate")]
    found = {rule for rule, yes in zip(asked, may(kubectl, account, where, asked), strict=True) if yes}
    whole = {rule for rule in allowed if not rule[3]}
    assert {rule for rule in found if not rule[3]} == whole
    assert {rule for rule in found if rule[3] and (*rule[:3], "") not in whole} == {rule for rule in allowed if rule[3]}


def may(kubectl: Kubectl, account: str, where: str, asked: list[Rule]) -> list[bool]:
    """What the API server's authorizers answer to each."""
    place = account.partition(":")[0]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{place}", "system:authenticated"]
    items = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{account}",
                "groups": groups,
                "resourceAttributes": {"namespace": where, "verb": verb, "group": group, "name": name}
                | dict(zip(("resource", "subresource"), resource.split("/"), strict=False)),
            },
        }
        for verb, group, resource, name in asked
    ]
    said = kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed}{'\\n'}", text=json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": items}))  # fmt: skip
    answers = said.split()
    assert len(answers) == len(asked)
    return [answer == "true" for answer in answers]
