"""The end of a round, decided or not: hooks are delivered, and what became of them stands in the ledger.

It runs in the pipeline's exit task, so that a killed promotion's hooks are delivered by the next run. No failure of a
hook, nor of the store here, becomes a failure of the round: it stays in the records, the metrics and the log.
"""

from __future__ import annotations

import logging
from collections import Counter

from pydantic import ValidationError

from sparring.errors import SparringError
from sparring.integrations.deliveries import Delivery, Line, deliver, pending
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.steps.entry import RunRequest, execute
from sparring.store.base import Store

log = logging.getLogger(__name__)

STEP = "hooks"


def report_and_deliver(run: str, round_number: str = "") -> str:
    """Step `report` (see `sparring.steps.entry.execute`), then the hooks: a page that fails delays none."""
    try:
        return execute("report", run, round_number)
    finally:
        after_round(run)


def after_round(run: str) -> list[Delivery]:
    """Delivers the hooks of the run file named by `run` (JSON of a RunRequest); what was done. Raises nothing."""
    try:
        request = RunRequest.model_validate_json(run)
        store = request.open()
        hooks = rounds.load_config(store, request.config).hooks
        if not hooks:
            return []
        line, number = Line(store, request.line), rounds.last_round(store)
        if number == 0:
            return []
        ledger.started(store, number, STEP)
        done = deliver(line, hooks)
        _record(store, number, done, pending(line, hooks))
    except (SparringError, ValidationError) as error:
        log.error("hooks were not delivered: %s", error)
        return []
    return done


def _record(store: Store, number: int, done: list[Delivery], shown: list[Delivery]) -> None:
    counts = Counter(delivery.state for delivery in done)
    bad = [delivery for delivery in shown if delivery.state in ("failing", "given_up")]
    metrics = {f"{state}": float(counts[state]) for state in ("delivered", "passed_over", "given_up")}
    metrics["failing"] = float(sum(delivery.state == "failing" for delivery in shown))
    text = "; ".join(f"{d.hook}: {d.attempts[-1].detail if d.attempts else d.state}" for d in bad)
    ledger.finished(
        store, number, STEP, status="failed" if bad else "ok", metrics=metrics,
        error=f"hooks that failed: {text}" if bad else None,
    )  # fmt: skip
