"""Step `answer` with attacks: killed with -9 on its way, judged into one verdict table, deaf to the gate's judge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from sparring.config.run import DataConfig, EvaluateConfig, JudgeConfig
from sparring.data.suites import build_suites
from sparring.evaluate.adaptive.attacks import read_attacks
from sparring.evaluate.asr import asr_curve
from sparring.evaluate.tables import KEY, read_verdicts
from sparring.progress import Progress
from sparring.registry.checkpoints import save_checkpoint
from sparring.steps import answer, judge
from sparring.steps.answer import AnswerInputs
from sparring.steps.judge import JudgeInputs
from sparring.steps.results import AnswerResult, PrepareResult, SelfplayResult
from sparring.store import Store, open_store
from sparring.store.datasets import load_table, save_table
from sparring.store.local import LocalStore
from tests.models import save_tiny

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(300)  # a busy machine takes long to make the tokenizer
METHODS = ["attacker", "pair", "multi_turn"]
SETTINGS = {
    "answer_tokens": 4,
    "adaptive": {"methods": METHODS, "behaviors": 2, "tries": 2, "attack_tokens": 4},
}
CONFIG = EvaluateConfig.model_validate(SETTINGS)
SLICES = ("vanilla", "plain", "choice")


@dataclass(frozen=True)
class Line:
    """A line whose round 1 is trained, in a folder: base and candidate are two tiny models."""

    folder: Path

    @property
    def store(self) -> Store:
        return open_store(str(self.folder / "store"))

    def inputs(self) -> AnswerInputs:
        told = json.loads((self.folder / "inputs.json").read_text())
        prepared, trained = PrepareResult.model_validate(told[0]), SelfplayResult.model_validate(told[1])
        return AnswerInputs(prepared, trained, 3, 1, self.folder / "work")

    def play(self, store: Store | None = None) -> AnswerResult:
        return answer.run(CONFIG, store or self.store, self.inputs(), Progress("answer"))

    def copy(self, folder: Path) -> Line:
        shutil.copytree(self.folder, folder)
        return Line(folder)


def prepare(folder: Path) -> Line:
    store = open_store(str(folder / "store"))
    first = save_tiny(folder / "tiny")
    other = shutil.copytree(first, folder / "other")
    weights = load_file(first / "model.safetensors")
    save_file(
        {name: np.roll(value, 1, 0) for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"}
    )
    base, candidate = save_checkpoint(store, first), save_checkpoint(store, other)
    suites = build_suites(DataConfig()).table()
    few = pa.concat_tables([suites.filter(pa.compute.equal(suites["slice"], s)).slice(0, 3) for s in SLICES])
    prepared = PrepareResult(
        round=1, start=base, base=base, champion=None, reference=None, log_head=0, seeds="",
        suites=save_table(store, few, name="suites", meta={}), replay="", counts={},
    )  # fmt: skip
    trained = SelfplayResult(candidate=candidate, warm=None, games_key="", curves_key="", games=0, trained_tokens=0)
    (folder / "inputs.json").write_text(json.dumps([prepared.model_dump(), trained.model_dump()]))
    return Line(folder)


class Deadly(LocalStore):
    """Kills this process with -9 in place of its `left`-th write under `rounds/`."""

    left = 0

    def _write(self, key: str) -> None:
        if key.startswith("rounds/"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def put(self, key: str, data: bytes) -> None:
        self._write(key)
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._write(key)
        return super().put_if_absent(key, data)


def child(line: Line, left: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.steps.test_answer_attacked", str(line.folder), str(left)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def frozen(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("rounds/")}


def same_rows(left: Store, right: Store, found: AnswerResult, wanted: AnswerResult) -> None:
    assert found == wanted
    for role in wanted.answers:
        tables = [
            pq.read_table(pa.BufferReader(store.get(one.answers[role])))
            for store, one in ((left, found), (right, wanted))
        ]
        assert tables[0].equals(tables[1])


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return prepare(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="module")
def twin(line: Line) -> tuple[Store, AnswerResult]:
    """What a line leaves that nobody kills."""
    copy = line.copy(line.folder.with_name("twin"))
    return copy.store, copy.play()


def test_answers_to_attacks_are_rows_of_the_same_tables_for_every_model(twin: tuple[Store, AnswerResult]) -> None:
    store, result = twin
    assert result.tries == 3 * 2 * 2
    attacks = read_attacks(load_table(store, result.attacks))
    assert len(attacks) == 8 + 2 * 4  # two methods for all, one for each model
    judged = judge.run(JudgeConfig(), store, JudgeInputs(1, result), Progress("judge"))
    tables = [read_verdicts(store, key)[0] for key in judged.verdicts.values()]
    keys = [sorted(zip(*(table[column].to_pylist() for column in KEY), strict=True)) for table in tables]
    assert keys[0] == keys[1] and len(keys[0]) == 9 + 12
    for table in tables:
        for method in METHODS:
            curve = asr_curve(table, [f"adaptive-{method}"])
            assert [rate.k for rate in curve] == [1, 2] and curve[0].n == 2


def test_without_methods_nothing_is_attacked_and_old_results_are_read(line: Line, tmp_path: Path) -> None:
    copy = line.copy(tmp_path / "line")
    result = answer.run(EvaluateConfig(answer_tokens=4), copy.store, copy.inputs(), Progress("answer"))
    assert (result.attacks, result.tries) == ("", 0)
    assert not [key for key in copy.store.list("rounds/") if "adaptive" in key]
    old = result.model_dump(exclude={"attacks", "tries"})
    assert AnswerResult.model_validate(old) == result


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_with_9_again_and_again_it_ends_like_its_twin(
    line: Line, twin: tuple[Store, AnswerResult], tmp_path: Path
) -> None:
    copy = line.copy(tmp_path / "line")
    before: dict[str, bytes] = {}
    for left in (3, 8):  # in the attacks on the first model, and in those on the second
        assert child(copy, left).returncode == -signal.SIGKILL
        now = frozen(copy.store)
        assert len(now) > len(before) and {key: now[key] for key in before} == before
        before = now
    found = copy.play()
    after = frozen(copy.store)
    assert {key: after[key] for key in before} == before
    same_rows(copy.store, twin[0], found, twin[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_gates_judge_is_never_loaded(line: Line, tmp_path: Path) -> None:
    """Its weights are not even opened, while the reward judge's are."""
    ended = child(line.copy(tmp_path / "line"), 0)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("opened:")[1].split() == ["reward.npz"]


def main(folder: Path, left: int) -> None:
    """The step in a process of its own; says which judges' weights it opened."""
    opened: list[str] = []

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        name = Path(str(arguments[0])).name if event == "open" else ""
        if name in ("gate.npz", "reward.npz") and name not in opened:
            opened.append(name)

    sys.addaudithook(audit)
    store = Deadly(folder / "store")
    store.left = left
    Line(folder).play(store)
    print("opened:", *opened)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
