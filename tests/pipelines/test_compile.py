"""What is compiled for a cluster: the branch on the single decision, no caching, the exit handler, and every pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.package import package
from sparring.config.cluster import ClusterConfig

ROOT = Path(__file__).parent.parent.parent
STEPS = {"prepare", "selfplay", "update-pool", "answer", "judge", "gate", "promote", "hold", "report"}


RUN_FILE = """
cluster:
  secrets: {store: {id: AWS_ACCESS_KEY_ID, key: AWS_SECRET_ACCESS_KEY}}
  env: {AWS_ENDPOINT_URL: "http://store:8333"}
  claims: {models: /models}
  run_as_user: 12345
  deadline_s: 90000
  keep_s: 86400
  images: {control: "registry.example/control:1", train: "registry.example/train:1", pull_secrets: [registry]}
  train:
    accelerator: nvidia.com/gpu
    accelerators: 2
    memory: 64Gi
    cpu_limit: "8"
    shm: 16Gi
    tmp: 100Gi
    node_selector: {pool: gpu}
    tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]
    labels: {team: safety}
    annotations: {note: "yes"}
  steps:
    gate: {timeout_s: 600, retries: 5}
    answer: {accelerators: 1}
    promote: {secrets: {champion: {id: AWS_ACCESS_KEY_ID, key: AWS_SECRET_ACCESS_KEY}}}
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The pipeline, and what it asks of Kubernetes."""
    return compiled(tmp_path_factory.mktemp("compiled"))


def compiled(folder: Path, *more: str, run_file: str = RUN_FILE) -> list[dict[str, Any]]:
    (folder / "run.yaml").write_text(run_file)
    path = folder / "round.yaml"
    command = [sys.executable, "-m", "pipelines", "compile", "-o", str(path), "-c", str(folder / "run.yaml"), *more]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def spec(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[0]


@pytest.fixture(scope="module")
def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What Kubernetes is asked for, by step."""
    found = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): pod for name, pod in found.items()}


@pytest.fixture(scope="module")
def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def dag(spec: dict[str, Any], component: str) -> dict[str, Any]:
    tasks = spec["components"][component]["dag"]["tasks"]
    assert isinstance(tasks, dict)
    return tasks


def all_tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    return {name: task for one in dags for name, task in one["tasks"].items()}


def test_every_step_is_there_once_and_takes_its_image(containers: dict[str, dict[str, Any]]) -> None:
    train = {"selfplay", "answer", "prepare"}
    wanted = {step: f"registry.example/{'train' if step in train else 'control'}:1" for step in STEPS}
    assert {step: container["image"] for step, container in containers.items()} == wanted


def test_every_pod_has_a_time_limit_a_user_and_a_writable_tmp(pods: dict[str, dict[str, Any]]) -> None:
    assert set(pods) == STEPS
    limits = {step: int(pod["activeDeadlineSeconds"]) for step, pod in pods.items()}
    assert limits == {**dict.fromkeys(STEPS, 3600), "selfplay": 86400, "answer": 86400, "gate": 600}
    for pod in pods.values():
        assert pod["securityContext"] == {"runAsUser": "12345", "runAsNonRoot": True}
        assert "/tmp" in [mount["mountPath"] for mount in pod["emptyDirMounts"]]
        assert [secret["secretName"] for secret in pod["imagePullSecret"]] == ["registry"]
        assert [(claim["constant"], claim["mountPath"]) for claim in pod["pvcMount"]] == [("models", "/models")]


