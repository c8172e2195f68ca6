"""Follows a run on the cluster to its end and says what it came to; for a failure, why.

The cause: our ledger's record first, then what Argo says of the failed node and the last lines of its pod's log.
Kubeflow itself keeps no message of a failure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from rich.console import Console

from pipelines.backend import Backend, Run
from pipelines.closing import print_closing
from pipelines.display import duration
from pipelines.faults import fault_of_record, raised
from pipelines.kube import Kube
from pipelines.outcome import Outcome, of_run
from pipelines.pods import RUN_LABEL
from sparring.config.run import RunConfig
from sparring.errors import ClusterError, CorruptError, NotFoundError, StoreError, UsageError
from sparring.store.base import Store

T = TypeVar("T")
EXIT_INVALID: Final = 12
_POLL_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 300.0
"""For so long Kubeflow or the store may fail to answer before following ends."""
_SETTLE_SECONDS: Final = 60.0
"""A pod's trouble is told when it has lasted so long: images are pulled and nodes come meanwhile."""
_LOG_LINES: Final = 15


@dataclass
class _Told:
    """What was printed already; `waited`: why a pod did not start, by its name, as last seen."""

    steps: set[tuple[str, str]] = field(default_factory=set)
    troubles: dict[str, float] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    waited: dict[str, str] = field(default_factory=dict)


def wait(config: RunConfig, run_id: str, screen: Console, *, patience: float | None) -> int:
    """Follows a run for at most `patience` seconds (None: to its end) and returns the exit code of `run`.

    0: decided (PROMOTE, REJECT, INCONCLUSIVE); 12: INVALID; 1 or an error's own code: a fault. Raises UsageError when
    the run is of another pipeline, ClusterError when time is up, NotFoundError when there is no such run.
    """
    backend = Backend(config.cluster)
    run = backend.run(run_id)
    if run.request is None:
        raise UsageError(f"run {run_id} ({run.name}) is none of ours")
    store, kube, told = run.request.open(), _kube(config, screen), _Told()
    begun = heard = time.monotonic()
    while not run.ended:
        if patience is not None and time.monotonic() - begun > patience:
            raise ClusterError(f"run {run_id} is still {run.state} after {duration(patience)}", hint="it goes on")
        try:
            _tell(of_run(store, run, back=2), told, screen)
            _tell_troubles(kube, run, told, screen)
            time.sleep(_POLL_SECONDS)
            run, heard = backend.run(run_id), time.monotonic()
        except (NotFoundError, CorruptError):
            raise
        except (ClusterError, StoreError) as error:  # an API server or a store may be away for a while
            if time.monotonic() - heard > _SILENCE_SECONDS:
                raise
            _tell_once(error.message, told, screen)
            time.sleep(_POLL_SECONDS)
    outcome = of_run(store, run)
    _tell(outcome, told, screen)
    return _close(store, kube, run, outcome, told, screen)


def _tell_once(text: str, told: _Told, screen: Console) -> None:
    if text not in told.said:
        told.said.add(text)
        _print(screen, f"note: {text}")


def _kube(config: RunConfig, screen: Console) -> Kube | None:
    try:
        return Kube(config.cluster.namespace)
    except ClusterError as error:
        _print(screen, f"note: pods are not looked at: {error.message}")
        return None


def _tell(outcome: Outcome | None, told: _Told, screen: Console) -> None:
    """One line for each new begin and end of a step. A step without an end is shown as begun, not as killed."""
    for step, attempt in outcome.attempts if outcome else ():
        for what in ("begun", "ended") if attempt.end else ("begun",):
            if (step, what) not in told.steps:
                told.steps.add((step, what))
                took = duration(attempt.seconds or 0.0)
                _print(
                    screen,
                    f"… {step}" if what == "begun" else f"{'✓' if attempt.status == 'ok' else '✗'} {step} {took}",
                )


def _tell_troubles(kube: Kube | None, run: Run, told: _Told, screen: Console) -> None:
    if kube is None:
        return
    now = time.monotonic()
    try:
        pods = kube.pods(f"{RUN_LABEL}={run.id}")
        waiting = {pod.name: pod.trouble for pod in pods if pod.trouble and pod.phase == "Pending"}
        told.waited |= waiting
        found = {f"pod {name}: {trouble}" for name, trouble in waiting.items()}
    except ClusterError as error:
        found = {error.message}
    told.troubles = {text: told.troubles.get(text, now) for text in found}
    for text, since in told.troubles.items():
        if text not in told.said and now - since >= _SETTLE_SECONDS:
            told.said.add(text)
            _print(screen, f"waiting: {text}")


