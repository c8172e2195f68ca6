"""Reads metrics as Prometheus does."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answer(url: str) -> tuple[int, str]:
    """Status and text of a GET."""
    try:
        with _OPENER.open(url, timeout=30) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def series(text: str) -> Series:
    """Samples by name and labels."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def value(found: Series, name: str, **labels: str) -> float | None:
    """The sample of this name whose labels include these; None without one. There may be only one."""
    matching = [number for (n, has), number in found.items() if n == name and labels.items() <= dict(has).items()]
    assert len(matching) <= 1, (name, labels, matching)
    return matching[0] if matching else None


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
