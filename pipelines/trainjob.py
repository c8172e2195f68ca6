"""Self-play as a TrainJob of Kubeflow Trainer (`cluster.executor: trainjob`): its step makes, follows and removes it.

    step's pod, small ─► TrainJob ─► [Kueue] ─► pod that trains: `python -m pipelines.trainjob RUN ROUND`
        │   ▲ log, copied ◄───────────────────────┘ plays the step; its result lies in the store
        └───┴─ beats in the store, as long as it waits

Kubeflow ends a step without a signal, so that nobody could remove the job: the pod that trains ends itself when the
beats stop. A step that is started again goes on following the job that it finds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from pipelines.executor import EXECUTOR_VARIABLE
from pipelines.kube import ForbiddenError
from pipelines.trainjob_api import NO_POD, Ended, Found, TrainJobs
from pipelines.trainjob_body import body, job_name
from sparring.config.cluster import ClusterConfig
from sparring.errors import ClusterError, SparringError
from sparring.registry import lease, rounds
from sparring.steps.entry import RunRequest, execute
from sparring.steps.results import SelfplayResult
from sparring.store import Store

WAITER: Final = "selfplay.job"
"""Whose lease says that somebody waits for the job; the key of step selfplay may write it."""
_STEP: Final = "selfplay"
_POLL_SECONDS: Final = 5.0
_PATIENCE: Final = 300.0
"""Seconds for which the API server may fail to answer, and for which a waiter may be silent."""
_MARGIN: Final = 180
"""Seconds before the step's own time limit, a quarter of it at most, when the job is ended: Kubeflow would leave it."""
_SOON: Final = 60.0
"""Seconds in which a job gets its pod without a word about it."""

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Wait:
    """How a job is waited for: seconds between two looks, in all, and without an answer."""

    limit: float
    poll: float = _POLL_SECONDS
    patience: float = _PATIENCE


def play_as_job(run: str, round_number: str, say: Say = print, wait: Wait | None = None) -> None:
    """Has a TrainJob play step selfplay, unless its result is there; returns when it is.

    Raises ClusterError when the job fails, takes too long or cannot be made; BusyError when another run waits for it.
    """
    begun = time.monotonic()
    request = RunRequest.model_validate_json(run)
    store, number = request.open(), int(round_number)
    if _done(store, number):
        return
    cluster = rounds.load_config(store, request.config).cluster
    wait = wait or Wait(_limit(cluster.pod(_STEP).timeout_s))
    name = job_name(request, number)
    with lease.hold(store, number, WAITER), _terminated():
        jobs = TrainJobs(cluster.namespace)
        _patiently(wait, lambda: _make(jobs, cluster, request, number, say))
        try:
            end = _follow(jobs, name, wait, begun, say)
        finally:
            _remove(jobs, name, say)
    if _done(store, number):  # whatever became of the pod afterwards
        return
    if end.kind == "Failed":
        raise ClusterError(f"TrainJob {name} failed: {end.why}", hint="its output stands above; a new run resumes it")
    raise ClusterError(f"TrainJob {name} is complete, but the store has no result of step {_STEP}")


