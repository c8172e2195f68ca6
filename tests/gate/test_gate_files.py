"""`sparring gate` on files: every outcome through a real process, the ledger's accounting, mistakes in one line."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from sparring.cli.main import app
from sparring.errors import CorruptError
from sparring.evaluate.tables import encode_verdicts
from sparring.gate import standalone
from sparring.gate.policy import Policy, load_policy
from sparring.gate.spending import case_looks, reserve_case
from sparring.gate.standalone import Case, DecisionFile, Files, Role, gate_files
from sparring.store import Store, open_store
from tests.gate.worlds import BASE, CANDIDATE, CHAMPION, REFERENCE, World, promoting

ROOT = Path(__file__).parent.parent.parent
LAPTOP, FIRST = load_policy("laptop"), load_policy("first-run")
WORLDS = {
    "PROMOTE": World(CANDIDATE, asr=0.10),
    "REJECT": World(CANDIDATE, asr=0.32),
    "INCONCLUSIVE": World(CANDIDATE, asr=0.28),
    "INVALID": World(CANDIDATE, asr=0.10),
}
EXITS = {"PROMOTE": 0, "REJECT": 10, "INCONCLUSIVE": 11, "INVALID": 12}


def write(folder: Path, name: str, table: pa.Table) -> str:
    (folder / f"{name}.parquet").write_bytes(encode_verdicts(table))
    return f"{name}.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Champion and reference, and a candidate by outcome."""
    write(tmp_path, "champion", promoting()[1])
    write(tmp_path, "reference", promoting()[2])
    for outcome, world in WORLDS.items():
        table = world.table()
        write(tmp_path, outcome, table.slice(1) if outcome == "INVALID" else table)
    return tmp_path


def sparring(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from sparring.cli.main import app; app(prog_name='sparring')"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def in_process(*arguments: str, cwd: Path) -> Result:
    with chdir(cwd):
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)


def case(candidate: pa.Table, *, policy: Policy = LAPTOP, approved: bool = False, **others: pa.Table) -> Case:
    tables: dict[Role, pa.Table] = {"candidate": candidate, "champion": others.get("champion", promoting()[1])}
    if "reference" in others:
        tables["reference"] = others["reference"]
    data = {role: encode_verdicts(table) for role, table in tables.items()}
    return Case(policy, Files(data, {role: f"{role}.parquet" for role in data}), policy is FIRST, approved)


@pytest.fixture
def ledger(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "ledger"))


# --- the program --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", EXITS)
def test_each_outcome_has_its_exit_code_and_its_forms(outcome: str, folder: Path) -> None:
    forms = ("--json", "d.json", "--markdown", "d.md", "--junit", "d.xml")
    done = sparring(
        *("gate", f"{outcome}.parquet", "champion.parquet", "--reference", "reference.parquet"),
        *("--policy", "laptop", *forms),
        cwd=folder,
    )
    assert done.returncode == EXITS[outcome], done.stderr
    assert done.stdout.startswith(f"{outcome}: ") and done.stderr == ""
    assert " ".join(standalone.UNACCOUNTED.split()) in " ".join(done.stdout.split())
    record = DecisionFile.model_validate_json((folder / "d.json").read_text())
    assert record.decision.outcome == outcome and record.look is None
    assert (folder / "d.md").read_text().startswith(f"## Gate: {outcome}\n")
    suite = ElementTree.parse(folder / "d.xml").getroot()[0]
    assert (suite.get("failures") == suite.get("errors") == "0") == (outcome == "PROMOTE")
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gate", "gone.parquet", "champion.parquet"), ("candidate's verdict table gone.parquet", "No such file")),
        (("gate", "PROMOTE.parquet", "champion.parquet", "--policy", "labtop"), ("did you mean laptop?",)),
        (("gate", "PROMOTE.parquet", "champion.parquet", "--first-run", "--policy", "laptop"), ("--policy first-run",)),
        (
            ("gate", "PROMOTE.parquet", "champion.parquet", "--first-run", "--reference", "reference.parquet"),
            ("--first-run has no reference",),
        ),
        (("gate", "PROMOTE.parquet", "champion.parquet", "--json", "no/such/d.json"), ("cannot be written",)),
        (("gate", "plan", "--counts", "vanilla=3"), ("kind/slice=number", "harmful/vanilla")),
        (("gate", "plan", "--table", "gone.parquet"), ("gone.parquet",)),
        (("gate", "policies", "show", "stric"), ("did you mean strict?",)),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: tuple[str, ...], folder: Path
) -> None:
    done = in_process(*arguments, cwd=folder)
    assert done.exit_code == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_a_file_that_is_no_table_is_invalid(folder: Path) -> None:
    (folder / "noise.parquet").write_bytes(b"PAR1 noise")
    done = in_process("gate", "noise.parquet", "champion.parquet", "--policy", "laptop", "--ledger", "led", cwd=folder)
    assert done.exit_code == 12 and "candidate's table noise.parquet: not a readable Parquet file" in done.stdout
    assert "no look was needed" in done.stdout


