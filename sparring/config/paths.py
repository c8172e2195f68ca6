"""Which values of a run file are paths, and what a relative one is relative to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

STARTER: Final = "starter"
"""The bundled data set, where a path to a user's own may stand."""

Rule = Callable[[str, Path], str]


def make_absolute(value: Any, folder: Path, at: tuple[str, ...] = ()) -> Any:
    """`value` (a run file's tree or part of it, `at` naming the place) with relative paths seen from `folder`.

    Addresses with a scheme (`s3://…`), `starter`, shipped policies and hub ids stay as they are; so do values of a
    wrong type, which validation names later.
    """
    if isinstance(value, Mapping):
        return {key: make_absolute(item, folder, (*at, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [make_absolute(item, folder, (*at, "*")) for item in value]
    rule = _RULES.get(at)
    return rule(value, folder) if rule and isinstance(value, str) and value else value


def _path(value: str, folder: Path) -> str:
    try:
        return value if "://" in value or value.startswith("/") else str(folder / Path(value).expanduser())
    except RuntimeError:  # `~nobody`: validation names it
        return value


def _data(value: str, folder: Path) -> str:
    return value if value == STARTER else _path(value, folder)


def _model(value: str, folder: Path) -> str:
    """`name/name` may be a hub id as well as a folder: it is a folder when one is there or it is written as one."""
    written_as_folder = value.startswith((".", "~", "/"))
    return _path(value, folder) if written_as_folder or (folder / value).is_dir() else value


def _policy(value: str, folder: Path) -> str:
    return _path(value, folder) if value.endswith((".yaml", ".yml")) else value


_RULES: Final[Mapping[tuple[str, ...], Rule]] = {
    ("store",): _path,
    ("candidate",): _path,
    ("model", "source"): _model,
    ("data", "harmful", "*"): _data,
    ("data", "benign", "*"): _data,
    ("data", "suites", "*", "path"): _path,
    ("gate", "first_run"): _policy,
    ("gate", "policy"): _policy,
    ("cluster", "ca_file"): _path,
    ("hooks", "*", "ca_file"): _path,
    **{("hooks", "*", secret, "file"): _path for secret in ("secret", "token", "url")},
    ("registry", "verify_key"): _path,
}
