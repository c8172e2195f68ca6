"""What the reader keeps: incremental equals fresh, counters never go back, nothing broken ends it or is told twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.config.run import RunConfig
from sparring.gate.policy import load_policy
from sparring.gate.spending import reserve
from sparring.monitor import ledger
from sparring.monitor.exporter import Watch
from sparring.monitor.facts import SILENCE_SECONDS, LineFacts, LineReader
from sparring.monitor.families import MOST_LABELS, families
from sparring.monitor.records import Numbers
from sparring.monitor.reign import VERIFY_SECONDS
from sparring.registry import champion, lease, rounds
from sparring.report.measures import Rate
from sparring.report.metrics import RoundMetrics
from sparring.store import Store
from sparring.store.local import LocalStore
from tests.monitor.scraping import Series

DIGESTS = tuple(letter * 64 for letter in "abc")


class Clock:
    """Seconds that a test tells."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def claim(store: Store, **cluster: object) -> int:
    """The next round."""
    config = rounds.save_config(store, RunConfig.model_validate({"cluster": cluster}))
    return rounds.claim(store, config_digest=config, now=datetime.now(UTC)).number


def append(store: Store, kind: champion.Kind, digest: str, decision: str | None, number: int | None) -> None:
    head = champion.read_log(store).head
    champion.append(
        store, expected_head=head, kind=kind, actor="a", round=number, candidate=digest, decision=decision, reason="r"
    )


def end(store: Store, number: int, decision: str) -> None:
    """What promote and hold leave."""
    kind: champion.Kind = "promotion" if decision == "PROMOTE" else "hold"
    append(store, kind, DIGESTS[number % 3], decision, number)
    rounds.close(store, number, decision=decision, reason="r")


def measured(store: Store, number: int, over_refusal: float) -> None:
    """What report leaves."""
    rate = Rate(over_refusal, 0.0, 1.0, 10, 10, 0)
    rates = {"over_refusal.pooled": {"candidate": rate, "champion": rate}, "over_refusal.plain": {"candidate": rate}}
    numbers = RoundMetrics(round=number, outcome="", first_run=False, rates=rates, values={"pool.harmful": 3.0})
    store.put(f"rounds/{number:06d}/report/metrics.json", numbers.model_dump_json().encode())


def samples(facts: LineFacts) -> Series:
    found = (sample for family in families([facts]) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


ACTS: tuple[Callable[[Store, int, float], None], ...] = (
    lambda store, number, x: ledger.started(store, number, "selfplay"),
    lambda store, number, x: ledger.finished(store, number, "judge", status="ok", metrics={}, error=None),
    lambda store, number, x: ledger.finished(store, number, "gate", status="failed", metrics={}, error="StoreError: x"),
    lambda store, number, x: measured(store, number, x),
    lambda store, number, x: end(store, number, ("PROMOTE", "REJECT", "INVALID")[int(x * 3) % 3]),
    lambda store, number, x: reserve_one(store, number),
)


def reserve_one(store: Store, number: int) -> None:
    reserve(store, round=number, champion=champion.read_log(store).champion, policy=load_policy("laptop"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(ACTS) - 1), st.floats(0, 1)), max_size=25))
def test_reading_little_by_little_is_reading_anew(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, float]]
) -> None:
    store, clock = LocalStore(tmp_path_factory.mktemp("line")), Clock()
    reader = LineReader(store, "x", clock=clock)
    counters: Series = {}
    for act, x in acts:
        open_ = rounds.open_round(store)
        ACTS[act](store, open_.number if open_ else claim(store), x)
        facts = samples(reader.read())
        assert facts == samples(LineReader(store, "x", clock=clock).read())
        now = {key: value for key, value in facts.items() if key[0].endswith("_total")}
        assert all(now[key] >= before for key, before in counters.items())
        counters = now


def test_a_line_without_rounds_is_a_line(store: LocalStore) -> None:
    facts = LineReader(store, "x").read()
    assert facts.last is None and facts.reign is not None and facts.unreadable == 0
    assert samples(facts)["sparring_round", frozenset({("line", "x")})] == 0