def test_a_broken_ledger_is_a_fault(folder: Path) -> None:
    store = open_store(str(folder / "led"))
    store.put("looks/000002.json", b"{}")
    done = in_process(
        "gate", "PROMOTE.parquet", "champion.parquet", "--policy", "laptop", "--ledger", "led", cwd=folder
    )
    assert done.exit_code == 1 and "looks/000002.json" in done.stderr and "Traceback" not in done.stderr


def test_first_run_approval_and_the_small_commands(folder: Path) -> None:
    write(folder, "base", World(BASE, asr=0.93, lookalike_refused=0.02, plain_refused=0.0).table())
    write(folder, "taught", World(CANDIDATE, asr=0.55, plain_refused=0.03).table())
    first = ("gate", "taught.parquet", "base.parquet", "--first-run", "--ledger", "led")
    waiting = in_process(*first, cwd=folder)
    assert waiting.exit_code == 11 and "waits for approval" in waiting.stdout
    approved = in_process(*first, "--approve", cwd=folder)
    assert approved.exit_code == 0 and "better than the base model" in approved.stdout
    assert len(case_looks(open_store(str(folder / "led")))) == 1
    listed = in_process("gate", "policies", cwd=folder).stdout
    assert all(name in listed for name in ("first-run", "laptop", "maintenance", "standard", "strict"))
    assert in_process("gate", "policies", "show", "strict", cwd=folder).stdout.startswith("# strict: ")
    planned = in_process("gate", "plan", "--asr", "0.01", "--counts", "harmful/vanilla=500", cwd=folder)
    assert planned.exit_code == 0 and "policy `maintenance`" in planned.stdout
    counted = json.loads(in_process("gate", "plan", "--table", "champion.parquet", "--json", cwd=folder).stdout)
    assert "harmful/vanilla has 140 prompts, 400 are required" in counted["missing"]


def test_the_schema_describes_what_is_written(folder: Path) -> None:
    schema = json.loads(in_process("gate", "schema", cwd=folder).stdout)
    written = json.loads(gate_files(case(promoting()[0]), None).model_dump_json())
    assert set(written) == set(schema["properties"])
    decision = schema["$defs"]["Decision"]["properties"]
    assert set(written["decision"]) == set(decision) and "warnings" in decision
    assert "inputs" in json.loads(in_process("gate", "schema", "--round", cwd=folder).stdout)["properties"]


# --- the ledger ---------------------------------------------------------------------------------------------------


def test_an_identical_rerun_spends_nothing_and_returns_the_recorded_decision(ledger: Store) -> None:
    first = gate_files(case(promoting()[0]), ledger)
    assert first.look is not None and first.look.alpha == LAPTOP.alpha_per_look
    assert gate_files(case(promoting()[0]), ledger) == first
    assert [look.round for look in case_looks(ledger)] == [1]


def test_another_table_and_another_policy_are_other_looks_at_the_same_alpha(ledger: Store) -> None:
    gate_files(case(WORLDS["INCONCLUSIVE"].table()), ledger)
    gate_files(case(promoting()[0]), ledger)
    other = LAPTOP.model_copy(update={"name": "other", "looks": 20})
    record = gate_files(case(promoting()[0], policy=other), ledger)
    assert record.look is not None and record.look.spent == pytest.approx(2 * LAPTOP.alpha_per_look)
    assert record.decision.alpha_spent == pytest.approx(0.01)


