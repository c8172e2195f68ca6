"""Log-probabilities, entropies and gradients of a batch, against TRL's padded update: `python -m benchmarks update`.

TRL's side is the method of a stock `GRPOTrainer` (trl 1.16) followed by a backward pass; ours is one packed row. Both
get the same rows: groups of G completions of 24 tokens at most, prompts from half to the whole of the length P,
float32, no gradient checkpointing. Without Triton (on CPU) TRL's fused head scores prompt positions too; "head" is how
much of the ratio is that alone: TRL's padded rows with a head over the completions only, against TRL.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks._engine import (
    SEED,
    Prompts,
    compare,
    finish,
    left_padded,
    model_folder,
    parse,
    right_padded,
    take_turns,
)
from sparring.policy.logprobs import pack, packed_logprobs

CELLS = ((64, 16, 16), (128, 4, 8), (256, 8, 8), (512, 4, 4))
"""Longest prompt in tokens, group size, rows."""
ANSWER = 24
CHECKS = ("max_abs_logp_diff", "relative_gradient_diff", "peer_gradient_error", "ours_gradient_error")
"""The errors are distances to the gradient in double precision, by the peer's way."""
Logps = Callable[[], Tensor]


def main(quick: bool) -> dict[str, Any]:
    """Prints the table and one JSON line; writes `results/update.json` unless `quick`."""
    folder = model_folder(quick)
    trainer = stock(folder)
    cells = [measure(trainer, *cell) for cell in (CELLS[:2] if quick else CELLS)]
    worst = min(cells, key=lambda cell: cell["ratio"])
    result = {
        "bench": "update",
        "peer": "trl 1.16 GRPOTrainer, padded",
        **{key: worst[key] for key in ("ratio", "spread", "ratio_cpu", "n")},
        "checks": {key: max(cell[key] for cell in cells) for key in CHECKS},
        "cells": cells,
    }
    show(cells)
    return finish(result, quick=quick)


def stock(folder: Path) -> Any:
    """A stock trainer, with its model as it trains it."""
    from trl import GRPOTrainer

    from benchmarks._engine_step import _score, _settings

    with tempfile.TemporaryDirectory() as work:
        return GRPOTrainer(model=str(folder), reward_funcs=_score, args=_settings(work, 8), train_dataset=_one())


def _one() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "x"}, {"prompt": "y"}])


def measure(trainer: Any, longest: int, group: int, rows: int) -> dict[str, Any]:
    """One cell: seconds of both sides, the head's part, and how far values and gradients are apart."""
    model, method = trainer.model.train(), trainer._get_per_token_logps_and_entropies
    prompts = Prompts(SEED + longest)
    frame = len(prompts.user(0, 0))
    asked = [prompts.user(longest // 2 - frame, longest - frame) for _ in range(rows // group)]
    answers = [prompts.user(0, 0)[-n:] for n in prompts.lengths(rows, ANSWER // 2, ANSWER)]
    ids, mask = left_padded([prompt for prompt in asked for _ in range(group)])
    completions, kept = right_padded(answers)
    joined, seen = torch.cat([ids, completions], dim=1), torch.cat([mask, kept], dim=1)
    sides: dict[str, Logps] = {
        "peer": lambda: method(model, joined, seen, completions.shape[1], compute_entropy=True)[0],
        "compact": lambda: compact(model, joined, seen, completions),
        "ours": lambda: packed_logprobs(model, pack(ids, mask, completions, kept), completions, entropy=True)[0],
    }
    times = take_turns({name: partial(learn, model, side, kept) for name, side in sides.items()}, 5)
    (theirs, their_gradient), (mine, my_gradient) = (learn(model, sides[name], kept) for name in ("peer", "ours"))
    model.zero_grad(set_to_none=True)
    double = copy.deepcopy(model).double()
    exact = learn(double, lambda: method(double, joined, seen, completions.shape[1])[0], kept)[1]
    return {
        "prompt": longest,
        "group": group,
        "rows": rows,
        **compare(times["peer"], times["ours"]),
        "head": compare(times["peer"], times["compact"])["ratio"],
        "max_abs_logp_diff": float(((theirs - mine) * kept).abs().max()),
        "relative_gradient_diff": apart(my_gradient, their_gradient),
        "peer_gradient_error": apart(their_gradient, exact),
        "ours_gradient_error": apart(my_gradient, exact),
    }


def learn(model: Any, logps: Logps, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, T) and the gradient of a weighted sum of them, all parameters in one vector."""
    model.zero_grad(set_to_none=True)
    values = logps()
    weights = torch.linspace(-1, 1, len(kept))[:, None] * kept
    torch.autograd.backward((values * weights).sum())
    return values.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def apart(found: Tensor, truth: Tensor) -> float:
    """Distance of two gradients over the norm of the second."""
    return float((found.double() - truth.double()).norm() / truth.double().norm())


def compact(model: Any, ids: Tensor, mask: Tensor, completions: Tensor) -> Tensor:
    """TRL's padded rows with a head over the completions only, and the entropies that TRL computes too."""
    keep = completions.shape[1]
    logits = model(ids, attention_mask=mask, logits_to_keep=keep + 1, use_cache=False).logits[:, :-1]
    table = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        -(table.exp() * table).sum(-1)
    return table.gather(2, completions[..., None]).squeeze(2)


def show(cells: Sequence[dict[str, Any]]) -> None:
    """The table for people."""
    table = Table("prompt", "G", "rows", "TRL s", "ours s", "ratio", "quartiles", "by CPU time", "head alone", "Δ logp",
                  "Δ gradient", "of exact: TRL's, ours")  # fmt: skip
    for c in cells:
        table.add_row(*(str(c[key]) for key in ("prompt", "group", "rows", "peer_s", "ours_s")), f"{c['ratio']}×",
                      str(c["spread"]), f"{c['ratio_cpu']}×", f"{c['head']}×", f"{c['max_abs_logp_diff']:.0e}",
                      f"{c['relative_gradient_diff']:.0e}",
                      f"{c['peer_gradient_error']:.0e}  {c['ours_gradient_error']:.0e}")  # fmt: skip
    Console(width=130).print(table)


if __name__ == "__main__":
    main(parse(__doc__, "a model of three layers, two cells, no file").quick)
