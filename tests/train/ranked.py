"""One process of a small training, to be started by torchrun or alone; leaves weights, gradients and losses in a file.

python -m tests.train.ranked MODEL WORK OUT PROCESSES CONFIG
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparring.config.run import SelfplayConfig
from sparring.policy.load import load_policy
from sparring.train.ranks import SharedJudge
from sparring.train.session import process_rows, train
from sparring.train.trainer import SelfPlayTrainer
from tests.train.small import SMALL, KeywordJudge, session


def main(model: str, work: str, out: str, processes: int, changes: dict[str, Any], rows: int) -> None:
    config = SelfplayConfig.model_validate({**SMALL.model_dump(), **changes, "processes": processes})
    assert process_rows(rows, config) * processes >= rows
    lines: list[dict[str, float]] = []
    gradients: dict[str, torch.Tensor] = {}
    norm = SelfPlayTrainer._get_grad_norm

    def kept(self: Any, model: Any, grad_norm: Any = None) -> Any:
        if self.state.global_step == 0:
            unwrapped = self.accelerator.unwrap_model(model)
            gradients.update(
                {f"grad.{n}": p.grad.clone() for n, p in unwrapped.named_parameters() if p.grad is not None}
            )
        return norm(self, model, grad_norm)

    SelfPlayTrainer._get_grad_norm = kept  # type: ignore[method-assign]
    policy = load_policy(Path(model))
    given = session(policy, Path(model), Path(work), config, SharedJudge(KeywordJudge()))
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # as when this process' judge timed out: what is taught is the first's
        given = replace(given, lessons=given.lessons[:1])
    trained = train(given, rows, lambda step, games, curve: lines.append(curve))
    torch.save({**{n: p.detach() for n, p in trained.named_parameters()}, **gradients}, f"{out}.{rank}.pt")
    if rank == "0":
        Path(f"{out}.json").write_text(json.dumps(lines))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), json.loads(sys.argv[5]), int(sys.argv[6]))
