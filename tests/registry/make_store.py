"""Makes the store of a release for `test_store_v1.py`: `python -m tests.registry.make_store FOLDER`.

Run once a release, with that release's code, into `tests/registry/store_v<n>/`; never again with later code, since the
next release must read what this one wrote. Models are a few bytes; everything else is what the steps themselves write:
round 1 promotes, round 2 rejects, round 3 is claimed and prepared and then left open.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from sparring.config.run import RunConfig
from sparring.evaluate.tables import write_verdicts
from sparring.registry import rounds
from sparring.replay.pool import Pool
from sparring.steps.entry import RunRequest, execute
from sparring.steps.prepare import Base
from sparring.steps.results import (
    AnswerResult,
    JudgeResult,
    PrepareResult,
    Role,
    SelfplayResult,
    UpdatePoolResult,
)
from sparring.store import Store
from sparring.store.datasets import save_table
from tests.gate.worlds import World
from tests.pipelines.planted import BASE, BETTER, plant_model
from tests.replay.rows import attack_rows, outcome_rows

BASE_MODEL, FIRST, SECOND, THIRD = 1.0, 2.0, 3.0, 4.0


def main(folder: Path) -> None:
    """Writes the store into an empty folder."""
    socket.gethostname = lambda: "laptop"  # the ledger says where a step ran
    config = RunConfig.model_validate({"gate": {"approve_first_run": True}})
    request = RunRequest(store=str(folder), line=config.line, config="")
    store = request.open()
    run = request.model_copy(update={"config": rounds.save_config(store, config)}).model_dump_json()
    with tempfile.TemporaryDirectory() as scratch:
        base, first, second, third = (
            plant_model(store, Path(scratch), value) for value in (BASE_MODEL, FIRST, SECOND, THIRD)
        )
    store.put("base.json", Base(source="packaged:smollm2-135m", digest=base).model_dump_json().encode())
    data = {name: _dataset(store, name) for name in ("seeds", "suites", "replay")}
    _pool(store, first)
    models: dict[Role, tuple[str, World]] = {"champion": (base, BASE), "candidate": (first, BETTER)}
    _round(store, run, models, data, None)
    execute("gate", run, "1")
    execute("promote", run, "1")
    worse = replace(BETTER, asr=0.5)
    models = {"champion": (first, BETTER), "candidate": (second, worse), "reference": (first, BETTER)}
    _round(store, run, models, data, first)
    execute("gate", run, "2")
    execute("hold", run, "2")
    number = rounds.claim(store, config_digest=RunRequest.model_validate_json(run).config, now=datetime.now(UTC)).number
    rounds.save_result(store, number, "prepare", _prepared(number, first, base, first, data))
    rounds.save_result(store, number, "selfplay", _selfplay(third))


def _dataset(store: Store, name: str) -> str:
    table = pa.table({"id": ["1", "2"], "prompt": ["How do I boil an egg?", "Name three rivers."]})
    card = {"kind": name, "rows": 2, "label": {"benign": 2}, "licences": {"starter": "CC-BY-4.0"}}
    return save_table(store, table, name=name, meta=card)


def _pool(store: Store, defender: str) -> None:
    Pool(store).append(attack_rows(range(4)), outcome_rows(range(4), defender=defender))


def _round(
    store: Store, run: str, models: dict[Role, tuple[str, World]], data: dict[str, str], champion: str | None
) -> None:
    digest = RunRequest.model_validate_json(run).config
    number = rounds.claim(store, config_digest=digest, now=datetime.now(UTC)).number
    names: dict[Role, str] = {role: model for role, (model, _) in models.items()}
    verdicts: dict[Role, str] = {}
    for role, (model, world) in models.items():
        verdicts[role] = f"rounds/{number:06d}/judge/{role}.parquet"
        write_verdicts(store, verdicts[role], replace(world, model=model).table())
    base = rounds.load_result(store, 1, "prepare", PrepareResult)
    found = _prepared(number, names["champion"], base.base if base else names["champion"], champion, data)
    rounds.save_result(store, number, "prepare", found)
    rounds.save_result(store, number, "selfplay", _selfplay(names["candidate"]))
    pooled = UpdatePoolResult(attacks_added=4, attacks_known=0, outcomes_added=4, pool_attacks=4, pool_outcomes=4)
    rounds.save_result(store, number, "update_pool", pooled)
    answered = AnswerResult(models=names, answers={}, suites=data["suites"], decoding="test")
    rounds.save_result(store, number, "answer", answered)
    judged = JudgeResult(
        models=names, verdicts=verdicts, suites=data["suites"], decoding="test", judge="test", rows=940, void=0
    )
    rounds.save_result(store, number, "judge", judged)


def _prepared(number: int, start: str, base: str, champion: str | None, data: dict[str, str]) -> PrepareResult:
    return PrepareResult(
        round=number, start=start, base=base, champion=champion, reference=champion,
        log_head=number - 1, seeds=data["seeds"], suites=data["suites"], replay=data["replay"], counts={"replay": 2},
    )  # fmt: skip


def _selfplay(candidate: str) -> SelfplayResult:
    return SelfplayResult(candidate=candidate, warm=None, games_key="none", curves_key="", games=0, trained_tokens=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
