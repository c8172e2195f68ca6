"""`sparring` as a user calls it: facts from a real line, and one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparring.cli.common import user_name
from sparring.cli.main import app
from sparring.evaluate.tables import encode_verdicts
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.steps.entry import execute
from tests.gate.worlds import promoting
from tests.pipelines.planted import BASE, BETTER, Planted, plant

ROOT = Path(__file__).parent.parent.parent


def sparring(*arguments: str, cwd: Path) -> Result:
    """The program in a folder without a run file, so that only what a test says counts."""
    with chdir(cwd):
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)


def play(planted: Planted, *steps: str) -> None:
    for step in steps:
        execute(step, planted.request.model_dump_json(), str(planted.number))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A line whose first round promoted. Tests must only read it."""
    planted = plant(tmp_path_factory.mktemp("promoted"), BETTER)
    play(planted, "gate", "promote")
    return planted


def test_status_and_champion_of_a_line(promoted: Planted, tmp_path: Path) -> None:
    status = sparring("status", "--store", promoted.request.store, "--json", cwd=tmp_path)
    facts = json.loads(status.stdout)
    assert facts["champion"] == facts["reference"] == promoted.candidate
    assert (facts["rounds"], facts["open_round"], facts["last_decision"]) == (1, None, "PROMOTE")
    champion = sparring("champion", "--store", promoted.request.store, cwd=tmp_path)
    assert promoted.candidate in champion.stdout and champion.exit_code == 0