def test_only_pods_with_models_get_the_accelerator_and_its_place(
    pods: dict[str, dict[str, Any]], containers: dict[str, dict[str, Any]]
) -> None:
    placed = {step for step, pod in pods.items() if pod.get("nodeSelector", {}).get("labels") == {"pool": "gpu"}}
    accelerators = {
        step: c["resources"]["accelerator"] for step, c in containers.items() if "accelerator" in c["resources"]
    }
    assert placed == set(accelerators) == {"selfplay", "answer"}
    assert {step: one["resourceCount"] for step, one in accelerators.items()} == {"selfplay": "2", "answer": "1"}
    selfplay = pods["selfplay"]
    assert selfplay["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert selfplay["podMetadata"] == {"labels": {"team": "safety"}, "annotations": {"note": "yes"}}
    mounts = {mount["mountPath"]: mount for mount in selfplay["emptyDirMounts"]}
    assert mounts["/dev/shm"]["medium"] == "Memory" and mounts["/dev/shm"]["sizeLimit"] == "16Gi"
    assert mounts["/tmp"]["sizeLimit"] == "100Gi" and "medium" not in mounts["/tmp"]
    resources = containers["selfplay"]["resources"]
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == "64Gi"
    assert resources["resourceCpuLimit"] == "8" and "resourceCpuLimit" not in containers["gate"]["resources"]


def test_a_step_that_waits_for_a_trainjob_has_a_small_pod(tmp_path: Path) -> None:
    """Of `selfplay` only time limit and retries are left to its own pod; `answer` stays as it is."""
    waiting = RUN_FILE.replace("  deadline_s", "  executor: trainjob\n  deadline_s")
    spec, kubernetes = compiled(tmp_path, run_file=waiting)
    executors = {name.removeprefix("exec-"): one["container"] for name, one in
                 spec["deploymentSpec"]["executors"].items()}  # fmt: skip
    selfplay, gate = executors["selfplay"], executors["gate"]
    assert selfplay["image"] == "registry.example/control:1"
    assert "accelerator" not in selfplay["resources"] and "accelerator" in executors["answer"]["resources"]
    assert selfplay["resources"] == gate["resources"]
    assert {"name": "SPARRING_EXECUTOR", "value": "trainjob"} in selfplay["env"]
    assert not any(one["name"] == "SPARRING_EXECUTOR" for name, container in executors.items() if name != "selfplay"
                   for one in container["env"])  # fmt: skip
    pods = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-selfplay"]["activeDeadlineSeconds"] == "86400"


def test_secrets_are_named_and_never_held(
    pods: dict[str, dict[str, Any]], containers: dict[str, dict[str, Any]]
) -> None:
    wanted = {**dict.fromkeys(STEPS, "store"), "promote": "champion"}
    assert {step: [one["secretName"] for one in pod["secretAsEnv"]] for step, pod in pods.items()} == {
        step: [name] for step, name in wanted.items()
    }
    for container in containers.values():
        plain = {one["name"] for one in container["env"]}
        assert plain == {"HOME", "SPARRING_WORK", "AWS_ENDPOINT_URL"}


def test_a_lost_pod_is_started_again_but_never_the_gate(spec: dict[str, Any]) -> None:
    retries = {name: task["retryPolicy"] for name, task in all_tasks(spec).items() if "retryPolicy" in task}
    assert set(retries) == STEPS - {"gate"}
    assert retries["selfplay"]["maxRetryCount"] == 2 and retries["selfplay"]["backoffFactor"] == 2.0


def test_the_whole_run_has_its_limits(documents: list[dict[str, Any]]) -> None:
    limits = documents[1]["platforms"]["kubernetes"]["pipelineConfig"]
    assert limits == {"activeDeadlineSeconds": 90000, "resourceTtlOnCompletion": 86400}


def test_equal_settings_are_one_version_and_others_another() -> None:
    first = package(ClusterConfig())
    assert package(ClusterConfig()) == first
    assert package(ClusterConfig(run_as_user=1000)).version != first.version


def test_resources_for_gitops_hold_the_same_pipeline(spec: dict[str, Any], tmp_path: Path) -> None:
    pipeline, version = compiled(tmp_path, "--kubernetes-manifest")
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "sparring-round"
    assert version["spec"]["pipelineSpec"] == spec
    assert version["spec"]["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_steps_install_nothing_at_run_time(spec: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"]
    assert not [
        name for name, executor in executors.items() if "pip install" in " ".join(executor["container"]["command"])
    ]


def test_no_task_is_cached(spec: dict[str, Any]) -> None:
    cached = [name for name, task in all_tasks(spec).items() if task.get("cachingOptions", {}).get("enableCache")]
    unset = [name for name in STEPS if "cachingOptions" not in all_tasks(spec)[name]]
    assert not cached and not unset  # an empty mapping is how "off" is written; a missing one means "on"


def test_report_runs_whatever_happened(spec: dict[str, Any]) -> None:
    report = spec["root"]["dag"]["tasks"]["report"]
    assert report["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert report["dependentTasks"] == ["exit-handler-1"]


def test_one_decision_leads_to_promote_and_every_other_word_to_hold(spec: dict[str, Any]) -> None:
    branches = dag(spec, "comp-condition-branches-2")
    conditions = {}
    for task in branches.values():
        (step,) = dag(spec, task["componentRef"]["name"])
        conditions[step] = task["triggerPolicy"]["condition"]
    decision = "inputs.parameter_values['pipelinechannel--gate-Output']"
    assert conditions == {"promote": f"{decision} == 'PROMOTE'", "hold": f"!({decision} == 'PROMOTE')"}


def test_the_decision_is_the_only_output_of_the_gate(spec: dict[str, Any]) -> None:
    outputs = spec["components"]["comp-gate"]["outputDefinitions"]
    assert outputs == {"parameters": {"Output": {"parameterType": "STRING"}}}


def test_order_of_the_work(spec: dict[str, Any]) -> None:
    tasks = dag(spec, "comp-exit-handler-1")
    before = {name: set(task.get("dependentTasks", ())) - {"prepare"} for name, task in tasks.items()}
    assert before == {
        "prepare": set(),
        "selfplay": set(),
        "update-pool": {"selfplay"},
        "answer": {"selfplay"},
        "judge": {"answer"},
        "gate": {"judge", "update-pool"},
        "condition-branches-2": {"gate"},
    }


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("round.txt", "must end in .yaml"),
        ("no/such/round.yaml", "does not exist"),
        ("folder.yaml", "cannot be written: Is a directory"),
    ],
)
def test_wrong_output_is_one_line(output: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    command = [sys.executable, "-m", "pipelines", "compile", "-o", str(tmp_path / output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
