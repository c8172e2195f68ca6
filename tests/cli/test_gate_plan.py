"""`sparring gate plan --suites`: the power of suites that a round has prepared, before any verdict."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparring.cli.main import app
from sparring.config.run import DataConfig
from sparring.data.suites import build_suites
from sparring.store import open_store
from sparring.store.datasets import save_table

ABSENT = "0" * 64


@pytest.fixture
def digest(tmp_path: Path) -> str:
    """The starter suites in a line's store, as `prepare` leaves them."""
    line = open_store(str(tmp_path / "store")).scope("lines/bot")
    line.put("rounds/000001/claim.json", b"{}")
    return save_table(line, build_suites(DataConfig()).table(), name="suites", meta={})


def plan(folder: Path, *arguments: str) -> Result:
    with chdir(folder):
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["gate", "plan", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("by", ["digest", "folder"])
def test_prompts_are_counted_in_the_prepared_suites(by: str, digest: str, tmp_path: Path) -> None:
    where = (
        ["--suites", digest, "--store", "store", "--line", "bot"]
        if by == "digest"
        else ["--suites", f"store/lines/bot/datasets/{digest}"]
    )
    table = json.loads(plan(tmp_path, *where, "--policy", "laptop", "--json").stdout)
    rows = build_suites(DataConfig()).table().to_pylist()
    sizes = {row["endpoint"]: row["n"] for row in table["rows"]}
    primary = ("vanilla", "adversarial")
    assert table["missing"] == []
    assert sizes["asr"] == sum(row["kind"] == "harmful" and row["slice"] in primary for row in rows)
    assert sizes["benign"] == sum(row["kind"] == "benign" for row in rows)


def test_a_slice_that_the_suites_lack_is_missing_not_assumed(tmp_path: Path) -> None:
    table = build_suites(DataConfig()).table()
    kept = table.filter([kind != "capability" for kind in table["kind"].to_pylist()])
    digest = save_table(open_store(str(tmp_path / "store")), kept, name="suites", meta={})
    said = plan(tmp_path, "--suites", f"store/datasets/{digest}", "--policy", "laptop").stdout
    assert "missing: capability/choice has 0 prompts" in said and "cannot be promoted" in said


def test_attacks_are_no_prompts_of_the_suites(digest: str, tmp_path: Path) -> None:
    """`maintenance` asks on slices that the adaptive evaluation writes: they count with the policy's least."""
    said = plan(tmp_path, "--suites", digest, "--store", "store", "--line", "bot", "--policy", "maintenance").stdout
    assert "adaptive-" not in said and "missing: harmful/vanilla has" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--suites", "suites.csv"), 2, ("neither a dataset's digest nor its folder", "prepare/result.json")),
        (("--suites", f"elsewhere/{ABSENT}"), 2, ("datasets/<digest>",)),
        (("--suites", ABSENT, "--store", "store", "--line", "bot"), None, (ABSENT[:12],)),
        (("--suites", ABSENT, "--store", "empty"), 2, ("no rounds",)),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], code: int | None, words: tuple[str, ...], digest: str, tmp_path: Path
) -> None:
    done = plan(tmp_path, *arguments)
    assert done.exit_code == (code or done.exit_code) != 0
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_other_data_than_suites_is_refused(tmp_path: Path) -> None:
    seeds = build_suites(DataConfig()).table().select(["prompt_id"])
    digest = save_table(open_store(str(tmp_path / "store")), seeds, name="seeds", meta={})
    done = plan(tmp_path, "--suites", f"store/datasets/{digest}")
    assert done.exit_code and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
