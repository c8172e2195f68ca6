"""Rounds on a Kubeflow cluster: submit one, schedule them, stop scheduling, list both with our own decisions.

    look first ─► store the run file ─► upload (a version for each content) ─► start a run, or make a recurring one

Kubeflow is asked for what it keeps; what a round came to is read in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.backend import Backend, Run, Schedule
from pipelines.outcome import Outcome, of_runs
from pipelines.package import package
from pipelines.preflight import preflight
from pipelines.resume import give_up, plan
from sparring.config.cron import Cron, parse_cron
from sparring.config.run import RunConfig
from sparring.errors import BusyError, ConfigError, UsageError
from sparring.registry import rounds
from sparring.steps.entry import RunRequest
from sparring.store import Store, open_store

Say = Callable[[str], None]
_NEWEST: Final = 100
"""Runs looked through for one in flight."""
_POLL_SECONDS: Final = 5.0
_UNLISTED_SECONDS: Final = 30.0
"""For so long Kubeflow may not list a run that a schedule has just begun."""


@dataclass(frozen=True)
class Line:
    """A line in its store, and the request that its next run gets."""

    request: RunRequest
    store: Store

    @classmethod
    def of(cls, config: RunConfig) -> Line:
        """Stores the run file. Raises StoreError."""
        request = RunRequest(store=config.store, line=config.line, config="")
        store = request.open()
        return cls(request.model_copy(update={"config": rounds.save_config(store, config)}), store)

    def owns(self, request: RunRequest | None) -> bool:
        """Whether a run with that request plays rounds of this line."""
        return request is not None and (request.store, request.line) == (self.request.store, self.request.line)


def submit(config: RunConfig, say: Say, *, resume: bool, abandon: bool, looks: bool) -> str | None:
    """Starts one run: it finishes the open round, or plays the next. Returns its id.

    `resume`: only when a round is open, else nothing is started (None). `abandon`: give up the open round first.
    Raises BusyError when a run of this line is in flight, UsageError when something is missing.
    """
    preflight(config, say, cluster=looks)
    backend, line = Backend(config.cluster), Line.of(config)
    _refuse_second(backend, line)
    if abandon:
        say(give_up(line.store))
    if resume and rounds.open_round(line.store) is None:
        say(f"nothing to resume: no round of line {config.line} is open")
        return None
    _tell_plan(line, say)
    version = backend.upload(package(config.cluster))
    name = f"{_name(config)}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    run = backend.start(name, version, line.request)
    say(f"run {run} ({name}) at {backend.url}")
    say(f"python -m pipelines wait {run}")
    return run


def _flying(backend: Backend, line: Line) -> Run | None:
    """A run of the line that has not ended."""
    return next((run for run in backend.runs(_NEWEST) if not run.ended and line.owns(run.request)), None)


def _refuse_second(backend: Backend, line: Line) -> None:
    if flying := _flying(backend, line):
        hint = f"follow it with `python -m pipelines wait {flying.id}`, or terminate it"
        raise BusyError(f"run {flying.id} ({flying.name}) of line {line.request.line} is in flight", hint=hint)


def _tell_plan(line: Line, say: Say) -> None:
    """What the run will do. A round that never prepared anything is given up when the run file was changed since."""
    ahead = plan(line.store, line.request.config)
    if ahead.report_only:
        say(f"round {ahead.number} has no page yet: `sparring report` draws it; round {ahead.number + 1} begins")
        return
    for text in ahead.lines:
        say(text)


def schedule(config: RunConfig, say: Say, *, cron: str | None, name: str | None, looks: bool, patience: float) -> str:
    """Makes the line's recurring run what is asked for and returns its id: nothing is done when it is that already.

    `cron`: five fields; else `cluster.schedule`. One that differs is disabled, its run in flight awaited for at most
    `patience` seconds, and deleted. Raises UsageError without a schedule, BusyError when that run takes longer.
    """
    times = _cron(cron or config.cluster.schedule)
    zone = _zone(config.cluster.timezone)
    preflight(config, say, cluster=looks)
    backend, line, title = Backend(config.cluster), Line.of(config), name or _name(config)
    version = backend.upload(package(config.cluster))
    others = [one for one in backend.schedules() if one.name == title]
    same = next((one for one in others if _is_same(one, times, version, line, config)), None)
    if same is None and _flying(backend, line) is None:
        _tell_plan(line, say)  # may fail, and does so before the old schedule is gone
    for one in others:
        if one is not same:
            _retire(backend, one, say, patience)
    made = same.id if same else backend.schedule(title, times.six_fields, version, line.request)
    say(f"schedule {title} {'stands as it is' if same else 'made'}: {times.six_fields} (second first), id {made}")
    for time_ in islice(times.fires(datetime.now(zone)), 3):
        say(f"  {time_:%a %Y-%m-%d %H:%M} {config.cluster.timezone}")
    say("  one run at a time, missed times are not made up for; times are of cluster.timezone, which must be the")
    say("  CRON_SCHEDULE_TIMEZONE of the cluster (UTC where nobody set it)")
    return made


def unschedule(config: RunConfig, say: Say, *, name: str | None, patience: float) -> int:
    """Disables the line's recurring run, waits for a run in flight, deletes it; returns how many there were."""
    backend, title = Backend(config.cluster), name or _name(config)
    found = [one for one in backend.schedules() if one.name == title]
    for one in found:
        _retire(backend, one, say, patience)
    if not found:
        say(f"no schedule {title} in experiment {config.cluster.experiment}")
    return len(found)


