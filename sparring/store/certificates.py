"""Certificates for deltalake, which knows neither AWS_CA_BUNDLE nor an option for them, only SSL_CERT_FILE."""

from __future__ import annotations

import atexit
import os
import ssl
import tempfile
from pathlib import Path

from sparring.errors import ConfigError


def trust(bundle: str) -> None:
    """Makes SSL_CERT_FILE of this process hold the certificates of `bundle` beside those that it trusts already.

    Replacing them would cut this process off from every other server. Raises ConfigError for an unreadable bundle.
    """
    trusted = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    try:
        wanted = Path(bundle).read_bytes()
        before = Path(trusted).read_bytes() if trusted else b""
    except OSError as error:
        raise ConfigError(f"cannot read certificates: {error}", hint="look at AWS_CA_BUNDLE, SSL_CERT_FILE") from error
    if wanted in before:
        return
    handle, path = tempfile.mkstemp(prefix="sparring-certificates-", suffix=".pem")
    with os.fdopen(handle, "wb") as file:
        file.write(before + b"\n" + wanted)
    atexit.register(Path(path).unlink, missing_ok=True)
    os.environ["SSL_CERT_FILE"] = path
