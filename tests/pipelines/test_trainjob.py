"""Step selfplay as a TrainJob: what is made, how it is followed, and that nothing of it is left behind."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("kubernetes", reason="needs the extra pipelines")

from pipelines.kube import Kube
from pipelines.preflight import from_kubernetes
from pipelines.trainjob import WAITER, Wait, play_as_job
from pipelines.trainjob_api import _Log
from pipelines.trainjob_body import body, job_name
from sparring.config.cluster import ClusterConfig
from sparring.config.run import RunConfig
from sparring.errors import BusyError, ClusterError
from sparring.registry import lease, rounds
from sparring.steps.entry import RunRequest
from sparring.steps.results import PrepareResult, SelfplayResult
from sparring.store import Store
from tests.e2e.test_apply import without_defaults
from tests.kubeconfig import point_at
from tests.models import save_tiny
from tests.pipelines.test_compile import RUN_FILE
from tests.pipelines.trainer_server import Job, Trainer, run, trainer_server

ROOT = Path(__file__).parents[2]
QUICK = Wait(limit=60.0, poll=0.05, patience=5.0)
REQUEST = RunRequest(store="s3://bucket", line="default", config="c" * 64)
DONE = SelfplayResult(candidate="a" * 64, warm=None, games_key="", curves_key="", games=0, trained_tokens=0)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """An API server that the kubeconfig names."""
    with trainer_server() as found:
        point_at(found.url, tmp_path, monkeypatch)
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="needs the extra train")
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def begun(folder: Path, **settings: Any) -> tuple[str, Store]:
    """A round that has been prepared: the request of its steps, and its store."""
    config = RunConfig.model_validate({"cluster": {"executor": "trainjob", "trainjob": {"queue": "gpu"}}, **settings})
    request = RunRequest(store=str(folder / "store"), line="default", config="")
    store = request.open()
    request = request.model_copy(update={"config": rounds.save_config(store, config)})
    rounds.claim(store, config_digest=request.config, now=datetime.now(UTC))
    prepared = PrepareResult(
        round=1, start="1" * 64, base="1" * 64, champion=None, reference=None, log_head=0, seeds="6" * 64,
        suites="5" * 64, replay="7" * 64, counts={},
    )  # fmt: skip
    rounds.save_result(store, 1, "prepare", prepared)
    return request.model_dump_json(), store


def done(store: Store) -> SelfplayResult | None:
    return rounds.load_result(store, 1, "selfplay", SelfplayResult)


def test_the_job_plays_the_step_and_its_log_is_copied(trainer: Trainer, folder: Path, tmp_path: Path) -> None:
    """The job's own command runs in a process, of a round whose candidate was trained elsewhere."""
    request, store = begun(tmp_path, candidate=str(folder))
    said: list[str] = []
    trainer.plan = run
    play_as_job(request, "1", said.append, QUICK)
    assert (found := done(store)) is not None and len(found.candidate) == 64
    assert said[0] == f"TrainJob {job_name(RunRequest.model_validate_json(request), 1)} in kubeflow, queue gpu: made"
    assert any("selfplay" in line for line in said[1:])
    assert not trainer.jobs
    play_as_job(request, "1", said.append, QUICK)  # done already: no second job
    assert len(trainer.made) == 1


