"""The object store: a local folder or S3 behind one small protocol."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparring.errors import ConfigError
from sparring.store.base import Store
from sparring.store.local import LocalStore

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """The store at `url`: a folder, `file:///folder` or `s3://bucket/prefix`. Touches neither disk nor network.

    S3: endpoint from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, credentials from boto3's chain. Raises ConfigError.
    """
    if url.startswith("s3://"):
        with _without_pyopenssl():
            from sparring.store.s3 import S3Store  # boto3 costs most of a second: only who needs it pays

        return S3Store.from_url(url)
    path = url.removeprefix("file://")
    if not path.strip() or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ConfigError(f"store {url!r} is neither a folder nor s3://bucket/prefix")
    return LocalStore(Path(path).expanduser())


@contextmanager
def _without_pyopenssl() -> Iterator[None]:
    """Imports inside find no pyOpenSSL shim of urllib3's.

    botocore imports it where there is one, to pass it over and take Python's own SSL; the exporter would hold 9 MB of
    pyOpenSSL and cryptography for that.
    """
    shim = "urllib3.contrib.pyopenssl"
    if shim in sys.modules:
        yield
        return
    sys.modules[shim] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[shim]