def test_begun_without_an_end_is_running_while_its_lease_beats_and_killed_when_it_is_silent(store: LocalStore) -> None:
    number, clock = claim(store), Clock()
    reader = LineReader(store, "x", clock=clock)

    def status() -> str:
        last = reader.read().last
        assert last is not None
        return last.status["selfplay"]

    began, over = threading.Event(), threading.Event()

    def work() -> None:
        with lease.hold(store, number, "selfplay", beat=0.05):
            ledger.started(store, number, "selfplay")
            began.set()
            over.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(30)
    for _ in range(3):
        assert status() == "running"
        clock.now += SILENCE_SECONDS + 1
        threading.Event().wait(0.3)  # some beats
    assert status() == "running"
    over.set()
    thread.join()
    assert status() == "killed"  # given back, and yet no end: the process died on its way out
    store.put(f"rounds/{number:06d}/selfplay/result.json", b"{}")
    assert status() == "ok"  # killed between its result and its end: nobody will play it again


def test_a_silent_holder_is_given_its_time(store: LocalStore) -> None:
    number, clock = claim(store), Clock()
    ledger.started(store, number, "selfplay")
    holder = b'{"nonce": "n", "host": "elsewhere", "pid": 1, "beat": 4}'
    store.put(f"ledger/{number:06d}/selfplay.leases/000001.json", holder)
    reader = LineReader(store, "x", clock=clock)
    for seconds, status in ((0.0, "running"), (SILENCE_SECONDS - 1, "running"), (SILENCE_SECONDS + 1, "killed")):
        clock.now = seconds
        last = reader.read().last
        assert last is not None and last.status == {"selfplay": status}
    assert reader.read().totals.attempts == {("selfplay", "killed"): 1}


def test_a_report_takes_no_lease_and_is_not_called_killed_while_it_runs(store: LocalStore) -> None:
    number, clock = claim(store), Clock()
    ledger.started(store, number, "report")
    reader = LineReader(store, "x", clock=clock)
    for seconds, status in ((0.0, "running"), (SILENCE_SECONDS - 1, "running"), (SILENCE_SECONDS + 1, "killed")):
        clock.now = seconds
        last = reader.read().last
        assert last is not None and last.status == {"report": status}


def test_alpha_is_the_sum_of_the_looks_at_the_present_champion(store: LocalStore) -> None:
    reader, policy = LineReader(store, "x"), load_policy("laptop")
    for number, decision in enumerate(("REJECT", "PROMOTE", "REJECT", "REJECT"), start=1):
        assert claim(store) == number
        reserve_one(store, number)
        end(store, number, decision)
    assert reader.read().alpha_spent == pytest.approx(2 * policy.alpha_per_look)
    claim(store)  # a round without a look spends nothing and hides nothing
    assert reader.read().alpha_spent == pytest.approx(2 * policy.alpha_per_look)


@pytest.mark.parametrize(
    ("schedule", "period"),
    [(None, None), ("0 3 * * 1", 7 * 86400), ("0 3 * * 1-5", 3 * 86400), ("*/15 * * * *", 900)],
)
def test_the_period_is_the_longest_pause_of_the_schedule(
    store: LocalStore, schedule: str | None, period: float | None
) -> None:
    claim(store, schedule=schedule)
    assert LineReader(store, "x").read().period == period


def test_rises_are_counted_up_to_the_last_measured_round(store: LocalStore) -> None:
    reader = LineReader(store, "x")
    for value, rises in ((0.1, 0), (0.2, 1), (0.3, 2), (0.4, 3), (0.4, 0), (0.5, 1)):
        number = claim(store)
        assert reader.read().rises == LineReader(store, "x").read().rises
        measured(store, number, value)
        assert reader.read().rises == rises == LineReader(store, "x").read().rises
        end(store, number, "REJECT")


