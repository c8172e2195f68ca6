"""The InferenceService that serves the champion (KServe, Standard mode).

    patch storageUri ─► Ready with it? ─► smoke prompts answered? ─► serving
                            └─ no ────────────┴─ no ─► patch back ─► reverted

The champion log is not touched: what is served is recorded apart (`sparring.registry.serving`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from sparring.config.hooks import KServeConfig
from sparring.errors import SetupError
from sparring.integrations.events import Happened
from sparring.integrations.http import HookFailed, request
from sparring.registry import serving
from sparring.store.base import Store

_GROUP: Final = {"group": "serving.kserve.io", "version": "v1beta1", "plural": "inferenceservices"}
_POLL_SECONDS: Final = 2.0
_SMOKE_TOKENS: Final = 32


def kserve(hook: KServeConfig, told: Happened, store: Store, *, poll: float = _POLL_SECONDS) -> str:
    """Serves the champion, or turns back and fails. Raises HookFailed, SetupError without the kubernetes package."""
    digest = str(told.record.champion)
    uri = hook.uri.format(store=store.url, digest=digest)
    service = _Service(hook)
    before = service.uri()
    try:
        service.point(uri)
        address = service.ready(uri, poll)
        for prompt in hook.smoke:
            _answered(hook, address, prompt)
    except HookFailed as failure:
        _back(hook, told, store, service, before, uri, failure)
        raise
    if not _known(store, hook, told, uri):
        serving.append(
            store, service=_name(hook), state="serving", digest=digest, uri=uri, record=told.record.number,
            reason=f"Ready, {len(hook.smoke)} prompts answered",
        )  # fmt: skip
    return f"serves {digest[:12]}"


def _back(
    hook: KServeConfig, told: Happened, store: Store, service: _Service, before: str | None, uri: str, why: HookFailed
) -> None:
    """Serves again what was served. A first deployment has nothing to go back to and is left as it is."""
    if before is None or before == uri:
        return
    service.point(before)
    last = serving.latest(store, _name(hook))
    digest = last.digest if last and last.uri == before else None
    serving.append(
        store, service=_name(hook), state="reverted", digest=digest, uri=before, record=told.record.number,
        reason=why.reason,
    )  # fmt: skip


def _known(store: Store, hook: KServeConfig, told: Happened, uri: str) -> bool:
    last = serving.latest(store, _name(hook))
    return last is not None and (last.state, last.uri, last.record) == ("serving", uri, told.record.number)


def _name(hook: KServeConfig) -> str:
    return f"{hook.namespace}.{hook.service}"


class _Service:
    """One InferenceService through the Kubernetes API."""

    def __init__(self, hook: KServeConfig) -> None:
        try:
            from kubernetes import client, config
            from urllib3.exceptions import HTTPError
        except ImportError as error:
            raise SetupError("kubernetes is not installed", hint="install sparring[pipelines]") from error
        try:
            config.load_config()
        except (config.ConfigException, OSError) as error:
            raise HookFailed(f"no kubeconfig and not in a cluster ({type(error).__name__})") from error
        self._hook, self._api, self._errors = hook, client.CustomObjectsApi(), client.ApiException
        self._lost = (HTTPError, OSError)

    def uri(self) -> str | None:
        """The storage URI that it has now."""
        model = self._get().get("spec", {}).get("predictor", {}).get("model", {})
        return str(model["storageUri"]) if model.get("storageUri") else None

    def point(self, uri: str) -> None:
        """Sets the storage URI and nothing else."""
        body = {"spec": {"predictor": {"model": {"storageUri": uri}}}}
        self._call(lambda api, **at: api.patch_namespaced_custom_object(body=body, **at))

    def ready(self, uri: str, poll: float) -> str:
        """Its address once it is Ready with `uri`. Raises HookFailed after `ready_s`."""
        end = time.monotonic() + self._hook.ready_s
        while True:
            found = self._get()
            if _is_ready(found):
                return str(found.get("status", {}).get("url", ""))
            if time.monotonic() > end:
                raise HookFailed(f"not Ready within {self._hook.ready_s:.0f} s: {_why(found)}")
            time.sleep(poll)

    def _get(self) -> dict[str, Any]:
        found = self._call(lambda api, **at: api.get_namespaced_custom_object(**at))
        return found if isinstance(found, dict) else {}

    def _call(self, what: Callable[..., Any]) -> Any:
        at = {"namespace": self._hook.namespace, "name": self._hook.service, **_GROUP}
        try:
            return what(self._api, _request_timeout=self._hook.timeout_s, **at)
        except self._errors as error:
            where = f"InferenceService {self._hook.service} in {self._hook.namespace}"
            raise HookFailed(f"{where}: Kubernetes answered {error.status} ({error.reason})") from error
        except self._lost as error:
            raise HookFailed(f"Kubernetes cannot be reached ({type(error).__name__})") from error


def _is_ready(found: Mapping[str, Any]) -> bool:
    """Ready, and about the specification as it is now: an old Ready says nothing of the new model."""
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found.get("metadata", {}).get("generation", 0):
        return False
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions", [])}
    return conditions.get("Ready") == "True" and status.get("modelStatus", {}).get("transitionStatus") != "InProgress"


def _why(found: Mapping[str, Any]) -> str:
    bad = [c for c in found.get("status", {}).get("conditions", []) if c.get("status") != "True"]
    return ", ".join(f"{c.get('type')} {c.get('reason') or c.get('status')}" for c in bad) or "no condition says why"


def _answered(hook: KServeConfig, address: str, prompt: str) -> None:
    """Raises HookFailed unless the served model says some words."""
    base = hook.smoke_url or (f"{address}/openai/v1" if address else "")
    if not base:
        raise HookFailed("the InferenceService has no address; name hooks.smoke_url")
    body = {
        "model": hook.model or hook.service,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": _SMOKE_TOKENS,
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    _, reply = request(hook, "POST", f"{base}/chat/completions", body=json.dumps(body).encode(), headers=headers)
    try:
        text = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise HookFailed("smoke prompt: the reply is no chat completion") from error
    if not isinstance(text, str) or not any(letter.isalpha() for letter in text):
        raise HookFailed("smoke prompt: the answer has no words")
