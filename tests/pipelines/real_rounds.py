"""Whole rounds with small real models: in this process, step by step, or as `python -m pipelines run` plays them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sparring.config.run import RunConfig
from sparring.registry import rounds
from sparring.registry.champion import ChampionLog, read_log
from sparring.steps.entry import RunRequest, execute
from sparring.steps.gate import GateRecord, decision_key, read_record
from sparring.store import Store
from tests.pipelines.memorised import Memory, Row, Says

ROOT = Path(__file__).parent.parent.parent
SECONDS = 1500.0
SMALL: dict[str, Any] = {
    "warm_start": {"steps": 0},
    "game": {"attack_tokens": 6, "answer_tokens": 6, "generated_share": 0.25},
    "selfplay": {"steps": 2, "games": 8, "group": 2, "max_void_share": 1.0, "sft_examples": 4, "save_steps": 1},
    "evaluate": {"answer_tokens": 8},  # a whole answer is one token
    "gate": {"approve_first_run": True},
}
"""Suites, judge and policies are those that decide by default; only the training is cut down."""


def refuses(memory: Memory, *, harmful: float, benign: float) -> Says:
    """Refuses a share of either kind, always the same prompts first, and helps with the rest."""

    def says(row: Row) -> str:
        draw = int(sha256(row["prompt_id"].encode()).hexdigest()[:8], 16) / 2**32
        return memory.refuse(row) if draw < (harmful if row["kind"] == "harmful" else benign) else memory.help(row)

    return says


@dataclass(frozen=True)
class Line:
    """A line in a store of its own."""

    folder: Path
    base: Path

    @property
    def store(self) -> Store:
        return self._request.open()

    @property
    def log(self) -> ChampionLog:
        return read_log(self.store)

    @property
    def _request(self) -> RunRequest:
        return RunRequest(store=str(self.folder / "store"), line="default", config="")

    def copy(self, folder: Path) -> Line:
        """The same line in another store, to go on differently."""
        shutil.copytree(self.folder / "store", folder / "store")
        return replace(self, folder=folder)

    def fresh(self, folder: Path) -> Line:
        """A line with no round yet, which finds the datasets of this one built."""
        played = shutil.ignore_patterns("rounds", "champion", "gate", "ledger", "pool")
        shutil.copytree(self.folder / "store", folder / "store", ignore=played)
        return replace(self, folder=folder)

    def record(self) -> GateRecord:
        """The decision of the last round."""
        return read_record(self.store, decision_key(rounds.last_round(self.store)))

    def config(self, candidate: Path | None = None, **changes: Any) -> RunConfig:
        given = {"store": self._request.store, "model": {"source": str(self.base)}}
        sections = {name: {**SMALL.get(name, {}), **part} for name, part in changes.items()}
        return RunConfig.model_validate(
            {**SMALL, **given, **sections, "candidate": str(candidate) if candidate else None}
        )

    def play(self, config: RunConfig) -> str:
        """Plays a round in this process, step by step; returns the decision."""
        request = self._request.model_copy(update={"config": rounds.save_config(self.store, config)})
        run = request.model_dump_json()
        number = execute("prepare", run)
        for step in ("selfplay", "update_pool", "answer", "judge"):
            execute(step, run, number)
        decision = execute("gate", run, number)
        execute("promote" if decision == "PROMOTE" else "hold", run, number)
        execute("report", run, number)
        return decision

    def command(self, config: RunConfig) -> list[str]:
        """What a user types to play a round."""
        path = self.folder / "run.yaml"
        path.write_text(json.dumps(config.model_dump()))
        return [sys.executable, "-m", "pipelines", "run", "--config", str(path)]

    def run(self, config: RunConfig) -> subprocess.CompletedProcess[str]:
        """Plays a round under kfp's runner, a process a step."""
        return subprocess.run(
            self.command(config), cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with a folder for what a killed run leaves behind."""
        return {**os.environ, "TMPDIR": str(self.folder)}
