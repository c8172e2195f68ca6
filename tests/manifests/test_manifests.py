"""Manifests as text and as rendered: contained, bounded, complete, and the same as what the run files say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.preflight import from_settings
from sparring import __version__
from sparring.config.cluster import STEP_NAMES
from sparring.config.load import load_run
from tests.manifests.objects import MANIFESTS, OVERLAYS, Object, documents, named, pods, rendered

RIGHTS: dict[str, list[str]] = json.loads((MANIFESTS / "store-access" / "rights.json").read_text())
SECRETS = {f"sparring-store-{name}" for name in RIGHTS} | {"sparring-store-identities"}
"""What store-access/rights.py makes; no overlay brings a secret."""
RUN_FILES = {path.relative_to(MANIFESTS / "overlays").parts[0]: path for path in MANIFESTS.rglob("sparring.yaml")
             if "overlays" in path.parts}  # fmt: skip


def test_no_overlay_is_forgotten() -> None:
    assert {path.name for path in (MANIFESTS / "overlays").iterdir()} == set(OVERLAYS) == set(RUN_FILES)


# --- as they stand in the files -------------------------------------------------------------------------------------


def test_every_pod_suits_the_restricted_profile() -> None:
    found = [(path, pod) for path, item in documents() for pod in pods(item)]
    assert len(found) >= 6
    for path, pod in found:
        assert_restricted(pod, path.name)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "seccompProfile"), None),
        (("hostNetwork",), True),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False),
        (("containers", 0, "securityContext", "capabilities"), {"drop": []}),
        (("containers", 0, "resources", "limits", "memory"), None),
        (("volumes", 0), {"name": "host", "hostPath": {"path": "/"}}),
    ],
)
def test_the_check_of_the_profile_sees_what_is_wrong(place: tuple[Any, ...], value: Any) -> None:
    pod = next(pod for path, item in documents() if path.name == "exporter.yaml" for pod in pods(item))
    spoilt = json.loads(json.dumps(pod))
    at = spoilt
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(AssertionError):
        assert_restricted(spoilt, "spoilt")


def assert_restricted(pod: Object, where: str) -> None:
    """Pod Security's profile *restricted*, a read-only root, and bounds on what it takes."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key, value in pod.items() if value}, where
    own = pod["securityContext"]
    assert own["runAsNonRoot"] is True and own["runAsUser"] > 0, where
    assert (own["seccompProfile"] or {}).get("type") == "RuntimeDefault", where
    assert pod["automountServiceAccountToken"] is False, f"{where}: a token that nothing needs"
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}, (
            where
        )
        assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), (
            f"{where}: {volume['name']} is unbounded"
        )
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True, where
        assert context["capabilities"]["drop"] == ["ALL"] and "add" not in context["capabilities"], where
        assert not context.get("privileged"), where
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where
        assert container["resources"]["limits"]["memory"], where
        assert not container["image"].endswith(":latest"), where
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounted, f"{where}: nothing can be written anywhere"


def test_servers_have_probes_and_a_strategy() -> None:
    servers = [item for _, item in documents() if item["kind"] == "Deployment"]
    assert len(servers) >= 3
    for item in servers:
        (container,) = item["spec"]["template"]["spec"]["containers"]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), item["metadata"]["name"]
        assert item["spec"]["strategy"]["type"] == "Recreate"


def test_nothing_may_read_secrets_at_large_or_use_a_wildcard() -> None:
    roles = [item for _, item in documents() if item["kind"] in ("Role", "ClusterRole")]
    assert roles and not [item for item in roles if item["kind"] == "ClusterRole"]
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert "secrets" not in rule["resources"] or (rule["resourceNames"] and rule["verbs"] == ["get"])


def test_secrets_are_only_a_template() -> None:
    holding = {path.name for path, item in documents() if item["kind"] == "Secret"}
    assert holding == {"secrets.example.yaml"}
    used = [path for path in MANIFESTS.rglob("kustomization.yaml") if "secrets.example" in path.read_text()]
    assert not used
    template = {item["metadata"]["name"]: item for path, item in documents() if item["kind"] == "Secret"}
    assert set(template) <= SECRETS
    assert all(set(item["stringData"].values()) == {"…"} for item in template.values())


