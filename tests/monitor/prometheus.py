"""Debian's prometheus and promtool: real ones, on loopback, ended by their own process id."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.scraping import answer, free_port

_START_SECONDS = 60.0


def program(name: str) -> str:
    """Where a program lies; the test skips without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no `{name}` on the PATH: Debian's package prometheus has it")
    return found


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """What promtool says."""
    command = [program("promtool"), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of an instant query. Fails for one that the server refuses."""
        status, text = answer(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert status == 200, f"{expression}: {text}"
        found: list[dict[str, Any]] = json.loads(text)["data"]["result"]
        return found

    def get(self, path: str) -> Any:
        """`data` of an answer of its API."""
        return json.loads(answer(f"{self.url}/api/v1/{path}")[1])["data"]


@contextmanager
def running(folder: Path, targets: Sequence[str], rules: Path | None = None) -> Iterator[Prometheus]:
    """Prometheus that scrapes these addresses every second; returns when each was scraped."""
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "sparring", "static_configs": [{"targets": list(targets)}]}],
        "rule_files": [str(rules)] if rules else [],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    port = free_port()
    command = [
        program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")
            _wait(server, process, len(targets), folder / "prometheus.log")
            yield server
        finally:
            process.kill()
            process.wait()


def _wait(server: Prometheus, process: subprocess.Popen[bytes], targets: int, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if len(server.query("up == 1")) == targets:
                return
        except (OSError, AssertionError):
            pass
        time.sleep(0.2)
    pytest.fail(f"prometheus did not start or scrape: {log.read_text(errors='replace')[-2000:]}")
