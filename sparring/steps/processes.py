"""Self-play in several processes (`selfplay.processes`): started by torchrun, of which the first alone writes.

    step ─► torchrun ─► process 0 … n − 1, each `python -m sparring.steps.processes JOB`: `sparring.steps.play.play`
      ▲                     │ tells its progress, leaves the candidate or its error in the work folder
      └─────────────────────┘

The processes end with the step that started them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

import sparring.errors
from sparring.errors import SparringError, TrainingError
from sparring.progress import Progress
from sparring.steps.budget import Meter
from sparring.steps.guard import end_with_runner, runner_alive
from sparring.steps.training import Keys, SelfplayInputs, SelfplayStepConfig
from sparring.store import open_store
from sparring.train.curves import CurveFile

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What every process is told: the step's sections and inputs, the line's store, and the start's folder."""

    config: SelfplayStepConfig
    inputs: SelfplayInputs
    store: str
    start: Path

    @property
    def folder(self) -> Path:
        """Where the processes leave what they have to say."""
        return self.inputs.work / f"round-{self.inputs.prepared.round:06d}" / "processes"


_JOB: TypeAdapter[Job] = TypeAdapter(Job)


def launch(job: Job, progress: Progress) -> tuple[str, str]:
    """Runs the job's processes to their end: digest of the candidate, and the guard that stopped it ("" when none).

    Raises what a process raised, TrainingError when one ended without a word.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    for left in ("told.jsonl", "made.json", "error.json"):
        (job.folder / left).unlink(missing_ok=True)
    (job.folder / "job.json").write_bytes(_JOB.dump_json(job))
    count = job.config.selfplay.processes
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}",
               "-m", __spec__.name, str(job.folder / "job.json")]  # fmt: skip
    with runner_alive(job.folder) as environment:
        process = subprocess.Popen(command, env={**os.environ, **environment})
        try:
            _relay(process, job.folder / "told.jsonl", progress)
        finally:
            process.terminate()
            process.wait()
    return _outcome(job.folder, process.returncode)


def _relay(process: subprocess.Popen[bytes], told: Path, progress: Progress) -> None:
    """Tells on what the first process tells of its progress, until all have ended."""
    done = False
    seen = 0
    while not done:
        done = process.poll() is not None
        lines = told.read_bytes().split(b"\n")[:-1] if told.exists() else []
        for line in lines[seen:]:
            progress.update(**json.loads(line))
        seen = len(lines)
        time.sleep(0 if done else _LOOK_SECONDS)


def _outcome(folder: Path, code: int) -> tuple[str, str]:
    if (folder / "error.json").exists():
        found = json.loads((folder / "error.json").read_text())
        kind = getattr(sparring.errors, found["kind"], TrainingError)
        raise kind(found["message"], hint=found["hint"])
    if code or not (folder / "made.json").exists():
        raise TrainingError(f"a training process ended with code {code}", hint="its output stands above")
    made = json.loads((folder / "made.json").read_text())
    return made["candidate"], made["guard"]


class _Told(Progress):
    """Progress of a process that the step tells on; only the first has something to say."""

    def __init__(self, path: Path | None) -> None:
        super().__init__("selfplay")
        self._path = path

    def update(
        self, stage: str, done: int, total: int, note: str = "", numbers: Mapping[str, float] | None = None
    ) -> None:
        """See `Progress`."""
        if self._path:
            line = {"stage": stage, "done": done, "total": total, "note": note, "numbers": numbers}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def main(path: str) -> None:
    """One process of a job."""
    from sparring.steps.play import gpus, play
    from sparring.train.ranks import check_world

    end_with_runner()
    job = _JOB.validate_json(Path(path).read_bytes())
    with _errors_told(job.folder):
        check_world(job.config.selfplay.processes, int(os.environ.get("WORLD_SIZE", "1")))
        first = os.environ.get("RANK", "0") == "0"
        progress = _Told(job.folder / "told.jsonl" if first else None)
        store, keys = open_store(job.store), Keys(job.inputs.prepared.round)
        curves, meter = CurveFile(store, keys.curves), Meter(job.config.budget, store, keys.spent, gpus())
        candidate, guard = play(
            job.config, store, job.inputs, job.start, curves, job.inputs.transcripts, meter, progress
        )
        if first:
            (job.folder / "made.json").write_text(json.dumps({"candidate": candidate, "guard": guard}))


@contextmanager
def _errors_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except SparringError as error:
        said = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        (folder / "error.json").write_text(json.dumps(said))
        raise


if __name__ == "__main__":
    main(sys.argv[1])
