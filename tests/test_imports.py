"""Imports point down only, and a control step needs neither torch nor kfp."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = (
    ("pipelines", "components", "sparring.cli"),
    ("sparring.steps",),
    (
        *("sparring.train", "sparring.evaluate", "sparring.gate", "sparring.registry", "sparring.data"),
        *("sparring.replay", "sparring.report", "sparring.monitor", "sparring.importers"),
    ),
    ("sparring.game", "sparring.policy", "sparring.judge", "sparring.store", "sparring.embedding", "sparring.progress"),
    ("sparring.config", "sparring.errors"),
)
"""From the top down. Within a layer everything may import everything; `integrations` is looked at on its own."""

ALLOWED_UP = {
    # the base model is put into the store as a checkpoint: the one upward step, and it is a single call
    ("sparring.policy", "sparring.registry"),
}


def modules() -> Iterator[tuple[str, Path]]:
    for top in ("sparring", "components", "pipelines"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each absolute import, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def unit(module: str) -> str | None:
    """The layered package that a module belongs to."""
    known = [name for layer in LAYERS for name in layer if module == name or module.startswith(name + ".")]
    return max(known, key=len, default=None)


def height(name: str) -> int:
    return next(index for index, layer in enumerate(reversed(LAYERS)) if name in layer)


def test_imports_point_down_only() -> None:
    wrong = []
    for module, path in modules():
        mine = unit(module)
        for line, target in imported(path):
            theirs = unit(target)
            if (
                mine
                and theirs
                and mine != theirs
                and height(theirs) > height(mine)
                and (mine, theirs) not in ALLOWED_UP
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {mine} imports {theirs}")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_a_layer() -> None:
    packages = {".".join(module.split(".")[:2]) for module, path in modules() if path.parent != ROOT / "sparring"}
    unknown = {name for name in packages if name.startswith("sparring.")} - {unit(name) for name in packages}
    assert unknown <= {"sparring.integrations"}


def test_only_the_outermost_layer_knows_kubeflow() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {target}"
        for module, path in modules()
        if not module.startswith(("components", "pipelines", "sparring.integrations"))
        for line, target in imported(path)
        if target.split(".")[0] in ("kfp", "kubernetes")
    ]
    assert not wrong


def test_only_commands_use_integrations() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {target}"
        for module, path in modules()
        if not module.startswith(("components", "pipelines", "sparring.cli", "sparring.integrations"))
        for line, target in imported(path)
        if target.startswith("sparring.integrations")
    ]
    assert not wrong


CONTROL = (
    *("sparring.cli.main", "sparring.steps.entry", "sparring.steps.prepare", "sparring.steps.update_pool"),
    *("sparring.steps.judge", "sparring.steps.gate", "sparring.steps.promote", "sparring.steps.report"),
    *("sparring.config.load", "sparring.store.s3", "sparring.judge.embedded.judge"),
    *("sparring.monitor.exporter", "sparring.cli.exporter"),
)


@pytest.mark.parametrize("module", CONTROL)
def test_control_steps_import_neither_torch_nor_kfp(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'transformers', 'trl', 'kfp') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = "('numpy', 'pyarrow', 'pydantic', 'boto3', 'scipy', 'deltalake', 'matplotlib', 'rich.console')"
    code = f"import sys, sparring.cli.main; print([n for n in {heavy} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("[]", "['rich.console']")  # some releases of typer load rich themselves


def test_an_s3_store_does_not_load_pyopenssl_and_leaves_it_to_others() -> None:
    code = (
        "import sys; from sparring.store import open_store; open_store('s3://bucket/prefix'); "
        "assert 'botocore.httpsession' in sys.modules; assert 'OpenSSL' not in sys.modules, 'loaded for nothing'; "
        "import urllib3.contrib.pyopenssl; assert 'OpenSSL' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