def test_the_component_has_a_job_where_its_environment_asks_for_one(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.selfplay.component import selfplay

    request, store = begun(tmp_path)

    def finish(job: Job) -> None:
        rounds.save_result(store, 1, "selfplay", DONE)
        job.end("Complete")

    trainer.plan = finish
    monkeypatch.setenv("SPARRING_EXECUTOR", "trainjob")
    assert selfplay.python_func(request, "1") == DONE.candidate and len(trainer.made) == 1


def test_what_the_pod_died_of_is_the_step_s_error(trainer: Trainer, tmp_path: Path) -> None:
    def killed(job: Job) -> None:
        job.say("self-play 3/16")
        job.phase, job.terminated = "Failed", {"exitCode": 137, "reason": "OOMKilled"}
        job.end("Failed", "JobsFailed", "jobset failed")

    trainer.plan = killed
    request, store = begun(tmp_path)
    said: list[str] = []
    with pytest.raises(ClusterError, match=r"failed: OOMKilled \(exit 137\): .*self-play 3/16"):
        play_as_job(request, "1", said.append, QUICK)
    assert "self-play 3/16" in said and not trainer.jobs and done(store) is None


def test_a_deadline_is_the_condition_s_word(trainer: Trainer, tmp_path: Path) -> None:
    def late(job: Job) -> None:
        job.phase = ""  # its pod is gone
        job.end("Failed", "DeadlineExceeded", "it was active longer than its deadline")

    trainer.plan = late
    with pytest.raises(ClusterError, match="failed: DeadlineExceeded: it was active longer"):
        play_as_job(begun(tmp_path)[0], "1", lambda _: None, QUICK)


def test_a_job_that_takes_too_long_is_removed_and_why_it_waited_is_said(trainer: Trainer, tmp_path: Path) -> None:
    def queued(job: Job) -> None:
        job.phase = ""
        job.end("Suspended", "Suspended", "TrainJob is suspended")

    trainer.plan = queued
    said: list[str] = []
    with pytest.raises(ClusterError, match=r"longer than 1 s, waiting: Suspended: .*selfplay\.timeout_s"):
        play_as_job(begun(tmp_path)[0], "1", said.append, Wait(limit=1.0, poll=0.05))
    assert [line for line in said if "waits: Suspended" in line] == said[1:]  # once
    assert not trainer.jobs


def test_a_log_decides_nothing(trainer: Trainer, tmp_path: Path) -> None:
    """It cannot be read at all, for longer than the API server may be silent; the job is followed to its end."""
    request, store = begun(tmp_path)

    def silent(job: Job) -> None:
        job.mute = True
        time.sleep(1.0)
        rounds.save_result(store, 1, "selfplay", DONE)
        job.end("Complete")

    trainer.plan = silent
    play_as_job(request, "1", lambda _: None, Wait(limit=60.0, poll=0.05, patience=0.3))


def test_a_pod_may_print_what_it_likes(trainer: Trainer, tmp_path: Path) -> None:
    request, store = begun(tmp_path)

    def odd(job: Job) -> None:
        job.say(b"50 % \xe2\x96")  # half a block of a progress bar
        job.say("and no end", end=b"")
        rounds.save_result(store, 1, "selfplay", DONE)
        job.end("Complete")

    trainer.plan = odd
    said: list[str] = []
    play_as_job(request, "1", said.append, QUICK)
    assert said[1:] == ["50 % \N{REPLACEMENT CHARACTER}", "and no end"]


def test_a_pod_that_died_after_its_result_did_its_work(trainer: Trainer, tmp_path: Path) -> None:
    request, store = begun(tmp_path)

    def late(job: Job) -> None:
        rounds.save_result(store, 1, "selfplay", DONE)
        job.phase, job.terminated = "Failed", {"exitCode": 1, "reason": "Error"}
        job.end("Failed", "JobsFailed")

    trainer.plan = late
    play_as_job(request, "1", lambda _: None, QUICK)
    assert done(store) == DONE and not trainer.jobs


def test_a_job_that_cannot_be_asked_about_is_not_deleted(trainer: Trainer, tmp_path: Path) -> None:
    """A step that is started again finds no API server: the training that is at work goes on."""
    request, _ = begun(tmp_path)
    trainer.add(body(ClusterConfig(), RunRequest.model_validate_json(request), 1))
    trainer.errors += [500] * 1000
    with pytest.raises(ClusterError, match="500"):
        play_as_job(request, "1", lambda _: None, Wait(limit=60.0, poll=0.05, patience=0.5))
    assert len(trainer.jobs) == 1


def test_complete_without_a_result_is_no_success(trainer: Trainer, tmp_path: Path) -> None:
    trainer.plan = lambda job: job.end("Complete")
    with pytest.raises(ClusterError, match="the store has no result"):
        play_as_job(begun(tmp_path)[0], "1", lambda _: None, QUICK)


def test_an_api_server_that_fails_now_and_then_is_asked_again(trainer: Trainer, tmp_path: Path) -> None:
    request, store = begun(tmp_path)

    def unsteady(job: Job) -> None:
        trainer.errors += [500, 503, 500]
        rounds.save_result(store, 1, "selfplay", DONE)
        job.end("Complete")

    trainer.plan = unsteady
    play_as_job(request, "1", lambda _: None, QUICK)
    assert not trainer.jobs and not trainer.errors


def test_what_is_forbidden_is_said_at_once(trainer: Trainer, tmp_path: Path) -> None:
    trainer.errors += [403]
    began = time.monotonic()
    with pytest.raises(ClusterError, match="no right to look"):
        play_as_job(begun(tmp_path)[0], "1", lambda _: None, Wait(limit=60.0))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("state", ["at work", "ended", "leaving"])
def test_a_job_of_an_earlier_try_is_followed_at_work_and_replaced_when_it_has_ended(
    trainer: Trainer, tmp_path: Path, state: str
) -> None:
    request, store = begun(tmp_path)
    wanted = body(ClusterConfig(), RunRequest.model_validate_json(request), 1)

    def finish(job: Job) -> None:
        time.sleep(0.5)
        rounds.save_result(store, 1, "selfplay", DONE)
        job.end("Complete")

    trainer.plan = {"at work": finish, "ended": lambda job: job.end("Failed"), "leaving": lambda job: None}[state]
    trainer.add(wanted)
    time.sleep(0.2)
    trainer.plan = finish
    if state == "leaving":
        wanted["metadata"]["deletionTimestamp"] = "2026-01-05T03:00:00Z"
    ended = state != "at work"
    said: list[str] = []
    play_as_job(request, "1", said.append, QUICK)
    assert said[0].endswith("made" if ended else "found at work") and len(trainer.made) == 1 + ended


def test_a_second_run_does_not_wait_for_the_same_job(trainer: Trainer, tmp_path: Path) -> None:
    request, store = begun(tmp_path)
    with lease.hold(store, 1, WAITER, beat=0.05), pytest.raises(BusyError):
        play_as_job(request, "1", lambda _: None, QUICK)
    assert not trainer.made


WATCH = """
import sys, time
from pipelines.trainjob import end_without_waiter
from sparring.store import open_store
end_without_waiter(open_store(sys.argv[1]), 1, look=0.05, patience=1.0)
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("alive", [True, False])
def test_the_pod_that_trains_ends_when_nobody_waits(alive: bool, tmp_path: Path) -> None:
    _, store = begun(tmp_path)
    stop = threading.Event()

    def waiter() -> None:
        with lease.hold(store, 1, WAITER, beat=0.05):
            stop.wait()

    thread = threading.Thread(target=waiter)
    thread.start()
    command = [sys.executable, "-c", WATCH, str(store.url), "4" if alive else "60"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    if not alive:
        stop.set()
    _, error = process.communicate(timeout=30)
    stop.set()
    thread.join()
    assert (process.returncode, "nobody waits" in error) == ((0, False) if alive else (1, True))


def test_a_runtime_that_is_not_there_is_found_before_submitting(trainer: Trainer) -> None:
    def missing(**settings: Any) -> list[str]:
        cluster = ClusterConfig.model_validate({"namespace": "team", **settings})
        return [str(one) for one in from_kubernetes(cluster, Kube("team")) if "TrainingRuntime" in str(one)]

    assert missing() == []
    (line,) = missing(executor="trainjob")
    assert "'sparring-selfplay' in team" in line and "manifests/components/trainer" in line
    trainer.runtimes.add("own")
    assert missing(executor="trainjob", trainjob={"runtime": "own"}) == []


@pytest.mark.parametrize("text", ["cluster: {executor: trainjob}", RUN_FILE])
def test_the_object_is_what_kubeflow_trainer_takes(text: str) -> None:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    made = body(ClusterConfig.model_validate(yaml.safe_load(text)["cluster"]), REQUEST, 3)
    read = TrainerV1alpha1TrainJob.from_dict(made)
    assert read is not None and without_defaults(read.to_dict()) == without_defaults(made)


def test_the_job_s_pod_has_what_the_step_s_has() -> None:
    spec = body(ClusterConfig.model_validate(yaml.safe_load(RUN_FILE)["cluster"]), REQUEST, 3)["spec"]
    trainer = spec["trainer"]
    assert trainer["image"] == "registry.example/train:1"
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}
    names = [one["name"] for one in trainer["env"]]
    assert len(names) == len(set(names))
    key = {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "store", "key": "id"}}}
    assert key in trainer["env"] and {"name": "AWS_ENDPOINT_URL", "value": "http://store:8333"} in trainer["env"]
    (job,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = job["template"]["spec"]["template"]
    assert template["metadata"] == {"labels": {"team": "safety"}, "annotations": {"note": "yes"}}
    pod = template["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"} and pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models"}
    assert pod["containers"] == [{"name": "node", "volumeMounts": [{"name": "models", "mountPath": "/models"}]}]
    assert pod["securityContext"]["runAsUser"] == 12345 and pod["imagePullSecrets"] == [{"name": "registry"}]


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)


@given(st.tuples(NAMES, st.integers(1, 10**6)), st.tuples(NAMES, st.integers(1, 10**6)))
def test_names_are_dns_and_differ_as_their_rounds_do(one: tuple[str, int], other: tuple[str, int]) -> None:
    names = [job_name(REQUEST.model_copy(update={"line": line}), number) for line, number in (one, other)]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])", name) for name in names)
    assert (names[0] == names[1]) == (one == other)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_every_line_of_a_log_is_copied_once(gaps: list[int], data: st.DataObject) -> None:
    """The log grows, is cut in the middle of a line, and each look may see any of what it saw before."""
    stamps, now = [], 0
    for gap in gaps:
        now += gap
        stamps.append(now)
    lines = [f"2026-01-05T03:00:{stamp // 10:02d}.{stamp % 10}00000000Z line {i}\n" for i, stamp in enumerate(stamps)]
    log, seen, copied = _Log(), 0, []
    while seen < len(lines):
        until = data.draw(st.integers(seen + 1, len(lines)))
        start = data.draw(st.integers(0, seen))
        half = lines[until][:10] if until < len(lines) else ""
        copied += log.new("pod", float(until), "".join(lines[start:until]) + half)
        assert log.since("pod", until + 5.0) == 35 and log.since("other", until + 5.0) is None
        seen = until
    assert copied == [f"line {i}" for i in range(len(lines))]