def test_status_of_an_open_round_names_its_step(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    facts = json.loads(sparring("status", "--store", planted.request.store, "--json", cwd=tmp_path).stdout)
    assert (facts["open_round"], facts["open_step"], facts["champion"]) == (1, "gate", None)


def test_champion_copies_the_verified_model_out(promoted: Planted, tmp_path: Path) -> None:
    arguments = ("champion", "--store", promoted.request.store, "--copy-to", str(tmp_path / "out"), "--json")
    folder = Path(json.loads(sparring(*arguments, cwd=tmp_path).stdout)["folder"])
    assert folder.is_relative_to(tmp_path / "out") and (folder / "model.safetensors").is_file()


def test_history_lists_every_record(promoted: Planted, tmp_path: Path) -> None:
    (record,) = json.loads(sparring("history", "--store", promoted.request.store, "--json", cwd=tmp_path).stdout)
    assert (record["kind"], record["candidate"]) == ("promotion", promoted.candidate)
    table = sparring("history", "--store", promoted.request.store, cwd=tmp_path).stdout
    assert "promotion" in table and promoted.candidate[:12] in table


def test_verify_makes_the_decision_again(promoted: Planted, tmp_path: Path) -> None:
    done = sparring("verify", "--store", promoted.request.store, cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "the chain holds" in done.stdout and "follows from its tables" in done.stdout


@pytest.mark.parametrize("damage", ["verdicts", "log", "checkpoint"])
def test_verify_names_what_was_changed(damage: str, tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    play(planted, "gate", "promote")
    store = planted.store
    if damage == "verdicts":
        store.put("rounds/000001/judge/candidate.parquet", store.get("rounds/000001/judge/champion.parquet"))
    elif damage == "log":
        store.put("champion/log/000001.json", store.get("champion/log/000001.json").replace(b"pipeline", b"somebody"))
    else:
        store.delete(f"checkpoints/{planted.candidate}/manifest.json")
    done = sparring("verify", "--store", planted.request.store, cwd=tmp_path)
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    words = {"verdicts": "verdict table", "log": "record 1", "checkpoint": planted.candidate}
    assert words[damage] in done.stderr


def test_rollback_without_an_earlier_champion_changes_nothing(promoted: Planted, tmp_path: Path) -> None:
    done = sparring("rollback", "--reason", "x", "--store", promoted.request.store, cwd=tmp_path)
    assert done.exit_code == 2 and "no earlier champion" in done.stderr
    assert read_log(promoted.store).head == 1


def test_rollback_needs_a_reason(promoted: Planted, tmp_path: Path) -> None:
    done = sparring("rollback", "--reason", " ", "--store", promoted.request.store, cwd=tmp_path)
    assert done.exit_code == 2 and "a reason must be given" in done.stderr
    assert read_log(promoted.store).head == 1


def test_a_user_without_a_name_is_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123_456)
    assert user_name() == "uid 123456" and user_name("Ada") == "Ada"


def test_report_prints_the_path_of_a_page_that_is_there(tmp_path: Path) -> None:
    planted = plant(tmp_path, replace(BASE, asr=0.95))
    play(planted, "gate", "hold")
    for _ in range(2):  # written by the first call, found by the second
        done = sparring("report", "--store", planted.request.store, cwd=tmp_path)
        assert done.exit_code == 0, done.stderr
        (line,) = done.stdout.splitlines()
        assert Path(line).read_text().startswith("<!DOCTYPE html>")
    missing = sparring("report", "--store", planted.request.store, "--round", "7", cwd=tmp_path)
    assert missing.exit_code == 1 and "there are 1 rounds" in missing.stderr


def test_a_store_without_rounds_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    for command in ("status", "champion", "history", "verify", "report"):
        done = sparring(command, "--store", str(tmp_path / "none"), cwd=tmp_path)
        assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "has no rounds" in done.stderr
    assert not (tmp_path / "none").exists()


def test_the_run_file_of_the_working_folder_is_taken(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    (tmp_path / "sparring.yaml").write_text("store: store\n")
    facts = json.loads(sparring("status", "--json", cwd=tmp_path).stdout)
    assert facts["store"] == planted.request.store


def test_config_show_reads_back_and_schema_is_json(tmp_path: Path) -> None:
    shown = sparring("config", "show", "--set", "selfplay.steps=3", cwd=tmp_path)
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    assert sparring("config", "validate", "shown.yaml", cwd=tmp_path).exit_code == 0
    assert "steps: 3" in shown.stdout
    assert json.loads(sparring("config", "schema", cwd=tmp_path).stdout)["title"] == "RunConfig"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("selfplay:\n  stps: 3\n", ("x.yaml:2", "`selfplay.stps`", "`steps`")),
        ("seed: -1\n", ("x.yaml:1", "seed", "-1")),
        ("a: [\n", ("x.yaml", "not valid YAML")),
        ("\0", ("x.yaml", "binary")),
    ],
)
def test_a_wrong_run_file_is_one_line(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    for arguments in (("config", "validate", "x.yaml"), ("config", "show", "-c", "x.yaml"), ("status", "-c", "x.yaml")):
        done = sparring(*arguments, cwd=tmp_path)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("arguments", [("no-such-command",), ("rollback",), ("config", "validate")])
def test_a_wrong_command_exits_2_without_a_traceback(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = sparring(*arguments, cwd=tmp_path)
    assert done.exit_code == 2 and "Traceback" not in done.stderr


def test_a_line_that_looks_like_a_number_is_a_name(tmp_path: Path) -> None:
    done = sparring("status", "--store", str(tmp_path / "s"), "--line", "7", cwd=tmp_path)
    assert "line '7'" in done.stderr


def test_help_names_every_command_and_comes_at_once() -> None:
    program = "from sparring.cli.main import app; app(prog_name='sparring')"
    begun = os.times()
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    spent = os.times()
    seconds = spent.children_user + spent.children_system - begun.children_user - begun.children_system
    commands = ("status", "champion", "history", "verify", "rollback", "report", "config", "run")
    assert all(f"  {command} " in done.stdout for command in commands)
    assert seconds < 1.0  # of processor time, a third of it as a rule; wall time would measure what else runs here


def test_a_given_up_round_does_not_hide_the_line(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    rounds.close(planted.store, planted.number, decision="INVALID", reason="given up")
    facts = json.loads(sparring("status", "--store", planted.request.store, "--json", cwd=tmp_path).stdout)
    assert (facts["open_round"], facts["rounds"]) == (None, 1)


def test_a_decision_does_not_wait_for_pandas(tmp_path: Path) -> None:
    """Which the training's packages bring, and which pyarrow would import."""
    for name, table in zip(("new", "old"), promoting(), strict=False):
        (tmp_path / f"{name}.parquet").write_bytes(encode_verdicts(table))
    code = (
        "import sys; from sparring.cli.main import main\nsys.argv = 'sparring gate new.parquet old.parquet'.split()\n"
        "try: main()\nfinally: print('pandas', sys.modules.get('pandas'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "INVALID" in done.stdout and done.stdout.splitlines()[-1] == "pandas None", done.stderr
