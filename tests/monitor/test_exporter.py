"""The exporter as it is run: a process on loopback that answers from memory, whatever the store does."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sparring.errors import StoreError
from sparring.monitor.exporter import Exporter, Watch
from sparring.registry.champion import read_log
from sparring.steps.entry import execute
from sparring.store.local import LocalStore
from tests.monitor import catalogue
from tests.monitor.prometheus import promtool
from tests.monitor.scraping import Series, answer, series, value
from tests.pipelines.planted import BETTER, Planted, plant

ROOT = Path(__file__).parent.parent.parent
PROGRAM = "from sparring.cli.main import main; main()"
SECONDS = 60.0


@pytest.fixture
def promoted(tmp_path: Path) -> Planted:
    """A line whose first round promoted."""
    planted = plant(tmp_path, BETTER)
    for step in ("gate", "promote", "report"):
        execute(step, planted.request.model_dump_json(), str(planted.number))
    return planted


@dataclass
class Running:
    """The program at work."""

    process: subprocess.Popen[str]
    address: str

    def get(self, path: str) -> tuple[int, str]:
        return answer(f"{self.address}{path}")

    def metrics(self) -> Series:
        return series(self.get("/metrics")[1])

    def until(self, holds: Callable[[Series], bool]) -> Series:
        """The first answer for which it holds."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = self.metrics()
            if holds(found):
                return found
            time.sleep(0.1)
        raise AssertionError("it never came to hold")

    def stop(self) -> tuple[int, str]:
        """Exit code after SIGTERM, and what it wrote to its log."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS), self.process.communicate()[1]


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[Running]:
    command = [sys.executable, "-c", PROGRAM, "exporter", "--port", "0", "--interval", "1", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, process.communicate()[1]
            found = Running(process, said.split()[-1].removesuffix("/metrics"))
            found.until(lambda _: found.get("/readyz")[0] == 200)
            yield found
        finally:
            process.kill()


def test_the_program_serves_a_line_and_ends_on_sigterm(promoted: Planted, tmp_path: Path) -> None:
    with running("--store", promoted.request.store, cwd=tmp_path) as program:
        assert program.address.startswith("http://127.0.0.1:")
        assert program.get("/healthz") == (200, "ok\n") and program.get("/")[0] == 404
        found = program.metrics()
        assert value(found, "sparring_champion_info", digest=promoted.candidate, round="1") == 1
        assert value(found, "sparring_last_decision", decision="PROMOTE") == 1
        assert value(found, "sparring_champion_since_timestamp_seconds") == pytest.approx(time.time(), abs=600)
        assert value(found, "sparring_attack_success_ratio", model="candidate", slice="vanilla") == pytest.approx(0.3)
        assert psutil.Process(program.process.pid).memory_info().rss < 80e6
        checked = promtool("check", "metrics", text=program.get("/metrics")[1])
        assert checked.returncode == 0 and not checked.stderr, checked.stdout + checked.stderr
        assert program.stop() == (0, "")


def test_damage_is_one_line_and_a_metric(promoted: Planted, tmp_path: Path) -> None:
    key = "rounds/000001/report/metrics.json"
    good = promoted.store.get(key)
    with running("--store", promoted.request.store, cwd=tmp_path) as program:
        promoted.store.put(key, b"\xff{")
        program.until(lambda found: value(found, "sparring_exporter_unreadable_records") == 1)
        time.sleep(2.5)  # more looks
        assert value(program.metrics(), "sparring_champion_log_broken") == 0
        promoted.store.put(key, good)
        program.until(lambda found: value(found, "sparring_exporter_unreadable_records") == 0)
        code, log = program.stop()
    assert code == 0 and len(log.splitlines()) == 1 and key in log


def test_lines_are_chosen_or_all(promoted: Planted, tmp_path: Path) -> None:
    other = plant(tmp_path / "other", BETTER, url=promoted.request.store)  # round 2 of the same line
    with running("--store", promoted.request.store, "--all-lines", cwd=tmp_path) as program:
        assert value(program.metrics(), "sparring_round", line="default") == other.number == 2
        LocalStore(Path(promoted.request.store)).scope("lines/late").put("rounds/000001/claim.json", b"{}")
        program.until(lambda found: value(found, "sparring_round", line="late") == 1)
    with running("--store", promoted.request.store, "--line", "default", "--line", "new", cwd=tmp_path) as program:
        found = program.metrics()
        assert value(found, "sparring_round", line="new") == 0 and value(found, "sparring_round", line="default") == 2
        assert value(found, "sparring_round", line="late") is None


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--line", "a", "--all-lines"], 2, "exclude each other"),
        (["--line", "Not A Name"], 2, "line"),
        (["--store", "ftp://x"], 2, "ftp://x"),
        (["--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, "exporter", "--port", "0", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == code and text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


class Moody(LocalStore):
    """A folder that does not always answer."""

    down = False

    def exists(self, key: str) -> bool:
        if self.down:
            raise StoreError("no reply", hint="look at the network")
        return super().exists(key)

    def scope(self, prefix: str) -> LocalStore:
        return self


def test_a_store_that_does_not_answer_leaves_the_last_facts(
    promoted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    store = Moody(Path(promoted.store.url))
    watch = Watch(store, ["default"])
    store.down = True
    with caplog.at_level(logging.WARNING):
        watch.look()
        ready = [watch.ready]
        store.down = False
        watch.look()
        ready.append(watch.ready)
        store.down = True
        watch.look()
        watch.look()
    found = {sample.name: sample.value for family in watch.collect() for sample in family.samples}
    assert ready == [False, True] and watch.ready
    assert found["sparring_exporter_up"] == 0 and found["sparring_round"] == 1
    assert [record.message for record in caplog.records] == [
        "line default cannot be read: no reply; look at the network"
    ] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_no_health(promoted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(LocalStore(Path(promoted.request.store)), ["default"])
    monkeypatch.setattr(watch, "look", None)  # a fault of ours
    with Exporter(watch, "127.0.0.1", 0, 1.0) as exporter:
        base, end = exporter.address.removesuffix("/metrics"), time.monotonic() + SECONDS
        while answer(f"{base}/healthz")[0] == 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert answer(f"{base}/healthz")[0] == 503 and answer(f"{base}/readyz") == (503, "not read yet\n")


def test_the_exporter_needs_neither_numpy_nor_pyarrow(promoted: Planted) -> None:
    heavy = "('numpy', 'pyarrow', 'torch', 'scipy', 'deltalake', 'openai', 'boto3')"
    code = (
        "import sys; from pathlib import Path; from sparring.store.local import LocalStore; "
        "from sparring.monitor.exporter import Watch; "
        f"w = Watch(LocalStore(Path({promoted.request.store!r})), None); w.look(); list(w.collect()); "
        f"print(w.ready, [n for n in {heavy} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_it_only_reads(promoted: Planted) -> None:
    store = LocalStore(Path(promoted.request.store))
    before = {entry.key: entry for entry in store.entries()}
    Watch(store, None).look()
    assert {entry.key: entry for entry in store.entries()} == before
    assert read_log(promoted.store).head == 1


def test_the_table_in_the_docs_is_what_is_served() -> None:
    text = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `sparring_.*\|$", text, re.MULTILINE)
    assert written == catalogue.table([*catalogue.exported(), *catalogue.live()])


def test_names_follow_prometheus_conventions() -> None:
    units = ("_seconds", "_bytes", "_ratio", "_tokens_per_second")
    for metric in [*catalogue.exported(), *catalogue.live()]:
        assert re.fullmatch(r"sparring_[a-z0-9_]+", metric.name) and metric.documentation.endswith(".")
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        if "time" in metric.name.split("_") or "timestamp" in metric.name:
            assert metric.name.endswith("_timestamp_seconds")
        if any(word in metric.name for word in ("duration", "latency", "memory", "utilization")):
            assert metric.name.endswith(units)