def _limit(timeout_s: int) -> float:
    """Seconds from the step's begin after which the job is ended.

    >>> _limit(86400), _limit(60)
    (86220, 45)
    """
    return timeout_s - min(_MARGIN, timeout_s // 4)


def _done(store: Store, number: int) -> bool:
    return rounds.load_result(store, number, _STEP, SelfplayResult) is not None


def _patiently(wait: Wait, ask: Callable[[], T]) -> T:
    """What the API server says, asked again for a while; at once raised is what we have no right to."""
    end = time.monotonic() + wait.patience
    while True:
        try:
            return ask()
        except ForbiddenError:
            raise
        except ClusterError:
            if time.monotonic() > end:
                raise
            time.sleep(wait.poll)


def _make(jobs: TrainJobs, cluster: ClusterConfig, request: RunRequest, number: int, say: Say) -> None:
    """The job is there afterwards, new or found at work; one that has ended, or is of another run file, is replaced."""
    wanted = body(cluster, request, number)
    name = str(wanted["metadata"]["name"])
    found = jobs.find(name)
    if found is not None and (found.end or not wanted["metadata"]["annotations"].items() <= found.annotations.items()):
        jobs.delete(name)
        jobs.until_gone(name, _PATIENCE)
        found = None
    if found is None:
        jobs.make(wanted)
    queue = f", queue {cluster.trainjob.queue}" if cluster.trainjob.queue else ""
    say(f"TrainJob {name} in {cluster.namespace}{queue}: {'made' if found is None else 'found at work'}")


def _remove(jobs: TrainJobs, name: str, say: Say) -> None:
    """A job that cannot be removed is said, and does not hide how it ended."""
    try:
        jobs.delete(name)
    except ClusterError as error:
        say(f"TrainJob {name} is not removed: {error.message}")


def _follow(jobs: TrainJobs, name: str, wait: Wait, begun: float, say: Say) -> Ended:
    """Copies the job's log until it has ended or its time is over; says once why it does not run."""
    told = ""
    while True:
        found = _patiently(wait, lambda: jobs.find(name))
        _copy(jobs, name, say, last=found is None or found.end is not None)
        if found is None:
            return Ended("Failed", "somebody else deleted it")
        if found.end:
            return found.end if found.end.kind == "Complete" else Ended("Failed", jobs.cause(name, found.end))
        waited = time.monotonic() - begun
        trouble = _trouble(jobs, name, found)
        if trouble and trouble != told and (trouble != NO_POD or waited > _SOON):
            say(f"TrainJob {name} waits: {trouble}")
            told = trouble
        if waited > wait.limit:
            why = f", waiting: {trouble}" if trouble else ""
            return Ended(
                "Failed", f"it took longer than {wait.limit:.0f} s{why}; raise cluster.steps.selfplay.timeout_s"
            )
        time.sleep(wait.poll)


def _copy(jobs: TrainJobs, name: str, say: Say, *, last: bool) -> None:
    """A log that cannot be read decides nothing: the next look asks for what this one missed."""
    try:
        for line in jobs.new_lines(name, last=last):
            say(line)
    except ForbiddenError:
        raise
    except ClusterError:
        pass


def _trouble(jobs: TrainJobs, name: str, found: Found) -> str:
    try:
        return jobs.trouble(name, found)
    except ForbiddenError:
        raise
    except ClusterError:
        return ""


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM inside, where it is sent, ends the step by way of its clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_without_waiter(store: Store, number: int, *, look: float = lease.BEAT, patience: float = _PATIENCE) -> None:
    """Ends this process when whoever waited for it gave up or is silent for `patience` seconds; looks in a thread.

    Does nothing when nobody ever waited. A store that does not answer says nothing.
    """
    if lease.last_beat(store, number, WAITER) is not None:
        arguments = (store, number, look, patience)
        threading.Thread(target=_watch, args=arguments, name="waiter", daemon=True).start()


def _watch(store: Store, number: int, look: float, patience: float) -> None:
    seen, since = None, time.monotonic()
    while True:
        now = _beat(store, number)
        if now is None:
            since += look  # the clock stands while the store does not answer
        elif now != seen and not now.released:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > patience:
            print(f"nobody waits for step {_STEP} of round {number} any more: ends", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(look)


def _beat(store: Store, number: int) -> lease.Beat | None:
    try:
        return lease.last_beat(store, number, WAITER)
    except SparringError:
        return None


def main(run: str, round_number: str) -> None:
    """What the job's pod does: plays the step as any other pod would."""
    for name in [name for name in os.environ if name.startswith("PET_")]:
        del os.environ[name]  # torchrun's settings for several nodes; the step starts its own processes on this one
    os.environ.pop(EXECUTOR_VARIABLE, None)
    end_without_waiter(RunRequest.model_validate_json(run).open(), int(round_number))
    execute(_STEP, run, round_number)


if __name__ == "__main__":
    from sparring.cli.common import guarded

    sys.exit(guarded(lambda: main(*sys.argv[1:3])))
