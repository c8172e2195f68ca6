"""The wheel holds everything that the package reads at run time, and the pins name no host."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = {".py", ".pyc"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_data_files_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    files = [path for path in (ROOT / "sparring").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    data = {path.relative_to(ROOT).as_posix() for path in files if path.suffix not in CODE}
    assert {Path(name).suffix for name in data} >= {".jsonl", ".yaml", ".npz", ".typed"}
    assert data <= set(wheel.namelist())


def test_the_wheel_is_the_engine_alone(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"sparring", next(top for top in tops if top.endswith(".dist-info"))}
    assert not [name for name in wheel.namelist() if "__pycache__" in name]


def test_the_core_needs_neither_torch_nor_kfp(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    lines = wheel.read(name).decode().splitlines()
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    core = {re.split(r"[^A-Za-z0-9_-]", need)[0] for need in needs if "extra ==" not in need}
    assert "pydantic" in core and not core & {"torch", "transformers", "trl", "kfp", "kubernetes"}


@pytest.mark.parametrize("name", ["dev.txt", "train.txt", "control.txt", "vllm.txt", "models.txt"])
def test_requirements_are_exact_pins_without_a_host(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+( ; .+)?", line)]
    assert pins and not wrong


def _pins(name: str) -> set[str]:
    """Name and version; where a pin is needed (its marker) may differ."""
    return {line.partition(" ;")[0] for line in (ROOT / "requirements" / name).read_text().splitlines()}


def test_the_control_image_is_pinned_like_the_rest_and_without_torch() -> None:
    dev, control = (_pins(name) for name in ("dev.txt", "control.txt"))
    assert control <= dev
    assert not [line for line in control if line.startswith(("torch==", "transformers==", "nvidia-"))]


def test_the_train_image_lays_its_pins_over_the_control_images() -> None:
    """Both share the layer of control.txt. vLLM holds others back, but never another torch, trl or kfp."""
    train, control, vllm = (_pins(name) for name in ("train.txt", "control.txt", "vllm.txt"))
    assert control <= train
    same = ("torch==", "trl==", "kfp==", "deltalake==", "pyarrow==")
    assert [pin for pin in sorted(vllm) if pin.startswith(same)] == [
        pin for pin in sorted(train) if pin.startswith(same)
    ]
    assert [pin for pin in vllm if pin.startswith("vllm==")]
