"""From other tools' files to a decision: harmful rows of HarmBench, benign ones of Inspect, capability of lm-eval."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from sparring.evaluate.tables import encode_verdicts
from sparring.gate.decision import decide
from sparring.gate.outcome import Decision
from sparring.gate.policy import load_policy
from sparring.importers.verdicts import Options, import_verdicts
from sparring.importers.verdicts.table import join
from tests.importers.verdicts import grown
from tests.importers.verdicts.grown import POLICY, Run

CHAMPION = Run()
BETTER = replace(CHAMPION, asr=0.1)


def parts_of(folder: Path, run: Run, model: str) -> list[pa.Table]:
    """One model's tables by tool: HarmBench, Inspect, lm-eval."""
    folder.mkdir()
    options = Options(model=model)
    parts = [
        import_verdicts("harmbench", [grown.harmbench(folder / "results.json", run)], options),
        import_verdicts("inspect", [grown.inspect(folder / "log.json", run, "mockllm/x")], options),
        import_verdicts("lm-eval", [grown.lm_eval(folder / "lm", run)], options),
    ]
    return [part.table for part in parts]


def table(folder: Path, run: Run, model: str) -> pa.Table:
    """One model's table of all three tools' files."""
    return join(parts_of(folder, run, model))


def decided(tmp_path: Path, candidate: Run, champion: Run = CHAMPION) -> Decision:
    (tmp_path / "policy.yaml").write_text(POLICY)
    policy = load_policy(str(tmp_path / "policy.yaml"))
    tables = [table(tmp_path / name, run, name) for name, run in (("new", candidate), ("old", champion))]
    return decide(policy, tables[0], tables[1], None, first_run=True)


@pytest.mark.parametrize(
    "candidate, outcome, reason",
    [
        (BETTER, "PROMOTE", "better than the base model"),
        (replace(BETTER, unjudged=0.02), "PROMOTE", "better than the base model"),
        (CHAMPION, "REJECT", "is not lower"),
        (replace(CHAMPION, asr=0.387), "INCONCLUSIVE", "is not shown to be lower"),
        (replace(CHAMPION, asr=0.6), "REJECT", "attack success rate is not lower"),
        (replace(BETTER, refused=0.9), "REJECT", "benign compliance is lost"),
        (replace(BETTER, right=0.3), "REJECT", "capability is lost"),
        (replace(BETTER, unjudged=0.2), "INVALID", "are not judged"),
        (replace(BETTER, unjudged=1.0), "INVALID", "judged"),
    ],
)
def test_every_outcome_is_reached(tmp_path: Path, candidate: Run, outcome: str, reason: str) -> None:
    decision = decided(tmp_path, candidate)
    assert decision.outcome == outcome, decision.reason
    assert reason in decision.reason


def test_rows_that_one_run_lacks_are_invalid(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    policy = load_policy(str(tmp_path / "policy.yaml"))
    new, old = table(tmp_path / "new", BETTER, "new"), table(tmp_path / "old", CHAMPION, "old")
    decision = decide(policy, new.slice(0, new.num_rows - 1), old, None, first_run=True)
    assert decision.outcome == "INVALID" and "has no row for 1 answers" in decision.reason


def sparring(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sparring.cli.main import app; app()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_line_from_files_to_a_decision(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    old, new, part, rest = (tmp_path / f"{name}.parquet" for name in ("old", "new", "part", "rest"))
    old.write_bytes(encode_verdicts(table(tmp_path / "old", CHAMPION, "old")))
    rest.write_bytes(encode_verdicts(join(parts_of(tmp_path / "new", BETTER, "new")[1:])))
    source = tmp_path / "new" / "results.json"
    done = sparring("verdicts", "import", "harmbench", source, "-o", part, "--model", "new")
    assert done.returncode == 0, done.stderr
    assert "rows        150" in done.stdout and "guessed: kind of harmbench: harmful" in done.stdout
    joined = sparring("verdicts", "join", part, rest, "-o", new, "--json")
    assert json.loads(joined.stdout)["rows"] == 3 * grown.N
    gate = sparring("gate", new, old, "--policy", tmp_path / "policy.yaml", "--first-run")
    assert gate.returncode == 0 and "PROMOTE" in gate.stdout, gate.stdout + gate.stderr
