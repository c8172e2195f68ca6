"""Writes a configuration as a run file in which every key stands under its description."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import yaml
from pydantic import BaseModel

from sparring.config.run import RunConfig

_WIDTH: Final = 110


def render(config: RunConfig) -> str:
    """YAML that `load_run` reads back to an equal configuration (paths as they are in `config`)."""
    head = "# A run of sparring. Every key may be left out; these are the values in force.\n\n"
    return head + "\n".join(_section(config, "")) + "\n"


def _section(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _nested(name, value, indent)
            continue
        if field.description:
            yield from textwrap.wrap(
                field.description, _WIDTH, initial_indent=indent + "# ", subsequent_indent=indent + "# "
            )
        yield textwrap.indent(_entry(name, value), indent)


def _nested(name: str, value: BaseModel, indent: str) -> Iterator[str]:
    yield ""
    yield f"{indent}# {(type(value).__doc__ or name).splitlines()[0]}"
    yield f"{indent}{name}:"
    yield from _section(value, indent + "  ")


def _entry(name: str, value: Any) -> str:
    plain = (
        [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in value]
        if isinstance(value, list)
        else value
    )
    return str(yaml.safe_dump({name: plain}, default_flow_style=False, sort_keys=False, width=10_000)).rstrip("\n")
