"""Linear layers of SmolLM2-135M through oneDNN, against torch's own: `python -m benchmarks products`.

Each shape of the model with 8 to 1,024 rows, float32: the product, the gradient of its input and that of its weight.
Sides take turns; a ratio is the median over turns of torch's time over ours. The line's ratio is that of the products
of all layers and the head together, weighed as a forward pass weighs them, at its worst over the numbers of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks._engine import SEED, finish, parse, seconds, take_turns
from sparring.policy.products import linear

ROWS = (8, 16, 32, 64, 96, 256, 1024)
SHAPES = {"q, out": (576, 576, 60), "k, v": (192, 576, 60), "gate, up": (1536, 576, 60), "down": (576, 1536, 30),
          "head": (49_152, 576, 1)}  # fmt: skip
"""Outputs, inputs, and how many such products a forward pass has."""
TURNS = 5
Sides = dict[str, list[float]]


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/products.json` unless `quick`."""
    torch.manual_seed(SEED)
    cells = [measure(rows) for rows in (ROWS[2:4] if quick else ROWS)]
    worst = min(cells, key=lambda cell: cell["forward"])
    result = {
        "bench": "products",
        "peer": "torch.nn.functional.linear",
        "ratio": worst["forward"],
        "spread": worst["spread"],
        "n": TURNS,
        "checks": {"max_relative_diff": max(cell["max_relative_diff"] for cell in cells)},
        "cells": cells,
    }
    show(cells)
    return finish(result, quick=quick)


def measure(rows: int) -> dict[str, Any]:
    """One number of rows: the ratio of a whole pass's products, and each shape's ratios."""
    total: Sides = {"peer": [0.0] * TURNS, "ours": [0.0] * TURNS}
    cell: dict[str, Any] = {"rows": rows, "max_relative_diff": 0.0}
    for name, (outputs, inputs, count) in SHAPES.items():
        x, weight, grad = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
        kinds = {"forward": (x, weight), "input": (grad, weight.t()), "weight": (grad.t(), x.t())}
        with torch.inference_mode():
            for kind, (left, right) in kinds.items():
                times = turns(left, right)
                cell[f"{name}, {kind}"] = round(float(np.median(np.divide(times["peer"], times["ours"]))), 2)
                if kind == "forward":
                    for side in total:
                        total[side] = [a + count * b for a, b in zip(total[side], times[side], strict=True)]
            gap = (linear(x, weight) - F.linear(x, weight)).abs().max() / F.linear(x, weight).abs().max()
        cell["max_relative_diff"] = max(cell["max_relative_diff"], float(gap))
    ratios = np.divide(total["peer"], total["ours"])
    cell["forward"] = round(float(np.median(ratios)), 2)
    cell["spread"] = [round(float(x), 2) for x in np.quantile(ratios, (0.25, 0.75))]
    cell["peer_gflops"], cell["ours_gflops"] = (round(_gflops(rows, total[side]), 1) for side in ("peer", "ours"))
    return cell


def turns(left: Tensor, right: Tensor) -> Sides:
    """Seconds a product of both sides, in turns of about 20 ms."""
    once = max(seconds(lambda: linear(left, right))[0] for _ in range(2))
    repeats = max(1, int(0.02 / max(once, 1e-5)))

    def many(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        return lambda: [product(left, right) for _ in itertools.repeat(None, repeats)]

    times = take_turns({"peer": many(F.linear), "ours": many(linear)}, TURNS)
    return {side: [wall / repeats for wall, _ in found] for side, found in times.items()}


def _gflops(rows: int, times: Sequence[float]) -> float:
    work = sum(2 * rows * outputs * inputs * count for outputs, inputs, count in SHAPES.values())
    return work / float(np.median(times)) / 1e9


def show(cells: Sequence[dict[str, Any]]) -> None:
    """The table for people."""
    table = Table("rows", "a pass's products", "quartiles", "GFLOP/s", *(f"{name}: y, dx, dw" for name in SHAPES))
    for cell in cells:
        each = (
            "  ".join(f"{cell[f'{name}, {kind}']:.1f}" for kind in ("forward", "input", "weight")) for name in SHAPES
        )
        rates = f"{cell['peer_gflops']} → {cell['ours_gflops']}"
        table.add_row(str(cell["rows"]), f"{cell['forward']}×", str(cell["spread"]), rates, *each)
    Console(width=150).print(table)


if __name__ == "__main__":
    main(parse(__doc__, "32 and 64 rows, no file").quick)
