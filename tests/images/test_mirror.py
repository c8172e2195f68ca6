"""The mirror finds every image, wherever a document names it, and only prints unless told to copy."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent.parent
NAMES = st.from_regex(r"([a-z]{1,8}\.example(:5000)?/)?[a-z]{1,8}(/[a-z]{1,8})?(:[a-z0-9.]{1,6})?", fullmatch=True)


def mirror(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "images/mirror.py"), "--to", "registry.example/ours/", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def pod(kind: str, names: list[str]) -> dict[str, object]:
    containers = {kind: [{"name": "c", "image": name} for name in names]}
    return {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": containers}}}}}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "round.yaml"
    subprocess.run(
        [sys.executable, "-m", "pipelines", "compile", "-o", path], check=True, capture_output=True, cwd=ROOT
    )
    return path


def test_the_pipelines_images_are_found(compiled: Path) -> None:
    executors = [document["deploymentSpec"]["executors"] for document in yaml.safe_load_all(compiled.read_text())
                 if "deploymentSpec" in document]  # fmt: skip
    named = {executor["container"]["image"] for one in executors for executor in one.values()}
    copied = [line.split()[-2].removeprefix("docker://") for line in mirror(str(compiled)).stdout.splitlines()]
    assert set(copied) == named and len(copied) == len(named) > 0


@given(st.lists(NAMES, min_size=1, unique=True), st.sampled_from(["containers", "initContainers"]))
def test_every_image_of_a_manifest_is_copied_once_under_a_name_of_its_own(names: list[str], kind: str) -> None:
    copies = runpy.run_path(str(ROOT / "images/mirror.py"))["copies"]
    text = yaml.safe_dump_all([pod(kind, names), pod(kind, names)])
    ours = {name: re.sub(r"^[a-z]+\.example(:5000)?/", "", name) for name in names}
    if len(set(ours.values())) < len(names):
        with pytest.raises(ValueError, match="one name"):
            copies([text], "registry.example/ours/")
        return
    pairs = [(source.removeprefix("docker://"), copy) for *_, source, copy in copies([text], "registry.example/ours/")]
    assert pairs == [(name, f"docker://registry.example/ours/{ours[name]}") for name in sorted(names)]


def test_manifests_without_an_image_are_a_mistake() -> None:
    result = mirror("-", text="kind: ConfigMap\n")
    assert result.returncode == 1 and result.stderr == "mirror: no image is named in -\n"


def test_run_hands_the_commands_to_skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the program writes down how it is called; without --run it is not called."""
    calls = tmp_path / "calls"
    (tmp_path / "skopeo").write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    (tmp_path / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    text = yaml.safe_dump(pod("containers", ["a/b:1", "c@sha256:0"]))
    assert mirror("-", text=text).returncode == 0 and not calls.exists()
    assert mirror("--run", "-", text=text).returncode == 0
    wanted = [f"copy --all --preserve-digests docker://{one} docker://registry.example/ours/{one}"
              for one in ("a/b:1", "c@sha256:0")]  # fmt: skip
    assert calls.read_text().splitlines() == wanted