def _retire(backend: Backend, old: Schedule, say: Say, patience: float) -> None:
    """Deleted with a run in flight, Kubeflow would kill its pods and show it as RUNNING for ever."""
    backend.disable(old)
    begun, told = time.monotonic(), False
    listed = begun + (_UNLISTED_SECONDS if old.enabled else 0.0)
    while (flying := _of_schedule(backend, old)) or time.monotonic() < listed:
        if flying and not told:
            say(f"schedule {old.name} is disabled; waiting for run {flying[0].id}")
            told = True
        if flying and time.monotonic() > begun + patience:
            hint = "it starts no more runs; the same command again goes on waiting"
            raise BusyError(f"run {flying[0].id} of schedule {old.name} is still in flight", hint=hint)
        time.sleep(_POLL_SECONDS)
    backend.delete(old)
    say(f"schedule {old.name} ({old.id}) deleted")


def _of_schedule(backend: Backend, one: Schedule) -> list[Run]:
    return [run for run in backend.runs(_NEWEST) if run.schedule == one.id and not run.ended]


def _is_same(one: Schedule, times: Cron, version: tuple[str, str], line: Line, config: RunConfig) -> bool:
    account = config.cluster.service_account
    return (
        one.enabled
        and (one.cron, one.version, one.request) == (times.six_fields, version[1], line.request)
        and (one.max_concurrency, one.no_catchup) == (1, True)
        and account in (None, one.service_account)
    )


def overview(config: RunConfig, say: Say, *, limit: int) -> None:
    """Prints the recurring runs of the experiment and its newest runs, each with its round and our decision."""
    backend = Backend(config.cluster)
    for one in backend.schedules():
        state = "on " if one.enabled else "off"
        line = one.request.line if one.request else "-"
        say(f"schedule  {state}  {one.cron:<20}  {one.name}  line {line}  {one.id}")
    runs = backend.runs(limit)
    outcomes = _outcomes(runs)
    for run in runs:
        say(f"run       {_row(run, outcomes.get(run.id))}")


def _outcomes(runs: list[Run]) -> dict[str, Outcome]:
    """Of runs of any line: each line's store is looked through once."""
    lines: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.request:
            lines.setdefault((run.request.store, run.request.line), []).append(run)
    found: dict[str, Outcome] = {}
    for (url, line), own in lines.items():
        found |= of_runs(open_store(url).scope(f"lines/{line}"), own)
    return found


def _row(run: Run, outcome: Outcome | None) -> str:
    what = outcome or "no record in the store"
    return f"{run.created:%Y-%m-%d %H:%M}  {run.id}  {run.name}  Kubeflow: {run.state}  {what}"


def _cron(text: str | None) -> Cron:
    if text is None:
        raise UsageError("no schedule", hint="name five cron fields, as in '0 3 * * 1', or set cluster.schedule")
    try:
        return parse_cron(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"cluster.timezone = {name!r} is no time zone known here", hint="as in Europe/Zurich"
        ) from error


def _name(config: RunConfig) -> str:
    return f"sparring-{config.line}"
