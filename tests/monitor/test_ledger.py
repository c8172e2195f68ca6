"""The ledger keeps every attempt at every step, whatever became of it."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sparring.errors import CorruptError
from sparring.monitor import ledger
from sparring.store import Store
from sparring.store.local import LocalStore

ROOT = Path(__file__).parents[2]


def test_a_step_that_ends_well(any_store: Store) -> None:
    before = datetime.now(UTC)
    ledger.started(any_store, 3, "gate")
    ledger.finished(any_store, 3, "gate", status="ok", metrics={"asr": 0.25, "n": 3}, error=None)
    entry = ledger.read(any_store, 3)["gate"]
    (attempt,) = entry.attempts
    assert (entry.round, entry.step, entry.status, entry.metrics) == (3, "gate", "ok", {"asr": 0.25, "n": 3.0})
    assert attempt.end is not None
    assert before <= attempt.start <= attempt.end <= datetime.now(UTC)
    assert attempt.seconds is not None
    assert 0 <= attempt.seconds < 60
    assert any_store.list() == ["ledger/000003/gate.json"]


def test_failures_and_retries_are_all_kept(any_store: Store) -> None:
    ledger.started(any_store, 1, "judge")
    ledger.finished(any_store, 1, "judge", status="failed", metrics={}, error="no reply\nat line 2")
    ledger.started(any_store, 1, "judge")
    ledger.started(any_store, 1, "judge")
    ledger.finished(any_store, 1, "judge", status="ok", metrics={"rows": 7}, error=None)
    entry = ledger.read(any_store, 1)["judge"]
    assert [attempt.status for attempt in entry.attempts] == ["failed", "killed", "ok"]
    assert [attempt.error for attempt in entry.attempts] == ["no reply\nat line 2", None, None]
    assert entry.attempts[1].end is None
    assert entry.attempts[1].seconds is None
    assert (entry.status, entry.metrics) == ("ok", {"rows": 7.0})
    assert entry.seconds == sum(attempt.seconds or 0 for attempt in entry.attempts)


def test_a_killed_process_is_noticed(any_store_url: str, any_store: Store) -> None:
    code = """
    import os, signal, sys
    from sparring.monitor import ledger
    from sparring.store import open_store
    ledger.started(open_store(sys.argv[1]), 1, "selfplay")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), any_store_url], cwd=ROOT, check=False)
    assert done.returncode == -9
    entry = ledger.read(any_store, 1)["selfplay"]
    assert (entry.status, entry.seconds, entry.metrics) == ("killed", 0.0, {})
    ledger.started(any_store, 1, "selfplay")
    ledger.finished(any_store, 1, "selfplay", status="ok", metrics={}, error=None)
    assert [attempt.status for attempt in ledger.read(any_store, 1)["selfplay"].attempts] == ["killed", "ok"]


def test_history_is_by_round_and_step(any_store: Store) -> None:
    for round, step in ((10, "b"), (2, "z"), (2, "a"), (1_000_000, "c")):
        ledger.started(any_store, round, step)
    any_store.put("ledger/notes.txt", b"not ours")
    found = ledger.history(any_store)
    assert [(round, step) for round, step, _ in found] == [(2, "a"), (2, "z"), (10, "b"), (1_000_000, "c")]
    assert [(entry.round, entry.step) for _, _, entry in found] == [(round, step) for round, step, _ in found]
    assert set(ledger.read(any_store, 2)) == {"a", "z"}
    assert ledger.read(any_store, 3) == {}


def test_metrics_that_json_cannot_carry_do_not_lose_the_rest(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ledger.started(store, 1, "selfplay")
    metrics = {"loss": math.nan, "top": math.inf, "low": -math.inf, "kl": 0.1}
    ledger.finished(store, 1, "selfplay", status="failed", metrics=metrics, error="loss is not finite")
    found = ledger.read(store, 1)["selfplay"].metrics
    assert math.isnan(found["loss"])
    assert (found["top"], found["low"], found["kl"]) == (math.inf, -math.inf, 0.1)


def test_an_end_without_a_start_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ledger.finished(store, 1, "gate", status="failed", metrics={"x": 1}, error="e")
    ledger.finished(store, 1, "gate", status="ok", metrics={"x": 2}, error=None)
    assert [attempt.status for attempt in ledger.read(store, 1)["gate"].attempts] == ["failed", "ok"]


def test_a_clock_that_goes_back_gives_no_negative_time(tmp_path: Path) -> None:
    store, key = LocalStore(tmp_path), "ledger/000001/gate.json"
    ledger.started(store, 1, "gate")
    entry = ledger.LedgerEntry.model_validate_json(store.get(key))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for host, most in ((entry.attempts[0].host, 60.0), ("another-pod", 0.0)):
        attempt = entry.attempts[0].model_copy(update={"start": tomorrow, "host": host})
        store.put(key, entry.model_copy(update={"attempts": (attempt,)}).model_dump_json().encode())
        ledger.finished(store, 1, "gate", status="ok", metrics={}, error=None)
        seconds = ledger.read(store, 1)["gate"].attempts[0].seconds
        assert seconds is not None
        assert 0.0 <= seconds <= most


def test_a_long_error_is_cut(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ledger.finished(store, 1, "gate", status="failed", metrics={}, error="x" * 1_000_000)
    assert len(ledger.read(store, 1)["gate"].attempts[0].error or "") == 4000


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b'{"round": 1}'])
def test_a_damaged_entry_is_named(tmp_path: Path, data: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put("ledger/000001/gate.json", data)
    with pytest.raises(CorruptError, match=r"ledger 'ledger/000001/gate\.json' in .* cannot be read"):
        ledger.read(store, 1)


def test_a_long_step_says_that_it_lives_and_how_long_it_takes(any_store: Store) -> None:
    ledger.beat(any_store, 1, "selfplay", 1, 12, 100.0)  # nobody has begun: nothing to keep it with
    assert ledger.read(any_store, 1) == {}
    ledger.started(any_store, 1, "selfplay")
    ledger.beat(any_store, 1, "selfplay", 1, 12, 110.0)
    ledger.beat(any_store, 1, "selfplay", 2, 12, 100.0)  # too soon after
    (attempt,) = ledger.read(any_store, 1)["selfplay"].attempts
    assert (attempt.done, attempt.planned, attempt.remaining, attempt.status) == (1, 12, 110.0, "killed")
    ledger.beat(any_store, 1, "selfplay", 12, 12, 0.0)  # the last word is always kept
    ledger.finished(any_store, 1, "selfplay", status="ok", metrics={}, error=None)
    ledger.beat(any_store, 1, "selfplay", 3, 12, 5.0)
    (attempt,) = ledger.read(any_store, 1)["selfplay"].attempts
    assert (attempt.done, attempt.remaining, attempt.status) == (12, 0.0, "ok") and attempt.beat is not None
