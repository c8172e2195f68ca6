"""The nine steps of a round: which section of the configuration and which earlier results each one is given.

Step modules are imported when their step runs: a control step must not pay for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from sparring.config.run import RunConfig
from sparring.errors import NotFoundError
from sparring.progress import Progress
from sparring.registry import rounds
from sparring.steps.results import (
    AnswerResult,
    GateResult,
    JudgeResult,
    PrepareResult,
    PromoteResult,
    ReportResult,
    SelfplayResult,
    UpdatePoolResult,
)
from sparring.store.base import Store

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Context:
    """What a step may draw on. `work` is a local folder for things that can be made again."""

    config: RunConfig
    store: Store
    number: int
    progress: Progress
    work: Path

    def result(self, step: str, cls: type[R]) -> R:
        """An earlier step's result. Raises NotFoundError naming the step."""
        found = rounds.load_result(self.store, self.number, step, cls)
        if found is None:
            raise NotFoundError(f"round {self.number} in {self.store.url} has no result of step {step}")
        return found


@dataclass(frozen=True)
class Step:
    """A step: its result's model, how it is run, its outcome for the orchestrator, and a few words for people."""

    result: type[BaseModel]
    run: Callable[[Context], BaseModel]
    outcome: Callable[[Any], str]
    note: Callable[[Any], str]


def _prepare(context: Context) -> PrepareResult:
    from sparring.steps import prepare

    inputs = prepare.PrepareInputs(context.number, context.config.seed)
    return prepare.run(prepare.PrepareConfig.of(context.config), context.store, inputs, context.progress)


def _selfplay(context: Context) -> SelfplayResult:
    from sparring.steps import selfplay

    prepared = context.result("prepare", PrepareResult)
    inputs = selfplay.SelfplayInputs(prepared, context.config.seed, context.work)
    return selfplay.run(selfplay.SelfplayStepConfig.of(context.config), context.store, inputs, context.progress)


def _update_pool(context: Context) -> UpdatePoolResult:
    from sparring.steps import update_pool

    prepared = context.result("prepare", PrepareResult)
    trained = context.result("selfplay", SelfplayResult)
    inputs = update_pool.UpdatePoolInputs(
        round=context.number,
        candidate=trained.candidate,
        games_key=trained.games_key,
        suites=prepared.suites,
        seeds=prepared.seeds,
        decontaminate_cosine=context.config.data.decontaminate_cosine,
        decontaminate_ngram=context.config.data.decontaminate_ngram,
        reward=context.config.game.reward,
        cot=context.config.game.cot,
        work=context.work,
    )
    return update_pool.run(context.config.replay, context.store, inputs, context.progress)


def _answer(context: Context) -> AnswerResult:
    from sparring.steps import answer

    prepared = context.result("prepare", PrepareResult)
    trained = context.result("selfplay", SelfplayResult)
    config = context.config
    inputs = answer.AnswerInputs(prepared, trained, config.seed, config.model.threads, context.work, judge=config.judge)
    return answer.run(config.evaluate, context.store, inputs, context.progress)


def _judge(context: Context) -> JudgeResult:
    from sparring.steps import judge

    inputs = judge.JudgeInputs(context.number, context.result("answer", AnswerResult))
    return judge.run(context.config.judge, context.store, inputs, context.progress)


def _gate(context: Context) -> GateResult:
    from sparring.steps import gate

    guard = context.result("selfplay", SelfplayResult).guard
    inputs = gate.GateInputs.of(context.result("prepare", PrepareResult), context.result("judge", JudgeResult), guard)
    return gate.run(context.config.gate, context.store, inputs, context.progress)


def _promote(context: Context) -> PromoteResult:
    from sparring.steps import promote

    prepared, decided = context.result("prepare", PrepareResult), context.result("gate", GateResult)
    key = context.config.registry.verify_key
    inputs = promote.PromoteInputs.of(prepared, decided)
    return promote.promote(context.store, inputs, Path(key).expanduser() if key else None)


def _hold(context: Context) -> PromoteResult:
    from sparring.steps import promote

    prepared, decided = context.result("prepare", PrepareResult), context.result("gate", GateResult)
    return promote.hold(context.store, promote.PromoteInputs.of(prepared, decided))


def _report(context: Context) -> ReportResult:
    from sparring.steps import report

    return report.run(context.config.report, context.store, report.ReportInputs(context.number), context.progress)


STEPS: Final[dict[str, Step]] = {
    "prepare": Step(PrepareResult, _prepare, lambda r: str(r.round), lambda r: _prepared(r)),
    "selfplay": Step(
        SelfplayResult,
        _selfplay,
        lambda r: r.candidate,
        lambda r: ", ".join(filter(None, (f"{r.games} games, candidate {r.candidate[:12]}", r.stopped, r.guard))),
    ),
    "update_pool": Step(
        UpdatePoolResult, _update_pool, lambda r: str(r.pool_attacks), lambda r: f"{r.attacks_added} attacks added"
    ),
    "answer": Step(AnswerResult, _answer, lambda r: r.suites, lambda r: ", ".join(r.models)),
    "judge": Step(JudgeResult, _judge, lambda r: str(r.rows), lambda r: f"{r.rows} verdicts, {r.void} void"),
    "gate": Step(GateResult, _gate, lambda r: r.decision, lambda r: r.decision),
    "promote": Step(PromoteResult, _promote, lambda r: str(r.record), lambda r: f"record {r.record}"),
    "hold": Step(PromoteResult, _hold, lambda r: str(r.record), lambda r: f"record {r.record}"),
    "report": Step(ReportResult, _report, lambda r: r.html_key, lambda r: ""),
}
"""By name, in the order of the work. Every outcome is a non-empty string: a None fails on a cluster."""


def _prepared(result: PrepareResult) -> str:
    start = "the champion" if result.champion else "the base model"
    return f"round {result.round} starts from {start} {result.start[:12]}"
