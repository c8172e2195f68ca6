"""Two runs of one line at once, as two pipelines on a cluster are: each step is played once, one record is left."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.monitor import ledger
from sparring.registry.champion import read_log
from sparring.registry.rounds import load_end
from tests.conftest import Seaweed
from tests.gate.worlds import World
from tests.pipelines.planted import BASE, BETTER, plant

ROOT = Path(__file__).parents[2]
RUNS = 3
PLAY = """
import socket, sys
from sparring.errors import BusyError
from sparring.steps.entry import execute
run, number, name = sys.argv[1:]
socket.gethostname = lambda: name  # each in a pod of its own
print("ready", flush=True)
sys.stdin.read()
try:
    decision = execute("gate", run, number)
    execute("promote" if decision == "PROMOTE" else "hold", run, number)
except BusyError as error:
    decision = "BUSY"
print(decision)
"""


@pytest.mark.parametrize("candidate", [BETTER, replace(BASE, asr=0.95)], ids=["promoted", "held"])
def test_one_round_is_decided_and_recorded_once(candidate: World, s3_environment: Seaweed, tmp_path: Path) -> None:
    planted = plant(tmp_path, candidate, url=f"s3://{s3_environment.bucket}/{tmp_path.name}")
    run, pipe = planted.request.model_dump_json(), subprocess.PIPE
    command = [sys.executable, "-c", PLAY, run, str(planted.number)]
    runs = [
        subprocess.Popen([*command, f"pod-{i}"], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for i in range(RUNS)
    ]
    for process in runs:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in runs:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None  # communicate() would close it again
    said = [process.communicate(timeout=120) for process in runs]
    outcomes = Counter(out.rpartition("\n")[0].rpartition("\n")[2] for out, _ in said)
    assert "" not in outcomes, said
    end = load_end(planted.store, planted.number)
    assert end is not None and set(outcomes) <= {end.decision, "BUSY"} and outcomes[end.decision] >= 1
    assert read_log(planted.store).head == 1
    played = {step: entry.attempts for step, entry in ledger.read(planted.store, planted.number).items()}
    assert {step: len(attempts) for step, attempts in played.items() if step in ("gate", "promote", "hold")} == {
        "gate": 1,
        "promote" if end.decision == "PROMOTE" else "hold": 1,
    }
