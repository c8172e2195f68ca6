"""Reaching a Kubeflow that is not there, is something else, or wants a login: one line each, at once.

What it does when it is reached is tried against a real one, in tests/e2e_kfp.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.backend import Backend
from sparring.config.cluster import ClusterConfig
from sparring.errors import ClusterError


@contextmanager
def answering(status: int, body: bytes, seen: list[str]) -> Iterator[str]:
    """A server that is no Kubeflow."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers.get("Authorization")))
            self.send_response(status)
            self.send_header("Location", "/dex/auth")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def refusal(endpoint: str) -> str:
    begun = time.monotonic()
    with pytest.raises(ClusterError) as refused:
        Backend(ClusterConfig(endpoint=endpoint))
    assert time.monotonic() - begun < 10 and "\n" not in str(refused.value)
    return str(refused.value)


def test_nobody_listens() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    assert "cannot be reached" in refusal(f"http://127.0.0.1:{free}")


def test_a_token_with_the_line_break_of_a_secret_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setenv("KFP_TOKEN", "abc.def\n")
    with answering(401, b"", seen) as url:
        refusal(url)
    assert seen == ["Bearer abc.def"]


@pytest.mark.parametrize("token", ["abc\nX-Other: 1", "t\u00f6ken", "abc\x7fdef"])
def test_a_token_that_is_none_is_never_told(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("KFP_TOKEN", token)
    told = refusal("http://127.0.0.1:9")
    assert "KFP_TOKEN" in told and not any(part in told for part in token.split("\n"))


def test_a_mounted_token_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path))  # a folder
    assert "cannot be read (IsADirectoryError)" in refusal("http://127.0.0.1:9")


@pytest.mark.parametrize("endpoint", ["kubeflow.example", "ftp://kubeflow.example", "http://", "http://[::1"])
def test_no_address(endpoint: str) -> None:
    assert "no http or https address" in refusal(endpoint) or "cannot be reached" in refusal(endpoint)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "not as its API does"),
        (200, b"[]", "not as its API does"),
        (302, b"", "answers 302, and not as its API does; set KFP_TOKEN"),
        (403, b"", "answers 403; set KFP_TOKEN"),
        (503, b"", "answers 503"),
    ],
)
def test_another_server(status: int, body: bytes, words: str) -> None:
    with answering(status, body, []) as url:
        assert words in refusal(url)


def test_the_token_comes_from_the_environment_or_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    file = tmp_path / "token"
    file.write_text("mounted\n")
    with answering(403, b"", seen) as url:
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "absent"))
        refusal(url)
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
        refusal(url)
        monkeypatch.setenv("KFP_TOKEN", "given")
        refusal(url)
    assert seen == ["None", "Bearer mounted", "Bearer given"]
