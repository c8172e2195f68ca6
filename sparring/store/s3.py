"""An S3 bucket as a store, through boto3.

A conditional put carries a nonce in the object's metadata. Any retry, ours, botocore's or a proxy's, may find that an
attempt whose reply was lost did its work; the nonce then tells our own object from another's with the same bytes.
"""

from __future__ import annotations

import builtins
import os
import random
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import S3TransferRetriesExceededError, TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sparring.errors import ConfigError, NotFoundError, StoreError
from sparring.store.base import Entry
from sparring.store.certificates import trust
from sparring.store.faults import LOST, explain, is_passing, status_of
from sparring.store.files import file_errors, writing_aside
from sparring.store.keys import check_key, check_prefix, join

_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(?P<prefix>.*))?", re.DOTALL)
_NONCE = "sparring-nonce"
T = TypeVar("T")
_TRIES = 6
_PAUSE = 0.4  # seconds before the second try; doubled for each further one
_PATIENCE = 40.0  # seconds after which nothing is asked again
_PART = 64 << 20
_TRANSFER = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"total_max_attempts": 2, "mode": "standard"},  # for the parts of a transfer; `_ask` has more
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
        return self._ask("read", key, lambda: bytes(self._client.get_object(**self._at(key))["Body"].read()))

    def get_part(self, key: str, start: int, length: int) -> bytes:
        """See `Store.get_part`."""
        place = {**self._at(key), "Range": f"bytes={start}-{start + length - 1}"}

        def part() -> bytes:
            try:
                return bytes(self._client.get_object(**place)["Body"].read())
            except ClientError as error:
                if status_of(error) != 416:  # it ends before `start`
                    raise
                return b""

        return self._ask("read", key, part)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        self._ask("write", key, lambda: self._client.put_object(**self._at(key), Body=data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `Store.put_if_absent`; a second call with the same bytes is another caller."""
        nonce = uuid.uuid4().hex

        def claim() -> bool:
            try:
                self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*", Metadata={_NONCE: nonce})
            except (ClientError, *LOST) as error:
                if not is_passing(error):
                    raise
                return self._is_mine(key, nonce, error)
            return True

        return self._ask("claim", key, claim)

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        try:
            self._ask("look for", key, lambda: self._client.head_object(**self._at(key)))
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        """See `Store.list`."""
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str = "") -> builtins.list[Entry]:
        """See `Store.entries`."""
        start = f"{self._prefix}/" if self._prefix else ""
        place = {"Bucket": self._bucket, "Prefix": start + check_prefix(prefix)}

        def pages() -> builtins.list[Any]:
            answers = self._client.get_paginator("list_objects_v2").paginate(**place)
            return [entry for page in answers for entry in page.get("Contents", ())]

        found = [entry for entry in self._ask("list", prefix, pages) if not str(entry["Key"]).endswith("/")]
        entries = (
            Entry(str(e["Key"]).removeprefix(start), int(e["Size"]), e["LastModified"].timestamp()) for e in found
        )
        return sorted(entries, key=lambda entry: entry.key)

    def folders(self, prefix: str) -> builtins.list[str]:
        """See `Store.folders`."""
        place = self._at(prefix)
        start = f"{place['Key']}/"

        def pages() -> builtins.list[str]:
            ask = self._client.get_paginator("list_objects_v2").paginate
            answers = ask(Bucket=self._bucket, Prefix=start, Delimiter="/")
            return [str(found["Prefix"]) for page in answers for found in page.get("CommonPrefixes", ())]

        return sorted(found.removeprefix(start).rstrip("/") for found in self._ask("list", prefix, pages))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._ask("delete", key, lambda: self._client.delete_object(**self._at(key)))

    def upload(self, path: Path, key: str) -> None:
        """See `Store.upload`. Parts of 64 MiB, four at once; a killed upload leaves parts that nobody sees."""
        with file_errors("read", path):
            self._ask("write", key, lambda: self._client.upload_file(str(path), **self._at(key), Config=_TRANSFER))

    def download(self, key: str, path: Path) -> None:
        """See `Store.download`."""
        with writing_aside(path) as file:

            def fetch() -> None:
                file.truncate(0)
                self._client.download_fileobj(**self._at(key), Fileobj=file, Config=_TRANSFER)

            self._ask("read", key, fetch)

    def scope(self, prefix: str) -> S3Store:
        """See `Store.scope`."""
        return S3Store(self._bucket, join(self._prefix, check_key(prefix)), connection=self._connection)

    def delta(self, key: str) -> tuple[str, dict[str, str]]:
        """See `Store.delta`. Ask again for each use: temporary credentials end.

        Certificates of AWS_CA_BUNDLE are added to this process's SSL_CERT_FILE, from where deltalake takes them.
        """
        session = self._connection.session()
        frozen = self._ask("find credentials for", key, lambda: _credentials(session))
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
        endpoint = self._connection.endpoint
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            trust(bundle)
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

    def _is_mine(self, key: str, nonce: str, error: Exception) -> bool:
        """Whether the object there is of this very call; when there is none, `error` stands."""
        try:
            found = self._client.head_object(**self._at(key))
        except ClientError as absent:
            if status_of(absent) == 404:
                raise error from absent
            raise
        return bool(found["Metadata"].get(_NONCE) == nonce)

    def _ask(self, action: str, key: str, call: Callable[[], T]) -> T:
        """Asks until there is an answer, for a bounded time; what boto3 raises becomes one clear line."""
        end = time.monotonic() + _PATIENCE
        for tries in count(1):
            try:
                answer = call()
            except (ClientError, BotoCoreError, Boto3Error, S3TransferRetriesExceededError, *LOST) as error:
                if not is_passing(error) or tries == _TRIES or time.monotonic() > end:
                    raise self._explained(error, action, key) from error
                time.sleep(random.uniform(0.5, 1.0) * min(4.0, _PAUSE * 2 ** (tries - 1)))
            else:
                self._connection.seen = True
                return answer
        raise AssertionError("count() does not end")

    def _explained(self, error: Exception, action: str, key: str) -> StoreError:
        """A missing bucket and a missing key both answer a HEAD with a bare 404, so the bucket is looked for once."""
        if status_of(error) == 404 and not self._connection.seen:
            try:
                self._client.head_bucket(Bucket=self._bucket)
                self._connection.seen = True
            except (ClientError, BotoCoreError, *LOST) as other:
                if status_of(other) == 404:
                    where = self._connection.endpoint or "AWS"
                    hint = "make the bucket or correct the store's url"
                    return StoreError(f"bucket {self._bucket!r} does not exist at {where}", hint=hint)
                if status_of(other) != 403:  # a key that is good for one prefix may not ask for the bucket
                    return explain(other, action="look for", key=self._bucket, url=self.url)
                self._connection.seen = True
        return explain(error, action=action, key=key, url=self.url)


def _credentials(session: Any) -> Any:
    """One consistent set (they may be renewed behind the session's back), None when there are none."""
    found = session.get_credentials()
    return found.get_frozen_credentials() if found else None
