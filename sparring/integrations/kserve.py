"""The InferenceService that serves the champion (KServe, Standard mode).

    switching ─► patch storageUri ─► Ready with it? ─► smoke prompts answered? ─► serving
                                         └─ no ────────────┴─ no ─► patch back ─► reverted

The champion log is not touched: what is served is recorded apart (`sparring.registry.serving`). Killed in between, the
next delivery finds `switching` and with it what to go back to. Whoever points the service elsewhere meanwhile (a
rollback) has the last word.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
_TRIES: Final = 20


def kserve(hook: KServeConfig, told: Happened, store: Store, *, poll: float = _POLL_SECONDS) -> str:
    """Serves the champion, or turns back and fails. Raises HookFailed, SetupError without the kubernetes package."""
    digest = str(told.record.champion)
    uri = hook.uri.format(store=store.url, digest=digest)
    service, records = _Service(hook), _Records(store, f"{hook.namespace}.{hook.service}", told.record.number)
    before = records.switching(service.uri(), uri, digest)
    try:
        service.point(uri)
        address = service.ready(uri, poll)
        for prompt in hook.smoke:
            _answered(hook, address, prompt)
        service.ready(uri, poll)  # still: what answered was this model
    except Overtaken:
        raise
    except HookFailed as failure:
        if before not in (None, uri) and service.turn_back(uri, str(before)):
            records.reverted(str(before), failure.reason)
        raise
    records.proven(uri, digest, f"Ready, {len(hook.smoke)} prompts answered")
    return f"serves {digest[:12]}"


class Overtaken(HookFailed):
    """The service was pointed elsewhere meanwhile."""


class _Changed(HookFailed):
    """The object is not of the resource version that was asked for."""


@dataclass(frozen=True)
class _Records:
    """The service's serving records, for one record of the champion log."""

    store: Store
    service: str
    record: int

    def switching(self, found: str | None, uri: str, digest: str) -> str | None:
        """Writes what is about to be done over `found`; what to go back to: None when there is nothing."""
        last = serving.latest(self.store, self.service)
        unproven = last is not None and (last.state, last.uri) == ("switching", found)  # of a try that was cut off
        before = last.before if last and unproven else found
        if found != uri:
            self._append("switching", digest, uri, "", before=before)
        return before

    def proven(self, uri: str, digest: str, reason: str) -> None:
        """It serves `uri`; said once."""
        last = serving.latest(self.store, self.service)
        if last is None or (last.state, last.uri, last.record) != ("serving", uri, self.record):
            self._append("serving", digest, uri, reason)

    def reverted(self, uri: str, reason: str) -> None:
        """It serves `uri` again."""
        known = [s.digest for s in serving.history(self.store, self.service) if s.uri == uri]
        self._append("reverted", known[-1] if known else None, uri, reason)

    def _append(
        self, state: serving.State, digest: str | None, uri: str, reason: str, before: str | None = None
    ) -> None:
        serving.append(
            self.store, service=self.service, state=state, digest=digest, uri=uri, record=self.record, reason=reason,
            before=before,
        )  # fmt: skip


class _Service:
    """One InferenceService through the Kubernetes API."""

    def __init__(self, hook: KServeConfig) -> None:
        try:
            from kubernetes import client, config
            from urllib3.exceptions import HTTPError
        except ImportError as error:
            raise SetupError("kubernetes is not installed", hint="install sparring[pipelines]") from error
        try:
            config.load_kube_config()
        except (config.ConfigException, OSError):
            try:
                config.load_incluster_config()
            except (config.ConfigException, OSError) as error:
                raise HookFailed(f"no kubeconfig and not in a cluster ({type(error).__name__})") from error
        self._hook, self._api, self._errors = hook, client.CustomObjectsApi(), client.ApiException
        self._lost = (HTTPError, OSError)

    def uri(self) -> str | None:
        """The storage URI that it has now."""
        return _uri(self._get())

    def point(self, uri: str, only: str | None = None) -> None:
        """Sets the storage URI and nothing else; `only`: where it still has this resource version, else _Changed."""
        body: dict[str, Any] = {"spec": {"predictor": {"model": {"storageUri": uri}}}}
        if only:
            body["metadata"] = {"resourceVersion": only}
        self._call(lambda api, **at: api.patch_namespaced_custom_object(body=body, **at))

    def turn_back(self, uri: str, before: str) -> bool:
        """Sets `before` again where `uri` is still set; False where it is something else by now."""
        for _ in range(_TRIES):
            found = self._get()
            if _uri(found) != uri:
                return False
            try:
                self.point(before, only=found["metadata"]["resourceVersion"])
            except _Changed:  # a status, mostly
                time.sleep(random.uniform(0.0, 0.5))
            else:
                return True
        raise HookFailed(f"could not be turned back to {before}: it changed {_TRIES} times meanwhile")

    def ready(self, uri: str, poll: float) -> str:
        """Its address once it is Ready with `uri`. Raises HookFailed after `ready_s`, Overtaken for another uri."""
        end = time.monotonic() + self._hook.ready_s
        while True:
            found = self._get()
            if (now := _uri(found)) != uri:
                raise Overtaken(f"pointed at {now} by somebody else meanwhile")
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
            limit = self._hook.timeout_s
            return what(self._api, _request_timeout=(limit, limit), **at)  # a single number must be an int, or is none
        except self._errors as error:
            if error.status == 409:
                raise _Changed("it was changed meanwhile") from error
            where = f"InferenceService {self._hook.service} in {self._hook.namespace}"
            raise HookFailed(f"{where}: Kubernetes answered {error.status} ({error.reason})") from error
        except self._lost as error:
            raise HookFailed(f"Kubernetes cannot be reached ({type(error).__name__})") from error


def _uri(found: Mapping[str, Any]) -> str | None:
    uri = found.get("spec", {}).get("predictor", {}).get("model", {}).get("storageUri")
    return str(uri) if uri else None


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
        raise HookFailed("smoke prompt: the answer has no words", final=True)  # greedy: it will say the same again
