"""One round as a pipeline.

    prepare ─► selfplay ─┬─► update_pool ─────┐
                         └─► answer ─► judge ─┴─► gate ─┬─ PROMOTE ─► promote
                                                        └─ else ────► hold
    at the end, whatever happened: report

The gate's decision is its only output: a condition on one of several named outputs is silently skipped by the local
runner. Caching is off on every task: a task inside a group would be cached in spite of the run's own setting.
No `from __future__ import annotations` here and in components: kfp reads the annotations themselves.
"""

from typing import Any

from kfp import dsl

from components.answer.component import answer
from components.gate.component import gate
from components.hold.component import hold
from components.judge.component import judge
from components.prepare.component import prepare
from components.promote.component import promote
from components.report.component import report
from components.selfplay.component import selfplay
from components.update_pool.component import update_pool

PROMOTE = "PROMOTE"


def _task(component: Any, name: str, **arguments: Any) -> Any:
    task = component(**arguments)
    task.set_caching_options(False)
    return task.set_display_name(name)


@dsl.pipeline(name="sparring-round", description="One round: train by self-play, evaluate, gate, promote or hold.")
def round_pipeline(run: str) -> None:
    """`run`: JSON of `sparring.steps.entry.RunRequest`."""
    with dsl.ExitHandler(exit_task=_task(report, "report", run=run), name="round"):
        number = _task(prepare, "prepare", run=run).output
        trained = _task(selfplay, "selfplay", run=run, round=number)
        pooled = _task(update_pool, "update-pool", run=run, round=number).after(trained)
        answered = _task(answer, "answer", run=run, round=number).after(trained)
        judged = _task(judge, "judge", run=run, round=number).after(answered)
        # promote and hold close the round: what is not done by then stays undone, so the pool must be ready too
        decision = _task(gate, "gate", run=run, round=number).after(judged, pooled).output
        with dsl.If(decision == PROMOTE, name="promoted"):
            _task(promote, "promote", run=run, round=number)
        with dsl.Else(name="held"):
            _task(hold, "hold", run=run, round=number)
