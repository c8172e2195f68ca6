"""Writes a configuration as a run file in which every key stands under its description."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel

from sparring.config.load import described, listed_models, models_of, named_model
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
            yield from _keys(model, indent, "Keys under each name")
        for model in listed_models(field):
            yield from _keys(model, indent, f"Keys of each entry{_of_kind(model)}")


def _of_kind(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind")
    kinds = get_args(field.annotation) if field and not field.description else ()
    return f" of kind {kinds[0]}" if kinds else ""


def _comment(text: str | None, indent: str) -> list[str]:
    return textwrap.wrap(text or "", _WIDTH, initial_indent=indent + "# ", subsequent_indent=indent + "# ")


def _keys(model: type[BaseModel], indent: str, head: str) -> Iterator[str]:
    """The keys that stand in an entry of the user's own: there may be none whose values could be shown."""
    yield f"{indent}# {head}:"
    yield from _key_lines(model, f"{indent}#   ")


def _key_lines(model: type[BaseModel], indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "kind" and not field.description:
            continue  # the head names it
        default = "required" if field.is_required() else json.dumps(_plain(field.get_default()), default=str)
        text = f"{name}: {described(field)} ({default if default == 'required' else f'default {default}'})"
        yield from textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ")
        for inner in models_of(field.annotation):
            yield from _key_lines(inner, f"{indent}  ")


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
