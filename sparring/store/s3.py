"""An S3 bucket as a store, through boto3.

A conditional put carries a nonce in the object's metadata. Any retry, ours, botocore's or a proxy's, may find that an
attempt whose reply was lost did its work; the nonce then tells our own object from another's with the same bytes.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import S3TransferRetriesExceededError, TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sparring.errors import ConfigError, CorruptError, NotFoundError, StoreError
from sparring.store.faults import LOST, explain, status_of
from sparring.store.files import reading, writing_aside
from sparring.store.keys import check_key, check_prefix, join

_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(?P<prefix>.*))?", re.DOTALL)
_NONCE = "sparring-nonce"
_TRIES = 6
_PART = 64 << 20
_TRANSFER = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"total_max_attempts": 4, "mode": "standard"},  # exponential back-off with jitter
    tcp_keepalive=True,
)


@dataclass
class _Connection:
    """What all scopes of one store share. A client must not cross a fork, so there is one a process."""

    endpoint: str | None
    clients: dict[int, Any] = field(default_factory=dict)
    seen: bool = False  # the bucket has answered once, so that a 404 means the key

    def session(self) -> Any:
        try:
            return boto3.session.Session()
        except BotoCoreError as error:  # a profile that does not exist
            raise ConfigError(f"S3 settings: {error}") from error

    def client(self) -> Any:
        found = self.clients.get(os.getpid())
        if found is None:
            config = _CONFIG.merge(Config(s3={"addressing_style": "path"})) if self.endpoint else _CONFIG
            session = self.session()
            try:
                found = session.client(
                    "s3", endpoint_url=self.endpoint, region_name=session.region_name or "us-east-1", config=config
                )
            except (BotoCoreError, ValueError) as error:
                raise ConfigError(
                    f"S3 settings: {error}", hint="look at AWS_ENDPOINT_URL and the AWS profile"
                ) from error
            self.clients[os.getpid()] = found
        return found


class S3Store:
    """`Store` in a bucket, below a prefix."""

    def __init__(self, bucket: str, prefix: str = "", *, connection: _Connection) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._connection = connection
        self.url = f"s3://{join(bucket, prefix)}" if prefix else f"s3://{bucket}"

    @classmethod
    def from_url(cls, url: str) -> S3Store:
        """The store at `s3://bucket/prefix`; nothing is asked yet. Raises ConfigError."""
        match = _URL.fullmatch(url)
        if not match:
            where = "an s3:// url with credentials" if "@" in url else f"store {url!r}"
            raise ConfigError(f"{where} is not of the form s3://bucket/prefix")
        prefix = (match["prefix"] or "").strip("/")
        try:
            prefix = check_key(prefix) if prefix else ""
        except StoreError as error:
            raise ConfigError(f"store {url!r}: {error.message}") from error
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        return cls(match["bucket"], prefix, connection=_Connection(endpoint))

    def get(self, key: str) -> bytes:
        """See `Store.get`."""
        with self._faults("read", key):
            for left in reversed(range(_TRIES)):
                try:
                    data = self._client.get_object(**self._at(key))["Body"].read()
                    break
                except LOST:  # botocore retries the request, not the reading of the body
                    if not left:
                        raise
                    _wait(_TRIES - left)
        return bytes(data)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        with self._faults("write", key):
            self._client.put_object(**self._at(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `Store.put_if_absent`."""
        nonce = uuid.uuid4().hex
        with self._faults("claim", key):
            for tries in range(1, _TRIES + 1):
                won = self._claim(key, data, nonce)
                if won is not None:
                    return won
                _wait(tries)
        raise StoreError(f"cannot claim {key!r} in {self.url}: {_TRIES} tries met a conflict", hint="try again later")

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        try:
            self._head(key)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        """See `Store.list`."""
        start = f"{self._prefix}/" if self._prefix else ""
        with self._faults("list", check_prefix(prefix)):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start + prefix)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return sorted(key.removeprefix(start) for key in keys if not key.endswith("/"))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._faults("delete", key):
            self._client.delete_object(**self._at(key))

    def upload(self, path: Path, key: str) -> None:
        """See `Store.upload`. Parts of 64 MiB, four at once; a killed upload leaves parts that nobody sees."""
        with reading(path) as file, self._faults("write", key):
            self._client.upload_fileobj(file, Bucket=self._bucket, Key=self._at(key)["Key"], Config=_TRANSFER)

    def download(self, key: str, path: Path) -> None:
        """See `Store.download`."""
        size = self._head(key)
        with writing_aside(path) as file, self._faults("read", key):
            self._client.download_fileobj(Fileobj=file, **self._at(key), Config=_TRANSFER)
            if file.tell() != size and os.fstat(file.fileno()).st_size != size:
                raise CorruptError(f"{key!r} in {self.url} came with another size than {size} bytes")

    def scope(self, prefix: str) -> S3Store:
        """See `Store.scope`."""
        return S3Store(self._bucket, join(self._prefix, check_key(prefix)), connection=self._connection)

    def delta(self, key: str) -> tuple[str, dict[str, str]]:
        """See `Store.delta`. Ask again for each use: temporary credentials end.

        deltalake takes further certificates from SSL_CERT_FILE alone; it is set from AWS_CA_BUNDLE when absent.
        """
        session = self._connection.session()
        with self._faults("find credentials for", key):
            found = session.get_credentials()
            frozen = found.get_frozen_credentials() if found else None
        if frozen is None:
            raise StoreError(f"no credentials for {self.url}", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        options = {
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "AWS_REGION": session.region_name or "us-east-1",
            "aws_conditional_put": "etag",
            "connect_timeout": "5s",
            "timeout": "60s",
            "max_retries": "4",
            "retry_timeout": "60s",
        }
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
        return f"s3://{self._bucket}/{self._at(key)['Key']}", options | self._endpoint_options()

    def _endpoint_options(self) -> dict[str, str]:
        bundle = os.environ.get("AWS_CA_BUNDLE")
        if bundle:
            os.environ.setdefault("SSL_CERT_FILE", bundle)
        endpoint = self._connection.endpoint
        if endpoint is None:
            return {}
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower(),
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    @property
    def _client(self) -> Any:
        return self._connection.client()

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": join(self._prefix, check_key(key))}

    def _head(self, key: str) -> int:
        """Size of an object. Raises NotFoundError."""
        with self._faults("look for", key):
            return int(self._client.head_object(**self._at(key))["ContentLength"])

    def _claim(self, key: str, data: bytes, nonce: str) -> bool | None:
        """One conditional put: True won, False lost, None look again."""
        try:
            self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*", Metadata={_NONCE: nonce})
        except ClientError as error:
            if status_of(error) in (409, 412) or status_of(error) >= 500:
                return self._owner_is(key, nonce, otherwise=error)
            raise
        except LOST as error:
            return self._owner_is(key, nonce, otherwise=error)
        return True

    def _owner_is(self, key: str, nonce: str, *, otherwise: Exception) -> bool | None:
        """Whether the object there is of this very call; None when there is none after a conflict."""
        try:
            found = self._client.head_object(**self._at(key))
        except ClientError as error:
            if status_of(error) != 404:
                raise
            if isinstance(otherwise, ClientError) and status_of(otherwise) in (409, 412):
                return None  # in the making, or removed meanwhile
            raise otherwise from error
        return bool(found["Metadata"].get(_NONCE) == nonce)

    @contextmanager
    def _faults(self, action: str, key: str) -> Iterator[None]:
        """Turns what boto3 raises into one clear line."""
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error, S3TransferRetriesExceededError, *LOST) as error:
            if status_of(error) == 404 and not self._connection.seen:
                self._ask_for_bucket()
            raise explain(error, action=action, key=key, url=self.url) from error
        self._connection.seen = True

    def _ask_for_bucket(self) -> None:
        """A missing bucket and a missing key both answer a HEAD with a bare 404."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (ClientError, BotoCoreError, *LOST) as error:
            if status_of(error) == 404:
                where = self._connection.endpoint or "AWS"
                message = f"bucket {self._bucket!r} does not exist at {where}"
                raise StoreError(message, hint="make the bucket or correct the store's url") from error
            raise explain(error, action="look for", key=self._bucket, url=self.url) from error
        self._connection.seen = True


def _wait(tries: int) -> None:
    time.sleep(random.uniform(0.5, 1.0) * min(3.0, 0.1 * 2**tries))
