"""From a run file to a `RunConfig`: recipe preset, then the file's keys, then overrides; every mistake is one line.

A relative path in the file is relative to the file, one in an override to the working folder.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sparring.config.checks import cross_check
from sparring.config.paths import make_absolute
from sparring.config.recipes import RECIPES
from sparring.config.run import RunConfig
from sparring.config.yaml_file import Document, KeyPath, parse_value, read_yaml
from sparring.errors import ConfigError

Tree = dict[str, Any]


def load_run(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run.

    `path`: a run file, or None for the defaults. `overrides`: `section.key=value`, values in YAML, each winning over
    the file. Raises ConfigError with file and line (or the override), the key, its value and what is allowed.
    """
    document = read_yaml(path) if path else Document("defaults", {}, {})
    own = make_absolute(_fill_empty_sections(document.data), path.absolute().parent if path else Path.cwd())
    _refuse_unknown(own, document)
    for text in overrides:
        own = _merge(own, _override(text))
    preset = RECIPES.get(str(own.get("recipe", "default")), {})
    config = _validate(_merge(preset, own), document, overrides)
    problem = cross_check(config)
    if problem:
        raise ConfigError(f"{_place(problem.path, document, overrides)}: {problem.text}")
    return config


def json_schema() -> dict[str, Any]:
    """JSON schema of the run file, for editors."""
    return RunConfig.model_json_schema()


def _fill_empty_sections(data: Mapping[str, object]) -> Tree:
    """`selfplay:` with nothing under it means the section's defaults."""
    return {key: {} if value is None and _section(RunConfig, key) else value for key, value in data.items()}


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    field = model.model_fields.get(key)
    return _model_of(field.annotation) if field else None


def models_of(annotation: object) -> list[type[BaseModel]]:
    """The sections that a type names, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_of(argument)]


def _model_of(annotation: object) -> type[BaseModel] | None:
    return next(iter(models_of(annotation)), None)


def named_model(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds under names of the user's own, as `judge.endpoints` does; None for other keys."""
    return _model_of(field.annotation) if get_origin(field.annotation) is dict else None


def listed_models(field: FieldInfo) -> list[type[BaseModel]]:
    """The sections, one a kind, that a key holds a list of, as `hooks` does; none for other keys."""
    return models_of(field.annotation) if get_origin(field.annotation) is list else []


def described(field: FieldInfo) -> str:
    """What a key means: its description, else that of the section it holds."""
    model = _model_of(field.annotation)
    return field.description or str(model.__doc__ if model else "").partition("\n")[0]


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """`above` wins; mappings are merged, lists and values replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _override(text: str) -> Tree:
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"override {text!r}: must be section.key=value, as in selfplay.steps=4")
    try:
        tree: object = parse_value(value)
    except ConfigError as error:
        raise ConfigError(f"override {text!r}: {error.message}") from error
    for name in reversed(names):
        tree = {name: tree}
    assert isinstance(tree, dict)
    _refuse_unknown(tree, Document(f"override {text!r}", {}, {}))
    return dict(make_absolute(tree, Path.cwd()))


def _refuse_unknown(tree: Mapping[str, Any], document: Document) -> None:
    for path, model in _unknown(tree, RunConfig, ()):
        name = ".".join(str(part) for part in path)
        raise ConfigError(f"{document.at(path)}: unknown key `{name}`", hint=_suggestion(str(path[-1]), model))


def _unknown(value: object, model: type[BaseModel], path: KeyPath) -> Iterator[tuple[KeyPath, type[BaseModel]]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = _section(model, key)
            if key not in model.model_fields:
                yield (*path, key), model
            elif inner and named_model(model.model_fields[key]) and isinstance(item, Mapping):
                for name, one in item.items():
                    yield from _unknown(one, inner, (*path, key, name))
            elif inner and isinstance(item, list):
                for index, one in enumerate(item):
                    yield from _unknown(
                        one, _of_kind(model.model_fields[key].annotation, one) or inner, (*path, key, index)
                    )
            elif inner:
                yield from _unknown(item, inner, (*path, key))


def _of_kind(annotation: object, value: object) -> type[BaseModel] | None:
    """Of sections that are told apart by their `kind`, as hooks are, the one that `value` is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get("kind")
        named = value.get("kind") if isinstance(value, Mapping) else None
        return annotation if field and named in get_args(field.annotation) else None
    found = (_of_kind(argument, value) for argument in get_args(annotation))
    return next((model for model in found if model), None)


def _suggestion(key: str, model: type[BaseModel]) -> str:
    everywhere = dict(_all_keys(RunConfig, ""))
    here = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.6)
    same = [name for name, leaf in everywhere.items() if leaf == key]
    near = difflib.get_close_matches(key, everywhere.values(), n=1, cutoff=0.6)
    names = same or here or [name for name, leaf in everywhere.items() if leaf in near]
    if names:
        return "did you mean " + " or ".join(f"`{name}`" for name in names) + "?"
    return f"known here: {', '.join(model.model_fields)}"


def _all_keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name in model.model_fields:
        yield prefix + name, name
        inner = _section(model, name)
        if inner:
            yield from _all_keys(inner, f"{prefix}{name}.")


def _validate(tree: Tree, document: Document, overrides: Sequence[str]) -> RunConfig:
    try:  # JSON mode is the strict one that still takes lists and mappings; `steps: yes` is not the number 1
        return RunConfig.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    path = tuple(part for part in first["loc"])
    name = ".".join(str(part) for part in path) or "the file"
    wrong = (
        f"`{name}` is missing"
        if first["type"] == "missing"
        else f"{name} = {_short(first['input'])}: {_allowed(first)}"
    )
    raise ConfigError(f"{_place(path, document, overrides)}: {wrong}{more}", hint=_described(path))


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"])
    for noise in ("Input ", "String ", "List ", "Value error, "):
        message = message.removeprefix(noise)
    return message.replace("\n", " ").replace("valid array", "list")


def _described(path: KeyPath) -> str | None:
    field = _field(path)
    names = [part for part in path if isinstance(part, str)]
    return f"{names[-1]}: {field.description}" if field and field.description else None


def _field(path: Iterable[str | int]) -> FieldInfo | None:
    model: type[BaseModel] | None = RunConfig
    field: FieldInfo | None = None
    named = False
    for part in (part for part in path if isinstance(part, str)):
        if named and model:  # a user's own name for a section
            named = False
            continue
        field = model.model_fields.get(part) if model else None
        model = _model_of(field.annotation) if field else None
        named = field is not None and named_model(field) is not None
    return field


def _place(path: KeyPath, document: Document, overrides: Sequence[str]) -> str:
    name = ".".join(str(part) for part in path)
    for text in reversed(overrides):
        key = text.partition("=")[0].strip()
        if f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}."):
            return f"override {text!r}"
    return document.at(path)
