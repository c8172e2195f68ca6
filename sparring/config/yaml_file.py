"""Reads one YAML mapping strictly: bounded size, UTF-8, no duplicate keys, no aliases, the line of every key.

Shared by the run file and by gate policy files, so that both say in the same words what is wrong with a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from sparring.errors import ConfigError

MAX_BYTES: Final = 1 << 20
"""A configuration larger than this is something else by mistake."""
MAX_DEPTH: Final = 32

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A YAML mapping as plain data. `lines[("selfplay", "steps")]` is the line that key stands on, from 1."""

    name: str
    data: Mapping[str, object]
    lines: Mapping[KeyPath, int]

    def at(self, path: KeyPath) -> str:
        """`file:line` of a key, or of the nearest key around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-5 as a number, as YAML 1.2 and everybody who writes a learning rate do."""


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which `read_yaml` would take for a number."""


for _side in (_Loader, Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def read_yaml(path: Path) -> Document:
    """The mapping in the file at `path`. Raises ConfigError: one line that names the file and mostly the line."""
    return parse_yaml(_decode(_read_bounded(path), str(path)), str(path))


def parse_yaml(text: str, name: str) -> Document:
    """The mapping written in `text`; `name` stands for it in messages. Raises ConfigError."""
    try:
        return _document(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {_words(error)}") from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{name}: character {error.position + 1} may not stand in YAML") from error
    except ValueError as error:  # a scalar that looks like a date or a number and is none
        raise ConfigError(f"{name}: not valid YAML: {error}", hint="put the value in quotes") from error


def parse_value(text: str) -> object:
    """One scalar or flow value, as in `key=value` on a command line. Raises ConfigError."""
    return parse_yaml(f"value: {text}", "value").data["value"]


def _words(error: yaml.MarkedYAMLError) -> str:
    return " ".join(part for part in (error.context, error.problem) if part).replace("\n", " ")


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so it is no configuration file")
    return content


def _decode(content: bytes, name: str) -> str:
    if b"\0" in content:
        raise ConfigError(f"{name}: a binary file (it holds a NUL byte), not YAML")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: not UTF-8 text", hint="save the file as UTF-8") from error


def _document(text: str, name: str) -> Document:
    _refuse_bombs(text, name)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{name}: empty", hint="leave the file out to run with the defaults")
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{name}: a list or a single value where `key: value` lines are expected")
        lines = dict(_lines(node, (), name))
        return Document(name, loader.construct_document(node), lines)
    finally:
        loader.dispose()


def _refuse_bombs(text: str, name: str) -> None:
    """Nothing here needs aliases or deep nesting: a few nested aliases expand to gigabytes, brackets cost hours."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{name}:{line}: aliases (*{event.anchor}) are not read here")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{name}:{line}: nested more than {MAX_DEPTH} deep")


def _lines(node: yaml.Node, path: KeyPath, name: str) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _lines(item, (*path, index), name)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"{name}:{line}: a key must be a plain word")
            if key.value in first:
                raise ConfigError(f"{name}:{line}: `{key.value}` stands here twice (first on line {first[key.value]})")
            first[key.value] = line
            yield (*path, key.value), line
            yield from _lines(value, (*path, key.value), name)
