"""The images' recipes: what can be held without building them. tests/e2e/test_images.py builds on the built ones."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = ("images/Containerfile", "images/judge/Containerfile")
LABELS = {"title", "description", "version", "revision", "source", "licenses", "base.name"}


class Step(NamedTuple):
    """One instruction: `stage` is the name of its build stage, or its base where it has none."""

    stage: str
    word: str
    rest: str


def steps(name: str) -> list[Step]:
    """Instructions of a Containerfile, continued lines joined and comments left out."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    found, stage = [], ""
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        stage = rest.split()[-1] if word == "FROM" else stage
        found += [Step(stage, word, rest)] if word else []
    return found


def images() -> list[tuple[str, list[Step]]]:
    """Every image with the steps of its last stage."""
    built = [(stage, steps(FILES[0])) for stage in ("control", "train")] + [("${BASE}", steps(FILES[1]))]
    return [(stage, [step for step in found if step.stage == stage]) for stage, found in built]


@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, "--no-color", name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_shellcheck_finds_nothing() -> None:
    command = [
        str(Path(sys.executable).with_name("shellcheck")),
        "images/build",
        "requirements/install",
        ".ci/images",
        ".ci/e2e",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def _copied(step: Step) -> list[str]:
    return [word for word in step.rest.split() if not word.startswith("--")][:-1]


def test_everything_copied_exists_and_reaches_the_builder() -> None:
    """A build sees only what .containerignore lets through: `*`, then exceptions by their first folder."""
    rules = [line for line in (ROOT / ".containerignore").read_text().splitlines() if line and line[0] != "#"]
    let_through = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert rules[0] == "*" and (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()
    sources = [source for step in steps(FILES[0]) if step.word == "COPY" and "--from" not in step.rest
               for source in _copied(step)]  # fmt: skip
    assert len(sources) > 8
    for source in sources:
        for name in ["train.txt", "vllm.txt"] if "${PINS}" in source else [""]:
            path = source.replace("${PINS}", name)
            assert (ROOT / path).exists() and path.split("/")[0] in let_through, path
    assert not [rule for rule in let_through if not (ROOT / rule).exists()]


@pytest.mark.parametrize(("image", "own"), images(), ids=["control", "train", "judge"])
def test_an_image_says_what_it_is_and_runs_as_a_number_that_is_not_root(image: str, own: list[Step]) -> None:
    (label,) = [step.rest for step in own if step.word == "LABEL"]
    assert set(re.findall(r"org\.opencontainers\.image\.([a-z.]+)=", label)) == LABELS
    users = [step.rest for step in own if step.word == "USER"]
    assert users and re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
    after = [step.word for step in own[[step.word for step in own].index("USER") :]]
    assert "RUN" not in after and "COPY" not in after


@pytest.mark.parametrize("name", FILES)
def test_caches_and_home_are_in_the_one_writable_folder(name: str) -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(step.rest for step in steps(name) if step.word == "ENV")))
    places = {key: value for key, value in environment.items() if value.startswith("/") and key != "PATH"}
    assert environment["HOME"] == "/tmp" and environment["USER"]
    assert not [key for key, value in places.items() if not (value == "/tmp" or value.startswith("/tmp/"))]


@pytest.mark.parametrize("name", [*FILES, "images/build", "images/mirror.py"])
def test_no_index_no_digest_and_no_secret_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|sha256:[0-9a-f]{8}|index-url[ =]+[^\s\"$]", text)
    assert not re.search(r"ARG \w*(TOKEN|PASSWORD|SECRET|KEY)", text)


@pytest.mark.parametrize("name", FILES)
def test_the_base_is_an_argument_and_every_other_stage_is_ours(name: str) -> None:
    bases = [step.rest.split()[0] for step in steps(name) if step.word == "FROM"]
    stages = {step.stage for step in steps(name)}
    assert "${BASE}" in bases and not [base for base in bases if base != "${BASE}" and base not in stages]


def test_what_is_installed_is_pinned() -> None:
    """pip is given pins, a wheel built here, or names that a constraint pins."""
    runs = [step.rest for step in steps(FILES[0]) if step.word == "RUN"]
    calls = [call.group(1) for run in runs for call in re.finditer(r"pip[^;&]*? install ([^;&]*)", run)]
    assert len(calls) >= 6
    pinned = ("-r ", "-c ", "/dist/*.whl", "grep '^torch=='")
    assert not [call for call in calls if not any(form in call for form in pinned)]
    for name in ("hatchling", "cyclonedx-bom"):
        assert re.search(rf"^{name}==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)


def test_the_judge_has_no_weights() -> None:
    """No step copies or fetches anything: they are mounted where the command names them."""
    assert not [step for step in steps(FILES[1]) if step.word in ("COPY", "ADD", "RUN", "VOLUME")]
    assert [step.rest for step in steps(FILES[1]) if step.word == "ENTRYPOINT"] == ['["vllm", "serve"]']
    assert not [path for path in (ROOT / "images").rglob("*") if fnmatch(path.name, "*.safetensors")]
