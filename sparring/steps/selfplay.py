"""Step `selfplay`: warm start (first round only), then self-play with shared weights; leaves a candidate.

start checkpoint ─► [warm start] ─► games ─► REINFORCE++ ─► candidate
                                      └─► transcripts, learning curves

A killed run goes on: the warm-started checkpoint is recorded in the store, training states lie in the work folder.
A budget that is used up ends either training after a step, but self-play plays one at least: a candidate that is the
champion itself would spend α for nothing. A guard (`sparring.train.guards`) ends self-play as well: the candidate is
what the last good step left, and the gate holds it without a look.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sparring.errors import ConfigError
from sparring.progress import Progress
from sparring.registry.checkpoints import load_checkpoint
from sparring.registry.signing import key_from_env, password_from_env, sign_checkpoint
from sparring.steps.budget import Meter
from sparring.steps.play import gpus, play
from sparring.steps.processes import Job, launch
from sparring.steps.results import SelfplayResult
from sparring.steps.training import Keys, SelfplayInputs, SelfplayStepConfig, needs_warm, put_table
from sparring.steps.warm_start import warm
from sparring.steps.work import CHECKPOINTS
from sparring.store.base import Store
from sparring.train.curves import CurveFile
from sparring.train.transcripts import games_table

__all__ = ["SelfplayInputs", "SelfplayStepConfig", "run"]


def run(config: SelfplayStepConfig, store: Store, inputs: SelfplayInputs, progress: Progress) -> SelfplayResult:
    """Makes the round's candidate. Raises TrainingError, ModelError, StoreError, SetupError for the key."""
    keys = Keys(inputs.prepared.round)
    if config.candidate:
        return _given(config.candidate, store, keys)
    key = key_from_env(config.registry.sign_key_env) if config.registry.sign_key_env else None
    meter, curves = Meter(config.budget, store, keys.spent, gpus()), CurveFile(store, keys.curves)
    games = inputs.transcripts
    warmed = warm(config, store, inputs, curves, meter, progress) if needs_warm(config, inputs) else None
    start = load_checkpoint(store, warmed or inputs.prepared.start, inputs.work / CHECKPOINTS)
    candidate, guard = warmed or inputs.prepared.start, ""
    if config.selfplay.steps:
        states = inputs.states(store)
        states.restore(games.folder / "train", games)
        if config.selfplay.processes > 1:
            candidate, guard = launch(Job(config, inputs, store.url, start), progress)
            meter, curves = Meter(config.budget, store, keys.spent, gpus()), CurveFile(store, keys.curves)
        else:
            candidate, guard = play(config, store, inputs, start, curves, games, meter, progress)
    if key:
        sign_checkpoint(store, candidate, key, password_from_env())
    table = games.table()
    put_table(store, keys.games, table)
    result = SelfplayResult(
        candidate=candidate,
        warm=warmed,
        games_key=keys.games,
        curves_key=keys.curves,
        games=table.num_rows,
        trained_tokens=int(sum(line.get("tokens", 0) for line in curves.lines)),
        stopped="" if guard else _stopped(config, meter, curves),
        guard=guard,
        spent=meter.spent.numbers() if meter.limited else {},
    )
    if config.selfplay.steps:
        states.clear()
    shutil.rmtree(games.folder, ignore_errors=True)  # training states can be gigabytes; the candidate is stored
    return result


def _stopped(config: SelfplayStepConfig, meter: Meter, curves: CurveFile) -> str:
    """Why self-play has fewer steps than asked for; "" when it has them all."""
    done = max((int(line["step"]) for line in curves.lines if line["phase"] == "selfplay"), default=0)
    return f"{meter.over()} after step {done} of {config.selfplay.steps}" if done < config.selfplay.steps else ""


def _given(folder: str, store: Store, keys: Keys) -> SelfplayResult:
    """A candidate trained elsewhere: nothing is played, the tables stay empty."""
    from sparring.policy.packaged import import_folder

    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"candidate {folder} is not a folder", hint="name a folder with safetensors and tokenizer")
    digest = import_folder(path, store, meta={"source": folder})
    put_table(store, keys.games, games_table([]))
    store.put(keys.curves, b"")
    return SelfplayResult(
        candidate=digest, warm=None, games_key=keys.games, curves_key=keys.curves, games=0, trained_tokens=0
    )
