"""Hooks that register a champion as a model version: MLflow and Kubeflow's Model Registry, by their REST APIs.

Both are asked first whether the version is there: a second delivery adds nothing.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from sparring.config.hooks import MlflowConfig, ModelRegistryConfig
from sparring.integrations.events import Happened
from sparring.integrations.http import HookFailed, request, secret

_MLFLOW = "/api/2.0/mlflow"
_REGISTRY = ("/api/model_registry/v1", "/api/model_registry/v1alpha3")
"""The registry's API, alike in both versions for what is asked here; servers before 2026 have only the second."""


def mlflow(hook: MlflowConfig, told: Happened, message: dict[str, object]) -> str:
    """Registers the champion as a version of `hook.model`, with what the message says as tags."""
    digest = str(message["champion"])
    if "://" not in str(message["champion_uri"]):
        raise HookFailed("MLflow registers no local folder as a model's source; keep the store in S3", final=True)
    found = _call(hook, "GET", f"{_MLFLOW}/registered-models/get?name={quote(hook.model, safe='')}", missing=(404,))
    if found is None:
        _call(hook, "POST", f"{_MLFLOW}/registered-models/create", {"name": hook.model})
    wanted = f'name="{hook.model}"'
    known = _call(hook, "GET", f"{_MLFLOW}/model-versions/search?filter={quote(wanted)}&max_results=1000") or {}
    for version in known.get("model_versions", []):
        if {"key": "sparring.digest", "value": digest} in version.get("tags", []):
            return f"version {version.get('version')} was there"
    tags = [{"key": f"sparring.{key}", "value": value} for key, value in _tags(message).items()]
    body = {"name": hook.model, "source": message["champion_uri"], "tags": tags, "description": message["reason"]}
    made = _call(hook, "POST", f"{_MLFLOW}/model-versions/create", body) or {}
    return f"version {made.get('model_version', {}).get('version', '?')}"


def model_registry(hook: ModelRegistryConfig, told: Happened, message: dict[str, object]) -> str:
    """Registers the champion as a version of `hook.model`, and its files as the version's artifact."""
    registry, digest, properties = _Registry(hook), str(message["champion"]), _properties(message)
    model = registry.find("registered_model", {"name": hook.model})
    if model is None:
        model = registry.make("registered_models", {"name": hook.model, "customProperties": {}})
    version = registry.find("model_version", {"name": digest, "parentResourceId": model})
    if version is None:
        body = {"name": digest, "registeredModelId": model, "customProperties": properties}
        version = registry.make("model_versions", {**body, "description": message["reason"]})
    if registry.find("model_artifact", {"name": digest, "parentResourceId": version}) is None:
        artifact = {"artifactType": "model-artifact", "name": digest, "uri": message["champion_uri"]}
        registry.make(f"model_versions/{quote(version, safe='')}/artifacts", artifact)
    return f"version {version}"


class _Registry:
    """Kubeflow's Model Registry, by the newer API that it has."""

    def __init__(self, hook: ModelRegistryConfig) -> None:
        new, old = _REGISTRY
        self._hook = hook
        self._api = old if _call(hook, "GET", f"{new}/registered_models?pageSize=1", missing=(404,)) is None else new

    def find(self, what: str, asked: dict[str, str]) -> str | None:
        """Id of the one that is asked for, None where there is none."""
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in asked.items())
        found = _call(self._hook, "GET", f"{self._api}/{what}?{query}", missing=(404,))
        return None if found is None else _id(what, found)

    def make(self, what: str, body: dict[str, Any]) -> str:
        """Id of what was made."""
        return _id(what, _call(self._hook, "POST", f"{self._api}/{what}", body) or {})


def _id(what: str, found: dict[str, Any]) -> str:
    if not isinstance(found.get("id"), str):
        raise HookFailed(f"the registry's reply to {what.split('/')[-1]} names no id")
    return str(found["id"])


def _call(
    hook: MlflowConfig | ModelRegistryConfig,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    missing: tuple[int, ...] = (),
) -> dict[str, Any] | None:
    """The reply as an object; None for a status in `missing`. Raises HookFailed."""
    headers = {"Content-Type": "application/json"}
    if hook.token:
        headers["Authorization"] = f"Bearer {secret(hook.token)}"
    data = None if body is None else json.dumps(body).encode()
    status, reply = request(
        hook, method, hook.url + path, body=data, headers=headers,
        accept=lambda status: 200 <= status < 300 or status in missing,
    )  # fmt: skip
    if status in missing:
        return None
    try:
        found = json.loads(reply)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HookFailed(f"the reply to {path.partition('?')[0]} is no JSON object")
    return found


def _tags(message: dict[str, object]) -> dict[str, str]:
    keys = ("line", "round", "decision", "record", "time", "id")
    return {"digest": str(message["champion"]), **{key: str(message[key]) for key in keys}}


def _properties(message: dict[str, object]) -> dict[str, dict[str, str]]:
    return {
        f"sparring.{key}": {"metadataType": "MetadataStringValue", "string_value": value}
        for key, value in _tags(message).items()
    }