def _close(store: Store, kube: Kube | None, run: Run, outcome: Outcome | None, told: _Told, screen: Console) -> int:
    if outcome and outcome.decided and outcome.end:
        print_closing(screen, store, outcome.round, f"Kubeflow: {run.state}")
        if outcome.untold:
            _print(screen, f"note: hooks: {outcome.untold}; `sparring hooks deliver` tries again")
        if outcome.failed is None and run.state == "SUCCEEDED":
            return EXIT_INVALID if outcome.end.decision == "INVALID" else 0
    code, line = _cause(outcome)
    if code is None:
        code, line = _from_cluster(kube, run, screen, line, told.waited)
    again = "; `python -m pipelines submit` goes on with the round" if outcome and not outcome.end else ""
    errors = Console(stderr=True)
    errors.print(f"error: {line}{again}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    return code


def _cause(outcome: Outcome | None) -> tuple[int | None, str]:
    """Exit code and line of what our ledger says; no code when the cluster must be asked."""
    if outcome is None:
        return None, "the run ended and no step of it has written a record"
    if outcome.failed is None:
        return None, f"the run ended after step {outcome.attempts[-1][0]} of round {outcome.round}"
    step, attempt = outcome.failed
    if attempt.status == "killed":
        return None, f"step {step} of round {outcome.round} was killed: time limit, memory, a lost node, or by hand"
    fault = fault_of_record(step, attempt.error or "")
    return (fault.exit_code, fault.line) if fault.expected else (None, fault.line)


def _from_cluster(
    kube: Kube | None, run: Run, screen: Console, line: str, waited: Mapping[str, str]
) -> tuple[int, str]:
    """Prints what Argo and the pods know, and returns the clearest line: an error of ours, else what they said first.

    `waited`: why pods did not start, by name. Of a pod that met its time limit, Kubernetes no longer tells it.
    """
    if kube is None:
        return 1, f"{line} (Kubeflow: {run.state}; the pods could not be asked: no kubeconfig)"
    label = f"{RUN_LABEL}={run.id}"
    nodes = _asked(lambda: _node_lines(kube.workflow_nodes(label)), screen)
    for text in nodes:
        _print(screen, text)
    known, causes = None, nodes[:1]
    for pod in _asked(lambda: kube.pods(label), screen):
        if pod.phase == "Succeeded":
            continue
        _print(screen, f"pod {pod.name}: {pod.phase} {pod.trouble}".rstrip())
        if (before := waited.get(pod.name)) and before != pod.trouble:
            _print(screen, f"  before that: {before}")
            causes.append(before)
        if log := "".join(_asked(partial(kube.last_lines, pod.name, _LOG_LINES), screen)).rstrip():
            screen.print(log, style="dim", markup=False, highlight=False, soft_wrap=True)
        known = known or raised(log)
    if known:
        return known.exit_code, known.line
    return 1, f"{line} (Kubeflow: {'; '.join([run.state, *causes[:2]])})"


def _asked(ask: Callable[[], list[T]], screen: Console) -> list[T]:
    """What Kubernetes answers; nothing, and a line that says so, when it does not."""
    try:
        return ask()
    except ClusterError as error:
        _print(screen, f"note: {error.message}")
        return []


def _node_lines(nodes: list[dict[str, Any]]) -> list[str]:
    """What Argo says of failed pods, each once; retry and group nodes only repeat it."""
    failed = (node for node in nodes if node.get("phase") in ("Failed", "Error") and node.get("type") == "Pod")
    lines = (f"node {_task(node)}: {' '.join(str(node.get('message') or node['phase']).split())}" for node in failed)
    return list(dict.fromkeys(lines))


def _task(node: dict[str, Any]) -> str:
    """`selfplay` for Kubeflow's `selfplay.executor(0)`, as far as it is told."""
    return re.sub(r"\(\d+\)$", "", str(node.get("displayName", "")))


def _print(screen: Console, text: str) -> None:
    screen.print(text, markup=False, highlight=False, soft_wrap=True)
