"""Where in the packaged model harmful can be told from harmless: `python -m benchmarks probe [--quick]`.

For every second layer a logistic head is trained on the starter set's training seeds (hidden state of the chat prompt's
last token, standardised) and asked about public prompts that it never saw: the share that it calls harmful, and the
area under the curve of HarmBench's standard behaviours against OR-Bench's hard prompts and of XSTest's two halves. It
says where a policy could learn what to refuse; `warm_start.layers` stands on it. Nothing here trains the model.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks._engine import model_folder
from benchmarks._public import public_prompts
from sparring.data import starter
from sparring.judge.embedded.head import Matrix, balanced, fit
from sparring.policy.load import Policy, load_policy

ROOT = Path(__file__).parents[1]
PENALTIES = (0.1, 0.01)
"""Ridge penalties tried; both are shown, none is chosen."""
_ROWS, _TOKENS = 16, 160


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/probe.json` unless `quick`."""
    folder = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        return _end({"bench": "probe", "skipped": "no public suites: set SPARRING_BENCHMARK_DATA"})
    policy = load_policy(model_folder(False))
    harmful, benign = (
        starter.harmful("train"),
        [*starter.benign("lookalike", "train"), *starter.benign("plain", "train")],
    )
    if quick:
        harmful, benign = harmful[:60], benign[::12]
    taught = _states(policy, [row.prompt for row in (*harmful, *benign)])
    labels = np.array([1.0] * len(harmful) + [0.0] * len(benign))
    asked = {name: _states(policy, texts) for name, texts in public_prompts(folder, 40 if quick else 159).items()}
    cells = [
        _cell(layer, penalty, taught[:, layer], labels, {name: states[:, layer] for name, states in asked.items()})
        for layer in range(2, taught.shape[1], 2)
        for penalty in PENALTIES
    ]
    _show(cells)
    result = {
        "bench": "probe",
        "training_seeds": {"harmful": len(harmful), "benign": len(benign)},
        "prompts": {name: len(states) for name, states in asked.items()},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "cells": cells,
    }
    if not quick:
        (ROOT / "benchmarks" / "results" / "probe.json").write_text(json.dumps(result, indent=1) + "\n")
    return _end(result)


def _states(policy: Policy, texts: Sequence[str]) -> Matrix:
    """Hidden states (N, layers + 1, width) of each chat prompt's last token; layer 0 is the embedding."""
    prompts = policy.chat.encode(list(texts), _TOKENS)
    found = np.zeros((len(prompts), policy.model.config.num_hidden_layers + 1, policy.model.config.hidden_size))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompts[i]) for i in rows], batch_first=True)
        with torch.inference_mode():
            states = policy.model.model(ids, output_hidden_states=True).hidden_states
        last = torch.tensor([len(prompts[i]) - 1 for i in rows])
        found[rows] = torch.stack([layer[torch.arange(len(rows)), last] for layer in states], dim=1).numpy()
    return found


def _cell(layer: int, penalty: float, x: Matrix, y: Matrix, asked: dict[str, Matrix]) -> dict[str, Any]:
    mean, spread = x.mean(0), x.std(0) + 1e-6
    head = fit((x - mean) / spread, y, balanced(y), np.full(x.shape[1], penalty))
    scores = {name: head.logits((states - mean) / spread) for name, states in asked.items()}
    return {
        "layer": layer,
        "penalty": penalty,
        "called_harmful": {name: round(float((score > 0).mean()), 3) for name, score in scores.items()},
        "auc_harmbench": round(_auc(scores["harmbench"], scores["or-bench-hard"]), 3),
        "auc_xstest": round(_auc(scores["xstest-unsafe"], scores["xstest-safe"]), 3),
    }


def _auc(above: Matrix, below: Matrix) -> float:
    """Probability that one of `above` scores higher than one of `below`, ties half."""
    apart = above[:, None] - below[None]
    return float(np.mean(apart > 0) + 0.5 * np.mean(apart == 0))


def _show(cells: Sequence[dict[str, Any]]) -> None:
    names = list(cells[0]["called_harmful"])
    table = Table("layer", "penalty", *names, "AUC HarmBench : OR-Bench", "AUC XSTest")
    for cell in cells:
        rates = [f"{cell['called_harmful'][name]:.2f}" for name in names]
        areas = [str(cell["auc_harmbench"]), str(cell["auc_xstest"])]
        table.add_row(str(cell["layer"]), str(cell["penalty"]), *rates, *areas)
    Console(width=150).print(table)


def _end(result: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and prompts, no file")
    main(parser.parse_args().quick)
