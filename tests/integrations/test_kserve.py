"""The KServe hook where there is no Kubernetes; with one: tests/e2e/test_kserve_hook.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sparring.config.hooks import KServeConfig
from sparring.integrations.deliveries import Line, deliver
from sparring.registry import serving
from tests.integrations.conftest import promote
from tests.integrations.receiver import Receiver
from tests.kubeconfig import point_at


@pytest.fixture
def kubernetes(server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """A server that the kubeconfig names as the API server."""
    pytest.importorskip("kubernetes", reason="needs the extra pipelines")
    point_at(server.url, tmp_path, monkeypatch)
    return server


def told(line: Line, **other: object) -> tuple[str, str]:
    settings = {"name": "serve", "kind": "kserve", "namespace": "models", "service": "champion", **other}
    (delivery,) = deliver(line, [KServeConfig.model_validate(settings)])
    return delivery.state, delivery.attempts[-1].detail


def test_an_api_server_that_hangs_is_bounded(kubernetes: Receiver, line: Line) -> None:
    promote(line, 1)
    kubernetes.hang = 30
    begun = time.monotonic()
    state, detail = told(line, timeout_s=0.5)
    assert (state, detail) == ("failing", "Kubernetes cannot be reached (MaxRetryError)")
    assert time.monotonic() - begun < 20  # the client tries three times more
    assert serving.services(line.store) == []


@pytest.mark.parametrize(("status", "said"), [(401, "answered 401"), (403, "answered 403"), (404, "answered 404")])
def test_what_the_api_server_forbids_is_said(status: int, said: str, kubernetes: Receiver, line: Line) -> None:
    kubernetes.plan = lambda seen, count: (status, b"{}")
    promote(line, 1)
    state, detail = told(line)
    assert state == "failing" and said in detail


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("uri", "s3://x/{other}", "no braces but"),
        ("uri", "s3://x/{digest", "no braces but"),
        ("uri", "s3://x/fixed", "should hold {digest}"),
        ("namespace", "Models", "pattern"),
        ("service", "a/b", "pattern"),
    ],
)
def test_a_mistake_is_found_when_the_run_file_is_read(key: str, value: str, words: str) -> None:
    settings: dict[str, Any] = {"name": "serve", "kind": "kserve", "namespace": "models", "service": "champion"}
    with pytest.raises(ValueError, match=words):
        KServeConfig.model_validate({**settings, key: value})