def test_spent_alpha_holds_and_another_champion_begins_anew(ledger: Store) -> None:
    for number in range(LAPTOP.looks):
        reserve_case(ledger, case=f"{number:064d}", champion=CHAMPION, policy=LAPTOP)
    held = gate_files(case(promoting()[0]), ledger)
    assert held.decision.outcome == "INCONCLUSIVE" and held.decision.reason.startswith("α is spent")
    champion = replace(World(CHAMPION), model="e" * 64).table()
    next_one = gate_files(case(promoting()[0], champion=champion, reference=World(CHAMPION).table()), ledger)
    assert next_one.decision.outcome == "PROMOTE" and next_one.decision.alpha_spent == 0.0


def test_killed_between_look_and_record_is_spent_once(ledger: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(standalone, "decode_verdicts", die)
        gate_files(case(promoting()[0]), ledger)
    assert len(case_looks(ledger)) == 1 and ledger.list("cases/") == []
    record = gate_files(case(promoting()[0]), ledger)
    assert record.decision.outcome == "PROMOTE" and record.look is not None and record.look.round == 1
    assert len(case_looks(ledger)) == 1


def test_nothing_to_look_at_pays_nothing(ledger: Store) -> None:
    same = gate_files(case(promoting()[1]), ledger)
    assert same.decision.outcome == "REJECT" and same.decision.reason.startswith("nothing changed")
    nameless = promoting()[0]
    two = pa.concat_tables([nameless.slice(0, 10), World("f" * 64).table().slice(10)])
    data: dict[Role, bytes] = dict(case(nameless).files.data)
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(two, sink)
    broken = Files(data | {"candidate": sink.getvalue().to_pybytes()}, case(nameless).files.names)
    assert gate_files(Case(LAPTOP, broken, False, False), ledger).decision.outcome == "INVALID"
    assert case_looks(ledger) == []


def test_the_ledger_remembers_the_reference(ledger: Store) -> None:
    """A second champion without the first one's table is INVALID and pays nothing: it says which is missing."""
    gate_files(case(promoting()[0]), ledger)
    champion = replace(World(CHAMPION), model="e" * 64).table()
    record = gate_files(case(promoting()[0], champion=champion), ledger)
    assert record.decision.outcome == "INVALID" and CHAMPION in record.decision.missing[0]
    assert len(case_looks(ledger)) == 1
    other = gate_files(case(promoting()[0], champion=champion, reference=promoting()[2]), ledger)
    assert other.decision.warnings == [f"the reference is {REFERENCE}, the ledger's first champion was {CHAMPION}"]


def test_an_edited_ledger_is_named(ledger: Store) -> None:
    record = gate_files(case(promoting()[0]), ledger)
    (key,) = ledger.list("cases/")
    ledger.put(key, ledger.get(key).replace(b'"outcome"', b'"uotcome"'))
    with pytest.raises(CorruptError, match="the decision was edited"):
        gate_files(case(promoting()[0]), ledger)
    gate_files(case(WORLDS["REJECT"].table()), ledger)
    ledger.delete("looks/000001.json")
    with pytest.raises(CorruptError, match="look 1 is missing"):
        gate_files(case(WORLDS["INCONCLUSIVE"].table()), ledger)
    assert record.look is not None


def _reserve(url: str, number: int) -> tuple[float, float]:
    look = reserve_case(open_store(url), case=f"{number:064d}", champion=CHAMPION, policy=LAPTOP)
    return look.spent, look.alpha


def test_looks_that_race_never_spend_the_same_alpha(ledger: Store) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(_reserve, [(ledger.url, number) for number in range(LAPTOP.looks + 2)])
    paid = sorted(spent for spent, alpha in found if alpha > 0)
    assert paid == pytest.approx([number * LAPTOP.alpha_per_look for number in range(LAPTOP.looks)])
    assert sum(alpha for _, alpha in found) == pytest.approx(LAPTOP.alpha)
