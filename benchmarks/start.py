"""How soon commands answer, in fresh processes, against the limits that they keep: `python -m benchmarks start`.

`sparring --help` within 0.5 s, `sparring gate` on small tables and `sparring status` within 2 s. The ratio is that of
the command which is nearest to its limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks._gate_cost import write_tables
from benchmarks._ratio import end

LIMITS = {"help": 0.5, "gate": 2.0, "status": 2.0}
"""Seconds."""


def main(quick: bool) -> None:
    """Alternates the commands and prints their medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder)
        small = [str(folder / f"small-{role}.parquet") for role in ("candidate", "champion")]
        gate = ["gate", *small, "--reference", str(folder / "small-reference.parquet")]
        commands = {"help": ["--help"], "gate": gate, "status": ["status"]}
        runs = [
            {key: _seconds(command, folder) for key, command in commands.items()} for _ in range(5 if quick else 11)
        ]
    medians = {key: median(run[key] for run in runs) for key in LIMITS}
    for key, seconds in medians.items():
        print(f"sparring {key}: {seconds:.2f} s, limit {LIMITS[key]} s")
    nearest = min(LIMITS, key=lambda key: LIMITS[key] / medians[key])
    ratios = [LIMITS[nearest] / run[nearest] for run in runs]
    end(
        {
            "bench": "start",
            "peer": f"limit of sparring {nearest}",
            "ratio": round(median(ratios), 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            "n": len(runs),
            "checks": {f"{key}_s": round(seconds, 3) for key, seconds in medians.items()},
        }
    )


def _seconds(arguments: list[str], folder: Path) -> float:
    begin = time.perf_counter()
    program = Path(sys.executable).parent / "sparring"
    subprocess.run([str(program), *arguments], cwd=folder, capture_output=True, check=False)
    return time.perf_counter() - begin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five repeats")
    main(parser.parse_args().quick)
