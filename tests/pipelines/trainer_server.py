"""A Kubernetes API server as far as a TrainJob needs one, over HTTP: the jobs, one pod of each, and its log.

What the pod does is a plan of the test's; `run` starts the job's own command on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parents[2]


@dataclass
class Job:
    """A TrainJob, the state of its pod and what that printed. `gone`: it was deleted; `mute`: it has no log."""

    body: dict[str, Any]
    conditions: list[dict[str, str]] = field(default_factory=list)
    phase: str = "Running"
    terminated: dict[str, Any] | None = None
    lines: list[bytes] = field(default_factory=list)
    mute: bool = False
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    def say(self, line: str | bytes, end: bytes = b"\n") -> None:
        text = line if isinstance(line, bytes) else line.encode()
        self.lines.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode() + text + end)

    def end(self, kind: str, reason: str = "", message: str = "") -> None:
        self.conditions.append({"type": kind, "status": "True", "reason": reason, "message": message})


Plan = Callable[[Job], None]


@dataclass
class Trainer:
    """The server's state. `errors`: statuses that the next requests get instead of an answer."""

    url: str = ""
    plan: Plan = lambda job: None
    jobs: dict[str, Job] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    runtimes: set[str] = field(default_factory=set)

    def add(self, body: dict[str, Any]) -> None:
        self.made.append(body)
        job = self.jobs[body["metadata"]["name"]] = Job(body)
        threading.Thread(target=self.plan, args=(job,), daemon=True).start()


def run(job: Job) -> None:
    """Plays the job's command as its pod would, with its plain environment."""
    trainer = job.body["spec"]["trainer"]
    given = {one["name"]: one["value"] for one in trainer["env"] if "value" in one and one["name"] != "HOME"}
    environment = {**os.environ, **given, "SPARRING_EXECUTOR": "trainjob", "PET_NNODES": "1"}
    command = [sys.executable, *trainer["command"][1:]]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            job.say(line.rstrip("\n"))
    job.phase, code = "Succeeded", process.wait()
    if code:
        job.phase, job.terminated = "Failed", {"exitCode": code, "reason": "Error"}
    job.end("Failed" if code else "Complete", "JobsFailed" if code else "JobsCompleted", "jobset ended")


@contextlib.contextmanager
def trainer_server() -> Iterator[Trainer]:
    """Starts one on a free loopback port."""
    state = Trainer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, said = (state.errors.pop(0), {}) if state.errors else _reply(state, self.command, self.path, body)
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, bytes) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _reply(state: Trainer, method: str, path: str, body: Any) -> tuple[int, Any]:
    parts, query = urlsplit(path).path.strip("/").split("/"), parse_qs(urlsplit(path).query)
    if "trainjobs" in parts:
        return _of_job(state, method, parts[-1], body)
    if parts[-1] == "pods":
        job = state.jobs.get(query["labelSelector"][0].partition("=")[2])
        return 200, {"kind": "PodList", "items": [_pod(job)] if job and job.phase else []}
    if parts[-1] == "nodes":
        return 200, {"kind": "NodeList", "items": []}
    if parts[-1] == "log":
        job = state.jobs.get(parts[-2].removesuffix("-node-0-0-x"))
        return (404, {}) if job is None or job.mute else (200, b"".join(job.lines))
    return (200, {}) if "trainingruntimes" in parts and parts[-1] in state.runtimes else (404, {})


def _of_job(state: Trainer, method: str, name: str, body: Any) -> tuple[int, Any]:
    if method == "POST":
        if body["metadata"]["name"] in state.jobs:
            return 409, {}
        state.add(body)
        return 201, body
    job = state.jobs.get(name)
    if job is None:
        return 404, {}
    if method == "DELETE":
        state.jobs.pop(name).gone.set()
        return 200, {}
    return 200, {**job.body, "status": {"conditions": job.conditions}}


def _pod(job: Job) -> dict[str, Any]:
    state = {"terminated": job.terminated} if job.terminated else {"running": {}} if job.phase == "Running" else {}
    status = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    metadata = {"name": f"{job.name}-node-0-0-x", "creationTimestamp": "2026-01-05T03:00:00Z"}
    return {"metadata": metadata, "status": {"phase": job.phase, "containerStatuses": [status]}}
