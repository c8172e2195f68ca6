"""Peak memory of a whole step, ours and stock TRL's, each in a process of its own: `python -m benchmarks memory`.

The step is that of `benchmarks step`; the peak is the process' largest resident set, libraries and model included. The
ratio is their peak over ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._engine import finish, model_folder, parse


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/memory.json` unless `quick`."""
    model_folder(quick)
    repeats, rows = (1, 8) if quick else (5, 16)
    peaks = [[_peak(kind, rows, quick) for kind in ("trl", "ours")] for _ in range(repeats)]
    ratios = [theirs / ours for theirs, ours in peaks]
    low, middle, high = (round(float(q), 2) for q in np.quantile(ratios, (0.25, 0.5, 0.75)))
    theirs, ours = (round(float(np.median([peak[side] for peak in peaks])), 2) for side in (0, 1))
    result = {
        "bench": "memory",
        "peer": "trl 1.16 GRPOTrainer, generate with its dynamic cache",
        "ratio": middle,
        "spread": [low, high],
        "n": repeats,
        "rows": rows,
        "peer_gib": theirs,
        "ours_gib": ours,
        "checks": {"share_at_most_0.8": ours <= 0.8 * theirs},
    }
    table = Table("rows", "TRL GiB", "ours GiB", "ours / TRL", "ratio", "quartiles")
    table.add_row(str(rows), str(theirs), str(ours), f"{ours / theirs:.2f}", f"{middle}×", f"[{low}, {high}]")
    Console(width=120).print(table)
    return finish(result, quick=quick)


def _peak(kind: str, rows: int, quick: bool) -> float:
    command = [sys.executable, "-m", "benchmarks._engine_step", kind, str(rows), "quick" if quick else "full"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_gib"])


if __name__ == "__main__":
    main(parse(__doc__, "a model of three layers, one turn, no file").quick)
