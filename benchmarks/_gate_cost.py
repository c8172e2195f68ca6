"""What a decision costs, in fresh processes: seconds, memory, and that torch stays out."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._gate_worlds import MODELS, Truth, tables
from sparring.evaluate.tables import decode_verdicts, encode_verdicts
from sparring.evaluate.verdicts import SCHEMA
from sparring.gate.decision import decide
from sparring.gate.policy import load_policy

SLICES = {
    "harmful": {"vanilla": 1500, "adversarial": 1500, "pair": 1500, "prefill": 1500},
    "benign": {"lookalike": 1700, "plain": 1700, "adversarial": 1700, "safety": 1700, "chat": 1700},
    "capability": {"choice": 2500, "number": 1500, "nll": 1500},
}
"""12 slices, 20,000 prompts."""
LARGE = "2 models x 20,000 verdicts x 12 slices, 10,000 resamples"


def cost() -> dict[str, Any]:
    """Seconds and MB of one decision with all its bootstraps, and of the commands' start. Least of three each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder)
        found = min((_child("large", folder) for _ in range(3)), key=lambda run: run["seconds"])
        small = [str(folder / f"small-{role}.parquet") for role in ("candidate", "champion")]
        gate = ["gate", *small, "--reference", str(folder / "small-reference.parquet")]
        starts = {
            "sparring --help": _start(["--help"], folder),
            "sparring gate, 3 tables of 5,650 rows": _start(gate, folder),
            "sparring status": _start(["status"], folder),
        }
    return {LARGE: found, "start, seconds": starts}


def write_tables(folder: Path) -> None:
    rng = np.random.default_rng(8)
    for role in ("candidate", "champion"):
        (folder / f"{role}.parquet").write_bytes(encode_verdicts(_large(rng, role)))
    for role, table in tables(rng, Truth(asr_change=-0.12)).items():
        (folder / f"small-{role}.parquet").write_bytes(encode_verdicts(table))


def _large(rng: np.random.Generator, role: str) -> pa.Table:
    parts = [_slice(rng, role, kind, name, n) for kind, slices in SLICES.items() for name, n in slices.items()]
    return pa.concat_tables(parts)


def _slice(rng: np.random.Generator, role: str, kind: str, name: str, n: int) -> pa.Table:
    hit = rng.random(n) < {"harmful": 0.10 if role == "candidate" else 0.25, "benign": 0.01}.get(kind, 0.6)
    score = np.full(n, 0.3) + rng.normal(0, 0.01, n) if name == "nll" else hit * 1.0
    given: dict[str, Any] = {
        "model": [MODELS[role]] * n,
        "suite": [f"suite-{kind}"] * n,
        "slice": [name] * n,
        "kind": [kind] * n,
        "prompt_id": [f"{name}-{i}" for i in range(n)],
        "behavior": [f"{kind if kind == 'harmful' else name}-{i}" for i in range(n)],
        "answer_index": [0] * n,
        "label": ["" if kind == "capability" else kind] * n,
        "tokens": [40] * n,
        "judge": ["log-likelihood" if kind == "capability" else "judge@1"] * n,
        "status": ["ok"] * n,
    }
    if kind == "capability":
        given["score"] = score
    else:
        given |= {"degenerate": np.zeros(n, dtype=bool), "refused": ~hit if kind == "harmful" else hit}
        given |= {"harmful": hit} if kind == "harmful" else {"passed": ~hit}
    columns = [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(n, f.type) for f in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def large(folder: Path) -> dict[str, Any]:
    """In the child: read and decide as the gate does, bootstrap included; the champion is the reference too."""
    begin = time.perf_counter(), time.process_time()
    mine, theirs = (decode_verdicts((folder / f"{role}.parquet").read_bytes()) for role in ("candidate", "champion"))
    decision = decide(load_policy("standard"), mine, theirs, theirs, first_run=False, resample=True)
    return {
        "outcome": decision.outcome,
        "seconds": round(time.perf_counter() - begin[0], 2),
        "CPU seconds": round(time.process_time() - begin[1], 2),
        "most MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "torch imported": "torch" in sys.modules,
    }


def _child(name: str, folder: Path) -> dict[str, Any]:
    code = f"import json, pathlib; from benchmarks._gate_cost import {name};"
    code += f" print(json.dumps({name}(pathlib.Path({str(folder)!r}))))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _start(arguments: list[str], folder: Path) -> dict[str, float]:
    """Least seconds by the clock and of CPU time, of three runs of the command from start to end."""
    runs = []
    for _ in range(3):
        before, begin = os.times(), time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).parent / "sparring"), *arguments], cwd=folder, capture_output=True, check=False
        )
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        runs.append((time.perf_counter() - begin, cpu))
    return {"clock": round(min(clock for clock, _ in runs), 2), "CPU": round(min(cpu for _, cpu in runs), 2)}
