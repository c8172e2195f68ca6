"""What is looked for before a submission: settings alone, a real store, real endpoints. Kubernetes: tests/e2e_kfp."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.capacity import Node, Taint, obstacle
from pipelines.preflight import _probe, from_settings, from_store, image_trouble, preflight
from sparring.config.cluster import PodConfig
from sparring.config.judges import EndpointConfig
from sparring.config.run import RunConfig
from sparring.errors import UsageError
from tests.conftest import Seaweed

DIGEST = "sha256:" + "0" * 64
IMAGES = {"control": "registry.example/control:1", "train": "registry.example/train:1"}


def config(cluster: dict[str, Any] | None = None, **more: Any) -> RunConfig:
    settings = {"images": IMAGES, "service_account": "trainer", **(cluster or {})}
    return RunConfig.model_validate({"store": "s3://bucket/x", "cluster": settings, **more})


def texts(found: Iterator[Any]) -> list[str]:
    return [str(finding) for finding in found]


@pytest.mark.parametrize(
    ("image", "trouble"),
    [
        ("registry.example/team/sparring:1", None),
        ("localhost/sparring:dev", None),
        ("registry:5000/sparring:1", None),
        (f"registry.example/sparring@{DIGEST}", None),
        (f"registry.example/sparring:latest@{DIGEST}", None),
        ("sparring:1", "no registry"),
        ("team/sparring:1", "no registry"),
        ("registry.example/sparring", "no tag"),
        ("registry:5000/sparring", "no tag"),
        ("registry.example/sparring:latest", "latest"),
        ("registry.example/sparring@sha256:12", "digest"),
    ],
)
def test_images(image: str, trouble: str | None) -> None:
    found = image_trouble(image)
    assert (found is None) if trouble is None else (found is not None and trouble in found)


def test_sound_settings_lack_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert texts(from_settings(config())) == []


def test_the_default_images_are_refused() -> None:
    found = texts(from_settings(RunConfig.model_validate({"store": "s3://bucket/x"})))
    assert sum("names no registry" in text for text in found) == 2


def test_paths_of_this_machine_are_named_unless_a_claim_brings_them() -> None:
    own = {"data": {"harmful": ["starter", "/data/a.csv"]}, "model": {"source": "/models/x"}}
    found = texts(from_settings(config({"claims": {"models": "/models"}}, store="/srv/store", **own)))
    assert [text.split(" = ")[0] for text in found] == ["missing: store", "missing: data.harmful"]
    assert texts(from_settings(config({"claims": {"a": "/model"}}, model=own["model"])))  # /model is not /models


def test_an_endpoint_that_only_we_know_is_named_for_the_pods_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    assert "AWS_ENDPOINT_URL is set here but not for the pods:" in texts(from_settings(config()))[0]
    one = {"steps": {"gate": {"secrets": {"store": {"url": "AWS_ENDPOINT_URL"}}}}}
    assert "prepare, selfplay, update_pool, answer, judge, promote" in texts(from_settings(config(one)))[0]
    assert texts(from_settings(config({"env": {"AWS_ENDPOINT_URL_S3": "http://store:8333"}}))) == []
    by_secret = {"secrets": {"store": {"url": "AWS_ENDPOINT_URL"}}}
    assert texts(from_settings(config(by_secret))) == []


def test_a_hooks_secret_must_reach_the_pod_that_delivers_it() -> None:
    hooks = [
        {"kind": "slack", "name": "chat", "url": {"env": "SLACK_URL"}},
        {"kind": "webhook", "name": "siem", "url": "https://siem.example", "secret": {"file": "/etc/secrets/siem"}},
        {"kind": "mlflow", "name": "models", "url": "http://mlflow", "model": "m", "token": {"env": "MLFLOW_TOKEN"}},
    ]
    found = [text for text in texts(from_settings(config(hooks=hooks))) if "hook" in text]
    assert found == [
        "missing: the pod of report has no SLACK_URL, which hook chat needs: name a secret with it",
        "missing: the pod of report has no MLFLOW_TOKEN, which hook models needs: name a secret with it",
    ]
    secrets = {"hooks": {"slack": "SLACK_URL", "mlflow": "MLFLOW_TOKEN"}}
    given = config({"steps": {"report": {"secrets": secrets}}}, hooks=hooks)
    assert not [text for text in texts(from_settings(given)) if "hook" in text]


def test_a_judges_key_must_reach_the_pods_that_ask_it() -> None:
    judge = {
        "gate": "guard",
        "endpoints": {
            "guard": {"format": "wildguard", "base_url": "http://guard/v1", "model": "w", "api_key_env": "GUARD_KEY"}
        },
    }
    found = [text for text in texts(from_settings(config(judge=judge))) if "GUARD_KEY" in text]
    assert found == ["missing: the pod of judge has no GUARD_KEY, which judge guard needs: name a secret with it"]
    given = config({"secrets": {"keys": {"guard": "GUARD_KEY"}}}, judge=judge)
    assert not [text for text in texts(from_settings(given)) if "GUARD_KEY" in text]


def test_a_store_that_can_be_written_and_one_that_cannot(
    s3_environment: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = config(store=f"s3://{s3_environment.bucket}/{tmp_path.name}")
    assert texts(from_store(there)) == []
    (lacking,) = texts(from_store(config(store="s3://no-such-bucket/x")))
    assert "no-such-bucket" in lacking
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (refused,) = texts(from_store(there))
    assert refused.startswith("missing: cannot ") and "wrong" not in refused and "\n" not in refused


def test_everything_missing_is_said_before_one_error(
    s3_environment: Seaweed, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    wrong = RunConfig.model_validate({"store": f"s3://{s3_environment.bucket}/x"})
    with pytest.raises(UsageError, match=r"nothing was submitted: 3 of the above"):
        preflight(wrong, said.append, cluster=False)
    assert len(said) == 5 and all("\n" not in text for text in said)


@contextmanager
def server(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}/v1"
        one.shutdown()


@pytest.mark.parametrize(("status", "trouble"), [(200, None), (401, None), (404, None), (503, "answers 503")])
def test_a_judge_answers_or_not(status: int, trouble: str | None) -> None:
    with server(status) as url:
        endpoint = EndpointConfig(format="wildguard", base_url=url, model="w")
        assert _probe(endpoint) == trouble
    assert "no answer" in str(_probe(endpoint))


NODE = Node("n", {"pool": "gpu"}, (Taint("gpu", "yes", "NoSchedule"),), {"cpu": "1950m", "memory": "8Gi", "gpu": "1"})


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"tolerations": [{"key": "gpu"}]}, None),
        ({"tolerations": [{}]}, None),
        (
            {
                "tolerations": [{"key": "gpu", "operator": "Equal", "value": "yes"}],
                "accelerator": "gpu",
                "accelerators": 1,
            },
            None,
        ),
        ({}, "taint gpu:NoSchedule"),
        ({"tolerations": [{"key": "gpu", "operator": "Equal", "value": "no"}]}, "taint"),
        ({"tolerations": [{"key": "gpu", "effect": "NoExecute"}]}, "taint"),
        ({"tolerations": [{}], "node_selector": {"pool": "cpu"}}, "not labelled pool=cpu"),
        ({"tolerations": [{}], "cpu": "2"}, "cpu 1950m of 2"),
        ({"tolerations": [{}], "cpu": "1.95", "memory": "8192Mi"}, None),
        ({"tolerations": [{}], "memory": "9G"}, "memory 8Gi of 9G"),
        ({"tolerations": [{}], "accelerator": "gpu", "accelerators": 2}, "gpu 1 of 2"),
        ({"tolerations": [{}], "accelerator": "tpu", "accelerators": 1}, "tpu 0 of 1"),
    ],
)
def test_whether_a_node_would_ever_take_a_pod(pod: dict[str, Any], words: str | None) -> None:
    found = obstacle(PodConfig.model_validate({"memory": "1Gi", **pod}), NODE)
    assert (found is None) if words is None else (found is not None and words in found)
