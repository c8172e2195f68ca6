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
from sparring.config.cluster import ClusterConfig, Step

PROMOTE = "PROMOTE"


def make_pipeline(cluster: ClusterConfig | None = None) -> Any:
    """The pipeline; with `cluster` its tasks have the pods described there, which the local runner has no use for."""

    def task(component: Any, step: Step, **arguments: Any) -> Any:
        made = component(**arguments)
        made.set_caching_options(False)
        if cluster:
            from pipelines.pods import shape  # kfp.kubernetes: a laptop need not load it

            shape(made, step, cluster)
        return made.set_display_name(step.replace("_", "-"))

    @dsl.pipeline(
        name=cluster.pipeline if cluster else "sparring-round",
        description="One round: train by self-play, evaluate, gate, promote or hold.",
        pipeline_config=_limits(cluster) if cluster else None,
    )
    def round_pipeline(run: str) -> None:
        """`run`: JSON of `sparring.steps.entry.RunRequest`."""
        with dsl.ExitHandler(exit_task=task(report, "report", run=run), name="round"):
            number = task(prepare, "prepare", run=run).output
            trained = task(selfplay, "selfplay", run=run, round=number)
            pooled = task(update_pool, "update_pool", run=run, round=number).after(trained)
            answered = task(answer, "answer", run=run, round=number).after(trained)
            judged = task(judge, "judge", run=run, round=number).after(answered)
            # promote and hold close the round: what is not done by then stays undone, so the pool must be ready too
            decision = task(gate, "gate", run=run, round=number).after(judged, pooled).output
            with dsl.If(decision == PROMOTE, name="promoted"):
                task(promote, "promote", run=run, round=number)
            with dsl.Else(name="held"):
                task(hold, "hold", run=run, round=number)

    return round_pipeline


def _limits(cluster: ClusterConfig) -> dsl.PipelineConfig:
    return dsl.PipelineConfig(active_deadline_seconds=cluster.deadline_s, ttl_seconds_after_finished=cluster.keep_s)
