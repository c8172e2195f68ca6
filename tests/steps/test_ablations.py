"""Each part of the method switched off by configuration: said to be impossible, or trained once for real."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparring.config.checks import cross_check
from sparring.config.run import RunConfig
from sparring.errors import ConfigError
from sparring.progress import Progress
from sparring.steps import selfplay
from sparring.steps.selfplay import SelfplayInputs, SelfplayStepConfig
from tests.steps.test_model_steps import RUN, Line, line, unequal

__all__ = ["line"]

ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "attacker only": {"selfplay": {"train_defender": False, "sft_coef": 0.0}, "game": {"generated_share": 0.5}},
    "defender only": {"selfplay": {"train_attacker": False}, "game": {"generated_share": 0.5}},
    "static attacks": {"selfplay": {"train_attacker": False}, "game": {"generated_share": 0.0}},
    "no chain of thought": {"game": {"cot": False}},
    "no replay": {"replay": {"sampler": "none"}},
    "no supervised term": {"selfplay": {"sft_coef": 0.0}},
    "no warm start": {"warm_start": {"steps": 0}},
    "grpo": {"selfplay": {"estimator": "grpo"}},
    "several answers": {"selfplay": {"answers_per_attack": 2, "trained_share": 1}, "game": {"generated_share": 0.5}},
    "grpo, several answers": {
        "selfplay": {"estimator": "grpo", "answers_per_attack": 3, "trained_share": 1, "games": 12},
        "game": {"generated_share": 0.5},
    },
    "batch baseline": {"selfplay": {"baseline": "batch", "trained_share": 1}},
    "all weights": {"selfplay": {"adapters": "none", "learning_rate": 5e-5}},
    "every game trains": {"selfplay": {"trained_share": 1}},
}  # fmt: skip


def configured(changes: dict[str, dict[str, Any]]) -> RunConfig:
    sections = {**RUN, "selfplay": {**RUN["selfplay"], "guards": {"min_entropy": None, "max_degenerate": None}}}
    merged = {name: {**sections.get(name, {}), **changes.get(name, {})} for name in sections.keys() | changes.keys()}
    return RunConfig.model_validate(merged)


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_is_valid_and_trains(line: Line, name: str) -> None:
    config = configured(ABLATIONS[name])
    assert cross_check(config) is None
    prepared = line.prepared.model_copy(update={"round": 100 + list(ABLATIONS).index(name)})
    inputs = SelfplayInputs(prepared, 0, line.work)
    result = selfplay.run(SelfplayStepConfig.of(config), line.store, inputs, Progress("selfplay"))
    games = pq.read_table(pa.BufferReader(line.store.get(result.games_key)))
    assert games.num_rows == 2 * config.selfplay.games
    assert result.candidate != line.prepared.base or not gives_gradient(config, games)
    written = games.filter(pa.compute.equal(games["kind"], "generated"))
    assert (written.num_rows > 0) == (config.game.generated_share > 0)
    assert written.num_rows % (config.selfplay.group * config.selfplay.answers_per_attack) == 0


def gives_gradient(config: RunConfig, games: pa.Table) -> bool:
    """Whether games whose rewards are compared with each other were paid unequally, in a role that learns."""
    selfplay = config.selfplay
    learns = {"attacker": selfplay.train_attacker, "defender": selfplay.train_defender}
    roles = tuple(role for role, trained in learns.items() if trained)
    if selfplay.estimator == "grpo" and selfplay.answers_per_attack > 1:
        paid: dict[tuple[int, str], set[float]] = {}
        for row in games.to_pylist():
            if row["defender_reward"] is not None:
                paid.setdefault((row["step"], row["attack_id"]), set()).add(row["defender_reward"])
        return any(len(rewards) > 1 for rewards in paid.values())
    return unequal(games, roles, groups=selfplay.estimator == "grpo" or selfplay.baseline == "group")


IMPOSSIBLE: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "nobody learns": (
        {"selfplay": {"train_attacker": False, "train_defender": False, "sft_coef": 0.0}}, "nobody would learn",
    ),
    "nobody attacks": (
        {"selfplay": {"train_defender": False, "sft_coef": 0.0}, "game": {"generated_share": 0.0}}, "nobody attacks",
    ),
    "taught while frozen": ({"selfplay": {"train_defender": False}}, "selfplay.sft_coef = 0"),
    "more answers than games": (
        {"selfplay": {"answers_per_attack": 5, "trained_share": 1}}, "must be at least .* = 10",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_trained_is_said_before_it_starts(name: str) -> None:
    changes, words = IMPOSSIBLE[name]
    problem = cross_check(configured(changes))
    assert problem is not None
    assert re.search(words, problem.text)


@pytest.mark.slow
def test_an_attacker_alone_needs_games_that_it_attacks_in(line: Line) -> None:
    config = configured({"selfplay": {"train_defender": False, "sft_coef": 0.0}, "game": {"generated_share": 0.01}})
    with pytest.raises(ConfigError, match=r"no game of a step is written by the attacker"):
        selfplay.run(
            SelfplayStepConfig.of(config), line.store, SelfplayInputs(line.prepared, 0, line.work), Progress("selfplay")
        )
