"""Formats of judges, one a file: what is asked, and a strict parser of the reply."""

from __future__ import annotations

from sparring.config.judges import EndpointConfig
from sparring.judge.formats import (
    custom,
    graded,
    granite_guardian,
    harmbench,
    llama_guard,
    qwen3guard,
    strongreject,
    wildguard,
)
from sparring.judge.formats.base import Format, Request

_FIXED = {
    found.name: found
    for found in (
        wildguard.FORMAT,
        qwen3guard.FORMAT,
        llama_guard.FORMAT,
        harmbench.FORMAT,
        granite_guardian.FORMAT_3,
        granite_guardian.FORMAT_4,
    )
}


def make_format(config: EndpointConfig) -> Format:
    """The format of an endpoint, with its threshold or template."""
    if config.format == "strongreject":
        return strongreject.make(config.threshold)
    if config.format == "graded":
        return graded.make(config.threshold)
    return custom.make(config) if config.format == "custom" else _FIXED[config.format]


__all__ = ["Format", "Request", "make_format"]
