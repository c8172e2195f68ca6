"""Writes a configuration as a run file in which every key stands under its description."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Final

import yaml
from pydantic import BaseModel

from sparring.config.load import named_model
from sparring.config.run import RunConfig
from sparring.config.yaml_file import Dumper

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
        yield from _comment(field.description, indent)
        yield textwrap.indent(_entry(name, value), indent)
        if isinstance(value, dict) and (model := named_model(field)):
            yield from _keys(model, indent)


def _comment(text: str | None, indent: str) -> list[str]:
    return textwrap.wrap(text or "", _WIDTH, initial_indent=indent + "# ", subsequent_indent=indent + "# ")


def _keys(model: type[BaseModel], indent: str) -> Iterator[str]:
    """The keys that stand under each of the user's own names: there may be none whose values could be shown."""
    yield f"{indent}# Keys under each name:"
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"default {json.dumps(field.default)}"
        yield from textwrap.wrap(
            f"{name}: {field.description} ({default})",
            _WIDTH,
            initial_indent=f"{indent}#   ",
            subsequent_indent=f"{indent}#     ",
        )


def _nested(name: str, value: BaseModel, indent: str) -> Iterator[str]:
    yield ""
    yield f"{indent}# {(type(value).__doc__ or name).splitlines()[0]}"
    yield f"{indent}{name}:"
    yield from _section(value, indent + "  ")


def _entry(name: str, value: Any) -> str:
    plain = value
    if isinstance(value, list):
        plain = [_plain(item) for item in value]
    elif isinstance(value, dict):
        plain = {key: _plain(item, exclude_none=True) for key, item in value.items()}
    text = yaml.dump({name: plain}, Dumper=Dumper, default_flow_style=False, sort_keys=False, width=10_000)
    return str(text).rstrip("\n")


def _plain(item: Any, *, exclude_none: bool = False) -> Any:
    return item.model_dump(mode="json", exclude_none=exclude_none) if isinstance(item, BaseModel) else item