def test_a_namespace_of_ours_is_restricted_and_closed() -> None:
    for path, item in documents():
        if item["kind"] == "Namespace":
            assert item["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", path
    (deny,) = [item for _, item in documents() if item["metadata"]["name"] == "sparring-deny-all"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


# --- run files and overlays say the same ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["laptop", "gpu", "multi-user"])
def test_a_run_file_names_what_the_overlay_brings(name: str) -> None:
    config = load_run(RUN_FILES[name])
    assert [str(finding) for finding in from_settings(config) if not finding.is_note] == []
    cluster = config.cluster
    assert cluster.service_account == "sparring-runner"
    for step in STEP_NAMES:
        pod = cluster.pod(step)
        (secret,) = cluster.secrets_of(step)
        wanted = "promote" if step == "hold" else step.replace("_", "-")
        assert secret == f"sparring-store-{wanted}" and secret in SECRETS
        assert pod.labels["app.kubernetes.io/component"] == "round"  # what the network policies go by
        assert pod.tmp, "an unbounded /tmp"
    assert kustomized(name, "sparring-control") == [cluster.images.control]


@pytest.mark.parametrize("name", OVERLAYS)
def test_our_images_have_this_release_as_their_tag(name: str) -> None:
    folder = MANIFESTS / "overlays" / name
    given = [
        image
        for path in folder.rglob("kustomization.yaml")
        for image in yaml.safe_load(path.read_text()).get("images", [])
    ]
    assert given
    assert all(str(image["newTag"]).split("-")[0] == __version__ for image in given), given
    cluster = load_run(RUN_FILES[name]).cluster
    assert all(
        image.rpartition(":")[2].split("-")[0] == __version__
        for image in (cluster.images.control, cluster.images.train)
    )


def kustomized(overlay: str, image: str) -> list[str]:
    """What an overlay makes of an image's name."""
    folder = MANIFESTS / "overlays" / overlay
    images = [
        item
        for path in folder.rglob("kustomization.yaml")
        for item in yaml.safe_load(path.read_text()).get("images", [])
    ]
    return [f"{item['newName']}:{item['newTag']}" for item in images if item["name"] == image]


# --- as rendered ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [*(f"overlays/{name}" for name in OVERLAYS), "store"])
def test_an_overlay_is_complete(folder: str) -> None:
    objects = rendered(MANIFESTS / folder)
    accounts, configs = named(objects, "ServiceAccount"), named(objects, "ConfigMap")
    claims = named(objects, "PersistentVolumeClaim")
    namespaces = {name for _, name in named(objects, "Namespace")} | {"kubeflow", "team-a"}
    for item in objects:
        place = item["metadata"].get("namespace", "")
        assert place in namespaces or item["kind"] == "Namespace", f"{item['kind']} {item['metadata']['name']}"
        for pod in pods(item):
            assert_restricted(pod, item["metadata"]["name"])
            if item["kind"] != "TrainingRuntime":
                assert (place, pod["serviceAccountName"]) in accounts
            here = {("secret", place, one) for one in SECRETS}
            here |= {("config", *key) for key in configs} | {("claim", *key) for key in claims}
            missing = {(kind, place, name) for kind, name in references(pod)} - here
            assert not missing, f"{item['kind']} {item['metadata']['name']} names what is not there"
            assert all(re.search(r":[^:/]+$|@sha256:", one["image"]) for one in pod["containers"]), item["metadata"]


def references(pod: Object) -> list[tuple[str, str]]:
    """Secrets, config maps and claims that a pod needs."""
    found = []
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            found += [("config", source["configMapRef"]["name"])] if "configMapRef" in source else []
            found += [("secret", source["secretRef"]["name"])] if "secretRef" in source else []
    for volume in pod.get("volumes", []):
        found += [("config", volume["configMap"]["name"])] if "configMap" in volume else []
        found += [("secret", volume["secret"]["secretName"])] if "secret" in volume else []
        found += [("claim", volume["persistentVolumeClaim"]["claimName"])] if "persistentVolumeClaim" in volume else []
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_binding_has_its_role_and_its_account(name: str) -> None:
    objects = rendered(MANIFESTS / "overlays" / name)
    accounts, roles = named(objects, "ServiceAccount"), named(objects, "Role")
    for (place, _), binding in named(objects, "RoleBinding").items():
        assert (place, binding["roleRef"]["name"]) in roles
        assert all((one["namespace"], one["name"]) in accounts for one in binding["subjects"])


def test_a_change_of_the_run_file_rolls_what_reads_it() -> None:
    objects = rendered(MANIFESTS / "overlays" / "cronjob")
    (place, name) = next(key for key in named(objects, "ConfigMap") if key[1].startswith("sparring-run-"))
    assert place == "sparring" and re.fullmatch(r"sparring-run-[a-z0-9]{10}", name)
    using = [item["kind"] for item in objects for pod in pods(item) if ("config", name) in references(pod)]
    assert sorted(using) == ["CronJob", "Deployment"]


def test_the_cronjob_plays_one_round_at_a_time_and_not_for_ever() -> None:
    (job,) = named(rendered(MANIFESTS / "overlays" / "cronjob"), "CronJob").values()
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    inner = job["spec"]["jobTemplate"]["spec"]
    assert inner["activeDeadlineSeconds"] > 0 and inner["template"]["spec"]["restartPolicy"] == "Never"


def test_an_uninstall_leaves_the_store() -> None:
    ours = {item["metadata"].get("namespace", item["metadata"]["name"]) for name in OVERLAYS
            for item in rendered(MANIFESTS / "overlays" / name)}  # fmt: skip
    assert "sparring-store" not in ours


def test_every_component_can_stand_beside_every_other(tmp_path: Path) -> None:
    """Those that an overlay has as comments only: they render together, once each."""
    folder = MANIFESTS / "components"
    names = [path.parent.name for path in folder.glob("*/kustomization.yaml") if path.parent.name != "runner"]
    relative = Path(*[".."] * (len(tmp_path.parts) - 1))
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps({
            "namespace": "sparring",
            "resources": [str(relative / (MANIFESTS / "overlays" / "cronjob").relative_to("/"))],
            "components": [str(relative / (folder / name).relative_to("/")) for name in names],
        })
    )  # fmt: skip
    objects = rendered(tmp_path)
    kinds = {item["kind"] for item in objects}
    assert {"InferenceService", "TrainingRuntime", "LocalQueue", "Job"} <= kinds
    assert {one["namespace"] for (_, _), item in named(objects, "RoleBinding").items() for one in item["subjects"]} == {
        "sparring"
    }
