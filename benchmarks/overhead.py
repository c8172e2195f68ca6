"""Self-play against our own defender-only training at equal trained tokens: `python -m benchmarks overhead`.

Both train the same number of rows with the same forced lengths. Self-play writes half of them as attacks, in a call of
its own before the answers; defender-only answers given attacks in one call. The ratio is the defender-only time over
the self-play time: 0.77 is the aim (self-play at most 1.3 times as long), 0.69 is what the paper says (1.45 times).
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._engine import compare, finish, model_folder, parse
from benchmarks._engine_step import one_step

TURNS = {False: 5, True: 2}


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/overhead.json` unless `quick`."""
    folder, rows = model_folder(quick), 8 if quick else 32
    for kind in ("defender-only", "ours"):
        one_step(kind, folder, rows)
    turns = [(one_step("defender-only", folder, rows), one_step("ours", folder, rows)) for _ in range(TURNS[quick])]
    found = compare(*([(turn[side], turn[side]) for turn in turns] for side in (0, 1)))
    del found["ratio_cpu"]
    factor = round(found["ours_s"] / found["peer_s"], 2)
    result = {
        "bench": "overhead",
        "peer": "sparring, defender only",
        **found,
        "factor": factor,
        "rows": rows,
        "checks": {"factor_at_most_1.3": factor <= 1.3},
    }
    table = Table("rows", "defender-only s", "self-play s", "self-play takes", "ratio", "quartiles")
    table.add_row(str(rows), str(found["peer_s"]), str(found["ours_s"]), f"{factor}×", str(found["ratio"]),
                  str(found["spread"]))  # fmt: skip
    Console(width=120).print(table)
    return finish(result, quick=quick)


if __name__ == "__main__":
    main(parse(__doc__, "a model of three layers, 8 rows, two turns, no file").quick)
