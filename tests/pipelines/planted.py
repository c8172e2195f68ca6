"""Rounds planted in a store up to the judge, so that a test can let the real pipeline decide them.

Everything that is planted is what the steps themselves would have left: a claim, results, checkpoints, verdict tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sparring.config.run import RunConfig
from sparring.evaluate.tables import write_verdicts
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.registry.checkpoints import save_checkpoint
from sparring.steps.entry import RunRequest
from sparring.steps.results import (
    AnswerResult,
    JudgeResult,
    PrepareResult,
    Role,
    SelfplayResult,
    UpdatePoolResult,
)
from sparring.store import Store
from tests.gate.worlds import World

BASE = World("", asr=0.90, lookalike_refused=0.02, plain_refused=0.0)
BETTER = replace(BASE, asr=0.30, lookalike_refused=0.20, plain_refused=0.02)
SUITES = "5" * 64


@dataclass(frozen=True)
class Planted:
    """A store with one open round whose next step is the gate."""

    request: RunRequest
    store: Store
    number: int
    base: str
    candidate: str


def plant(folder: Path, candidate: World, config: RunConfig | None = None, url: str | None = None) -> Planted:
    """The next round of the line: the base model against `candidate`, judged and not yet decided.

    The store is at `url`, or else in `folder`, which takes the models' files too.
    """
    config = config or RunConfig.model_validate({"gate": {"approve_first_run": True}})
    request = RunRequest(store=url or str(folder / "store"), line=config.line, config="")
    store = request.open()
    request = request.model_copy(update={"config": rounds.save_config(store, config)})
    number = rounds.claim(store, config_digest=request.config, now=datetime.now(UTC)).number
    digests: dict[Role, str] = {
        "champion": plant_model(store, folder, 1.0),
        "candidate": plant_model(store, folder, 2.0),
    }
    tables = {"champion": BASE, "candidate": candidate}
    verdicts: dict[Role, str] = {}
    for role, digest in digests.items():
        verdicts[role] = f"rounds/{number:06d}/judge/{role}.parquet"
        write_verdicts(store, verdicts[role], replace(tables[role], model=digest).table())
    _results(store, number, digests, verdicts)
    return Planted(request, store, number, digests["champion"], digests["candidate"])


def plant_model(store: Store, folder: Path, value: float) -> str:
    """A checkpoint that is told apart by one number."""
    model = folder / f"model-{value}"
    model.mkdir(parents=True)
    save_file({"weight": np.full((2, 2), value, dtype=np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    return save_checkpoint(store, model)


def _results(store: Store, number: int, models: dict[Role, str], verdicts: dict[Role, str]) -> None:
    prepared = PrepareResult(
        round=number, start=models["champion"], base=models["champion"], champion=None, reference=None,
        log_head=read_log(store).head, seeds="6" * 64, suites=SUITES, replay="7" * 64, counts={},
    )  # fmt: skip
    trained = SelfplayResult(
        candidate=models["candidate"], warm=None, games_key="none", curves_key="", games=0, trained_tokens=0
    )
    pooled = UpdatePoolResult(attacks_added=0, attacks_known=0, outcomes_added=0, pool_attacks=0, pool_outcomes=0)
    answered = AnswerResult(models=models, answers={}, suites=SUITES, decoding="test")
    judged = JudgeResult(
        models=models, verdicts=verdicts, suites=SUITES, decoding="test", judge="test", rows=940, void=0
    )  # fmt: skip
    found = {"prepare": prepared, "selfplay": trained, "update_pool": pooled, "answer": answered, "judge": judged}
    for step, result in found.items():
        rounds.save_result(store, number, step, result)
