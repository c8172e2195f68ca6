"""A whole self-play step against stock TRL with Hugging Face's `generate`: `python -m benchmarks step`.

Both sides play the same games: attacks (groups of four rows a seed, behind a role prompt of 48 tokens), then four
answers to an attack of each group, forced lengths of 4 to 24 tokens; then log-probabilities of the reference, loss,
backward pass and Adam. float32, `bf16=False`, `gradient_checkpointing=False`, `disable_dropout=True` on both sides; the
peer samples with the faster of `generate`'s two caches. Each turn builds both trainers anew; building is not timed.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._engine import compare, finish, load, model_folder, parse
from benchmarks._engine_step import one_step
from benchmarks.rollout import CACHES
from benchmarks.rollout import checks as sampler_checks

TURNS = {False: 5, True: 2}


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/step.json` unless `quick`."""
    folder, rows = model_folder(quick), 8 if quick else 24
    caches = {cache: one_step("trl", folder, rows, cache=cache) for cache in CACHES}
    cache = min(caches, key=lambda name: caches[name])
    one_step("ours", folder, rows)
    turns = [(one_step("trl", folder, rows, cache=cache), one_step("ours", folder, rows)) for _ in range(TURNS[quick])]
    found = compare(*([(turn[side], turn[side]) for turn in turns] for side in (0, 1)))
    del found["ratio_cpu"]
    result = {
        "bench": "step",
        "peer": f"trl 1.16 GRPOTrainer, generate with its {cache} cache",
        **found,
        "rows": rows,
        "checks": sampler_checks(load(folder)),
    }
    table = Table("rows", "TRL s", "ours s", "ratio", "quartiles")
    table.add_row(str(rows), str(found["peer_s"]), str(found["ours_s"]), f"{found['ratio']}×", str(found["spread"]))
    Console(width=120).print(table)
    return finish(result, quick=quick)


if __name__ == "__main__":
    main(parse(__doc__, "a model of three layers, 8 rows, two turns, no file").quick)
