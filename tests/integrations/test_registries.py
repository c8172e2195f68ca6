"""Registering a champion: MLflow's own server where SPARRING_MLFLOW_URL names one, else the same calls to a small one.

`mlflow server --host 127.0.0.1 --port 5055 --backend-store-uri sqlite:///m.db` is one.
"""

from __future__ import annotations

import json
import os
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sparring.config.hooks import MlflowConfig, ModelRegistryConfig, SecretName
from sparring.integrations import http
from sparring.integrations.deliveries import Line, send
from sparring.integrations.events import Happened, happened, message
from sparring.integrations.http import HookFailed
from sparring.integrations.registries import mlflow, model_registry
from sparring.registry.champion import read_log
from tests.integrations.conftest import FIRST, SECOND, promote
from tests.integrations.receiver import Answer, Receiver, Seen

STORE = "s3://models/lines/default"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PAUSES", (0.001, 0.01))


def last(line: Line) -> Happened:
    return happened(read_log(line.store), 0)[-1]


def said(told: Happened) -> dict[str, object]:
    return message(told, store=STORE, line="default")


class Mlflow:
    """The four calls of MLflow's REST API 2.0 that are made, as its documentation describes them."""

    def __init__(self) -> None:
        self.versions: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, seen: Seen, count: int) -> Answer:
        path, query = urlsplit(seen.path).path.removeprefix("/api/2.0/mlflow/"), parse_qs(urlsplit(seen.path).query)
        if path == "registered-models/get":
            known = query["name"][0] in self.versions
            return (200, b'{"registered_model": {}}') if known else (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')
        if path == "model-versions/search":
            name = query["filter"][0].removeprefix('name="').removesuffix('"')
            return 200, json.dumps({"model_versions": self.versions[name]}).encode()
        body = seen.json()
        if path == "registered-models/create":
            self.versions[body["name"]] = []
            return 200, b"{}"
        made = {"version": str(len(self.versions[body["name"]]) + 1), "source": body["source"], "tags": body["tags"]}
        self.versions[body["name"]].append(made)
        return 200, json.dumps({"model_version": made}).encode()


@pytest.mark.parametrize("name", ["support-bot", "support bot's"])
def test_a_champion_is_one_version_in_mlflow(name: str, line: Line, server: Receiver) -> None:
    server.plan = Mlflow()
    url, name = os.environ.get("SPARRING_MLFLOW_URL") or server.url, f"{name}-{uuid.uuid4().hex[:6]}"
    hook = MlflowConfig(name="models", kind="mlflow", url=url, model=name, timeout_s=60)
    promote(line, 1)
    assert mlflow(hook, last(line), said(last(line))) == "version 1"
    assert mlflow(hook, last(line), said(last(line))) == "version 1 was there"
    promote(line, 2, SECOND)
    assert mlflow(hook, last(line), said(last(line))) == "version 2"


def test_a_local_folder_is_no_source(line: Line, server: Receiver) -> None:
    promote(line, 1)
    with pytest.raises(HookFailed, match="keep the store in S3"):
        send(line, MlflowConfig(name="models", kind="mlflow", url=server.url, model="m"), last(line))
    assert not server.seen


class Registry:
    """The calls of Model Registry's REST API that are made, as its OpenAPI files describe them; `apis` that it has."""

    def __init__(self, *apis: str) -> None:
        self.apis = apis or ("v1", "v1alpha3")
        self.made: list[tuple[str, str, dict[str, Any]]] = []  # what, parent, body

    def __call__(self, seen: Seen, count: int) -> Answer:
        api, _, path = urlsplit(seen.path).path.removeprefix("/api/model_registry/").partition("/")
        if api not in self.apis:
            return 404, b"404 page not found"
        if (seen.method, path) == ("GET", "registered_models"):
            return 200, b'{"items": [], "nextPageToken": "", "pageSize": 1, "size": 0}'
        if seen.method == "GET":
            asked = {key: values[0] for key, values in parse_qs(urlsplit(seen.path).query).items()}
            found = [
                {"id": str(number), **body}
                for number, (what, parent, body) in enumerate(self.made, 1)
                if what == path and body["name"] == asked["name"] and parent == asked.get("parentResourceId", "")
            ]
            return (200, json.dumps(found[0]).encode()) if found else (404, b'{"code": "", "message": "none"}')
        body = seen.json()
        if path == "registered_models":
            self.made.append(("registered_model", "", body))
        elif path == "model_versions":
            self.made.append(("model_version", body["registeredModelId"], body))
        else:
            self.made.append(("model_artifact", path.split("/")[1], body))
        return 201, json.dumps({"id": str(len(self.made)), **body}).encode()


@pytest.mark.parametrize("apis", [("v1", "v1alpha3"), ("v1",), ("v1alpha3",)])
def test_a_champion_is_one_version_and_one_artifact_in_model_registry(
    apis: tuple[str, ...], line: Line, server: Receiver
) -> None:
    registry = server.plan = Registry(*apis)
    hook = ModelRegistryConfig(name="registry", kind="model_registry", url=server.url, model="support-bot")
    promote(line, 1)
    for _ in range(2):
        model_registry(hook, last(line), said(last(line)))
    assert [what for what, _, _ in registry.made] == ["registered_model", "model_version", "model_artifact"]
    version, artifact = registry.made[1][2], registry.made[2][2]
    assert version["name"] == FIRST
    assert version["customProperties"]["sparring.round"] == {"metadataType": "MetadataStringValue", "string_value": "1"}
    assert artifact["uri"] == f"{STORE}/checkpoints/{FIRST}"
    promote(line, 2, SECOND)
    model_registry(hook, last(line), said(last(line)))
    assert [what for what, _, _ in registry.made[3:]] == ["model_version", "model_artifact"]


def test_killed_between_version_and_artifact_it_is_finished(line: Line, server: Receiver) -> None:
    registry = Registry()
    server.plan = lambda seen, count: (500, b"") if seen.path.endswith("/artifacts") else registry(seen, count)
    hook = ModelRegistryConfig(name="registry", kind="model_registry", url=server.url, model="m", attempts=1)
    promote(line, 1)
    with pytest.raises(HookFailed, match="answered 500"):
        model_registry(hook, last(line), said(last(line)))
    server.plan = registry
    model_registry(hook, last(line), said(last(line)))
    assert [what for what, _, _ in registry.made] == ["registered_model", "model_version", "model_artifact"]


@pytest.mark.parametrize("reply", [b"<html>", b"[]", b"{}"])
def test_a_reply_that_is_none_of_theirs(reply: bytes, line: Line, server: Receiver) -> None:
    server.plan = lambda seen, count: (200, reply) if seen.method == "POST" else (404, b"")  # neither API, then
    hook = ModelRegistryConfig(name="registry", kind="model_registry", url=server.url, model="m")
    promote(line, 1)
    with pytest.raises(HookFailed, match=r"no JSON object|names no id"):
        model_registry(hook, last(line), said(last(line)))


def test_a_token_is_sent_and_never_told(line: Line, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    server.plan = lambda seen, count: (401, b"")
    where = SecretName(env="TOKEN")
    hook = ModelRegistryConfig(name="registry", kind="model_registry", url=server.url, model="m", token=where)
    promote(line, 1)
    with pytest.raises(HookFailed) as failed:
        model_registry(hook, last(line), said(last(line)))
    assert server.seen[0].headers["authorization"] == "Bearer s3cr3t"
    assert "s3cr3t" not in failed.value.reason
