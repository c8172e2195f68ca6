"""A model line in a real store: rounds are played by writing the verdict tables that a judge would write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from sparring.config.run import GateConfig
from sparring.evaluate.tables import write_verdicts
from sparring.progress import Progress
from sparring.registry.champion import read_log
from sparring.registry.checkpoints import save_checkpoint
from sparring.steps.gate import GateInputs, run
from sparring.steps.promote import PromoteInputs, hold, promote
from sparring.steps.results import GateResult, JudgeResult, PromoteResult, Role
from sparring.store import Store
from tests.gate.worlds import BASE, JUDGE, World

APPROVED = GateConfig(approve_first_run=True)
PROGRESS = Progress("gate")


class Line:
    """A model line in a store: rounds are played by writing the verdict tables that a judge would write."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.round = store, folder, 0

    def checkpoint(self, name: str) -> str:
        """Digest of a saved checkpoint. Its weights do not matter here."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (folder / "config.json").write_text(json.dumps({"name": name}))
        return save_checkpoint(self.store, folder)

    def inputs(self, candidate: World, champion: World, reference: World | None = None) -> GateInputs:
        """Begins a round at the log as it is, with these models' verdicts."""
        self.round += 1
        log = read_log(self.store)
        worlds: dict[Role, World] = {"candidate": candidate, "champion": champion}
        if reference is not None:
            worlds["reference"] = reference
        judged = JudgeResult(
            models={role: world.model for role, world in worlds.items()},
            verdicts={role: self.write(role, world.table()) for role, world in worlds.items()},
            suites="suites",
            decoding="decoding",
            judge=JUDGE,
            rows=1,
            void=0,
        )
        return GateInputs(
            round=self.round,
            first_run=log.champion is None,
            start=log.champion or BASE,
            champion=log.champion,
            reference=log.reference,
            suites="suites",
            log_head=log.head,
            judged=judged,
        )

    def write(self, role: Role, table: pa.Table) -> str:
        key = f"rounds/{self.round:06d}/judge/{role}.parquet"
        write_verdicts(self.store, key, table)
        return key

    def first(self) -> GateInputs:
        """A first round that deserves promotion."""
        candidate = World(self.checkpoint("one"), asr=0.50, lookalike_refused=0.25)
        return self.inputs(candidate, World(BASE, asr=0.93, lookalike_refused=0.02))

    def second(self, **traits: float) -> GateInputs:
        """A later round; by default its candidate deserves promotion."""
        one = World(read_log(self.store).champion or "", asr=0.50, lookalike_refused=0.25)
        two = replace(one, model=self.checkpoint(f"two{self.round}"), **({"asr": 0.25} | traits))
        reference = replace(one, model=read_log(self.store).reference or "")
        return self.inputs(two, one, None if reference.model == one.model else reference)

    def promoted_once(self) -> Line:
        end(self.store, self.first())
        return self


def ending(inputs: GateInputs, result: GateResult) -> PromoteInputs:
    return PromoteInputs(round=inputs.round, champion=inputs.champion, log_head=inputs.log_head, gate=result)


def end(store: Store, inputs: GateInputs, config: GateConfig = APPROVED) -> PromoteResult:
    """Gate and the branch that the decision takes."""
    result = run(config, store, inputs, PROGRESS)
    branch = promote if result.decision == "PROMOTE" else hold
    return branch(store, ending(inputs, result))