def test_an_edited_record_is_seen_at_the_next_verification(store: LocalStore) -> None:
    clock = Clock()
    reader = LineReader(store, "x", clock=clock)
    for decision in ("PROMOTE", "REJECT", "REJECT"):
        end(store, claim(store), decision)
    assert reader.read().reign is not None
    key = "champion/log/000002.json"
    whole = store.get(key)
    store.put(key, whole.replace(b'"reason":"r"', b'"reason":"s"'))
    clock.now += VERIFY_SECONDS
    found = reader.read()
    assert found.reign is None and found.unreadable == 1
    assert samples(found)["sparring_champion_log_broken", frozenset({("line", "x")})] == 1
    store.put(key, whole)
    restored = reader.read()
    assert restored.reign is not None and restored.unreadable == 0


@pytest.mark.parametrize("forged", [False, True], ids=["cut", "forged"])
def test_what_the_chain_cannot_show_is_noticed_by_who_saw_it(store: LocalStore, forged: bool) -> None:
    clock = Clock()
    reader = LineReader(store, "x", clock=clock)
    for decision in ("PROMOTE", "REJECT"):
        end(store, claim(store), decision)
    assert reader.read().reign is not None
    store.delete("champion/log/000002.json")
    if forged:
        append(store, "hold", DIGESTS[0], "REJECT", 9)
    assert champion.read_log(store).head == (2 if forged else 1)  # a chain that holds
    clock.now += VERIFY_SECONDS
    assert reader.read().reign is None


@pytest.mark.parametrize(
    "key",
    [
        "rounds/000001/claim.json", "rounds/000001/end.json", "rounds/000001/report/metrics.json",
        "rounds/000001/judge/result.json", "rounds/000001/selfplay/result.json", "rounds/000001/gate/decision.json",
        "gate/looks/000001.json", "ledger/000001/judge.json", "hooks/deploy/000001.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("data", [b"", b"{}", b"[1", b"\xff\xfe\x00", b'{"round": "x", "rates": 1}'])
def test_a_damaged_record_is_counted_and_told_once(
    store: LocalStore, key: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    number = claim(store)
    ledger.finished(store, number, "gate", status="ok", metrics={}, error=None)
    store.put(key, data)
    reader = LineReader(store, "x")
    with caplog.at_level(logging.WARNING):
        found = [reader.read() for _ in range(3)]
    assert [facts.unreadable for facts in found] == [1, 1, 1]
    assert len(caplog.records) == 1 and key.split("/")[0] in caplog.records[0].message
    assert len(caplog.records[0].message.splitlines()) == 1
    store.delete(key)
    if not key.endswith("claim.json"):
        assert reader.read().unreadable == 0


def test_strangers_in_the_ledger_make_no_series(store: LocalStore) -> None:
    number = claim(store)
    for step in ("gate", "mine", "x" * 100):
        ledger.finished(store, number, step, status="failed", metrics={}, error="rm -rf: what")
    labels = {dict(labels).get("step") for _, labels in samples(LineReader(store, "x").read())}
    assert labels == {None, "gate"}


def test_labels_are_bounded(store: LocalStore) -> None:
    rate = {"candidate": {"value": 0.1, "low": 0.0, "high": 0.2}}
    rates = {f"asr.slice-{number:03d}": rate for number in range(100)}
    numbers = Numbers.model_validate({"round": 1, "rates": rates, "values": {}})
    facts = LineReader(store, "x").read()
    found = samples(LineFacts(**{**vars(facts), "measured": numbers}))
    assert sum(name == "sparring_attack_success_ratio" for name, _ in found) == MOST_LABELS
    assert found["sparring_exporter_dropped_labels", frozenset({("line", "x")})] == 100 - MOST_LABELS


def test_all_lines_and_later_ones(store: LocalStore) -> None:
    watch = Watch(store, None)
    watch.look()
    assert watch.ready
    for line in ("one", "two"):
        claim(store.scope(f"lines/{line}"))
    claim(store.scope("lines/Not A Name"))
    watch.look()
    found = {dict(s.labels)["line"] for f in watch.collect() for s in f.samples if s.name == "sparring_round"}
    assert found == {"one", "two"}
