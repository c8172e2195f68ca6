"""The alerts, by promtool: each fires when it should and is silent otherwise, on series of two real rounds.

Series are what the exporter gave, moved to promtool's time zero; a case changes what has gone wrong and nothing else.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from sparring.errors import ConflictError
from sparring.monitor import ledger
from sparring.monitor.exporter import Watch
from sparring.steps.entry import describe
from sparring.store import open_store
from sparring.store.local import LocalStore
from tests.monitor import catalogue
from tests.monitor.prometheus import promtool
from tests.monitor.real_history import WEEK, History
from tests.monitor.scraping import Series, series, value

ROOT = Path(__file__).parent.parent.parent
GROUPS = yaml.safe_load((ROOT / "manifests/components/monitoring/rules.yaml").read_text(encoding="utf-8"))["spec"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS["groups"] for rule in group["rules"]}
EVALUATED = "40m"
_MINUTES = 60
Labels = dict[str, str]


def scrape(watch: Watch) -> Series:
    """What the exporter says after one look."""
    watch.look()
    registry = CollectorRegistry()
    registry.register(watch)
    return series(generate_latest(registry).decode())


@dataclass(frozen=True)
class World:
    """Series at time zero, with what they grow by each minute where they do."""

    values: Series
    grows: dict[str, float]

    def put(self, name: str, number: float, **labels: str) -> World:
        """With other values of the series that have these labels; there must be some."""
        found = {key for key in self.values if key[0] == name and labels.items() <= dict(key[1]).items()}
        assert found, f"the exporter serves no {name} with {labels}"
        return replace(self, values={**self.values, **dict.fromkeys(found, number)})

    def without(self, name: str) -> World:
        """Without these series, of which there must be some."""
        left = {key: number for key, number in self.values.items() if key[0] != name}
        assert len(left) < len(self.values), f"the exporter serves no {name}"
        return replace(self, values=left)

    def still(self, name: str) -> World:
        """With series that stopped to grow."""
        assert name in self.grows
        return replace(self, grows={key: step for key, step in self.grows.items() if key != name})

    def decided(self, decision: str) -> World:
        """With another last decision."""
        return self.put("sparring_last_decision", 0).put("sparring_last_decision", 1, decision=decision)

    def step(self, step: str, status: str) -> World:
        """With a step that stands otherwise."""
        name = "sparring_step_status"
        return self.put(name, 0, step=step).put(name, 1, step=step, status=status)


@pytest.fixture(scope="module")
def real(history: History) -> World:
    """As the exporter serves it, with a hook that fails."""
    found, now = scrape(Watch(open_store(history.url), None)), time.time()
    moved = {key: number - now if key[0].endswith("_timestamp_seconds") else number for key, number in found.items()}
    return World(moved, {"sparring_exporter_last_read_timestamp_seconds": 60.0})


@pytest.fixture(scope="module")
def sound(real: World) -> World:
    """With nothing to alarm of: the hook that failed took the event after all."""
    name = "sparring_hook_newest"
    healed = real.put(name, 0, hook="notify").put(name, 1, hook="notify", state="delivered")
    return healed.decided("REJECT")


def conflict(folder: Path) -> Series:
    """What the exporter serves of a round whose writes to the pool others kept out."""
    store = LocalStore(folder).scope("lines/default")
    store.put("rounds/000001/claim.json", b'{"config_digest": "0", "claimed_at": "2026-01-05T03:00:00Z"}')
    error = describe(ConflictError("cannot append to pool/attacks"))
    ledger.finished(store, 1, "update_pool", status="failed", metrics={}, error=error)
    found = scrape(Watch(LocalStore(folder), ["default"]))
    return {key: number for key, number in found.items() if key[0] == "sparring_step_errors"}


LINE = {"line": "default"}
DAY = 86400.0
SUCCESS, START, PERIOD = (
    "sparring_last_success_timestamp_seconds",
    "sparring_line_start_timestamp_seconds",
    "sparring_schedule_period_seconds",
)
FIRING: list[tuple[str, str, Callable[[World], World], Labels]] = [
    ("SparringNoSuccess", "two periods", lambda w: w.put(SUCCESS, -2 * WEEK), LINE),
    ("SparringNoSuccess", "never", lambda w: w.without(SUCCESS).put(START, -2 * WEEK), LINE),
    ("SparringNoSuccess", "no schedule", lambda w: w.without(PERIOD).put(SUCCESS, -14 * DAY), LINE),
    ("SparringGateInvalid", "", lambda w: w.decided("INVALID"), {**LINE, "decision": "INVALID"}),
    (
        "SparringStepKilled",
        "",
        lambda w: w.step("selfplay", "killed"),
        {**LINE, "step": "selfplay", "status": "killed"},
    ),
    ("SparringStepFailed", "", lambda w: w.step("answer", "failed"), {**LINE, "step": "answer", "status": "failed"}),
    ("SparringJudgeFailing", "void", lambda w: voids(w, 0.021), LINE),
    (
        "SparringJudgeFailing",
        "step",
        lambda w: w.step("judge", "failed"),
        {**LINE, "step": "judge", "status": "failed"},
    ),
    ("SparringOverRefusalRising", "", lambda w: w.put("sparring_over_refusal_rises", 3), LINE),
    ("SparringAlphaSpent", "", lambda w: w.put("sparring_alpha_left", 0), LINE),
    ("SparringChampionLogBroken", "", lambda w: w.put("sparring_champion_log_broken", 1), LINE),
    ("SparringRecordsUnreadable", "", lambda w: w.put("sparring_exporter_unreadable_records", 1), LINE),
    ("SparringExporterBlind", "down", lambda w: w.put("sparring_exporter_up", 0), LINE),
    ("SparringExporterBlind", "stuck", lambda w: w.still("sparring_exporter_last_read_timestamp_seconds"), LINE),
    ("SparringExporterBlind", "gone", lambda w: w.without("sparring_build_info"), {}),
]
SILENT: list[tuple[str, str, Callable[[World], World]]] = [
    ("SparringNoSuccess", "nearly two periods", lambda w: w.put(SUCCESS, -2 * WEEK + 3600)),
    ("SparringNoSuccess", "no schedule", lambda w: w.without(PERIOD).put(SUCCESS, -13 * DAY)),
    ("SparringStepKilled", "runs", lambda w: w.step("selfplay", "running")),
    ("SparringJudgeFailing", "few voids", lambda w: voids(w, 0.019)),
    ("SparringOverRefusalRising", "twice", lambda w: w.put("sparring_over_refusal_rises", 2)),
    ("SparringAlphaSpent", "one look left", lambda w: w.put("sparring_alpha_left", 0.005)),
]


def voids(world: World, share: float) -> World:
    """With so many verdicts void."""
    name = "sparring_judge_verdicts"
    return world.put(name, 1000 * share, status="void").put(name, 1000 * (1 - share), status="ok")


def on_real_rounds(test: Any) -> Any:
    """Marks a test that waits for two real rounds."""
    return pytest.mark.slow(pytest.mark.timeout(3000)(test))


@on_real_rounds
@pytest.mark.parametrize(("alert", "how", "wrong", "labels"), FIRING, ids=[f"{c[0]} {c[1]}".strip() for c in FIRING])
def test_it_fires(
    alert: str, how: str, wrong: Callable[[World], World], labels: Labels, sound: World, tmp_path: Path
) -> None:
    checked(tmp_path, wrong(sound), alert, [labels])


@on_real_rounds
@pytest.mark.parametrize(("alert", "how", "other"), SILENT, ids=[f"{c[0]} {c[1]}" for c in SILENT])
def test_it_is_silent(alert: str, how: str, other: Callable[[World], World], sound: World, tmp_path: Path) -> None:
    checked(tmp_path, other(sound), alert, [])


@on_real_rounds
@pytest.mark.parametrize("alert", RULES)
def test_all_are_silent_when_nothing_is_wrong(alert: str, sound: World, tmp_path: Path) -> None:
    checked(tmp_path, sound, alert, [])


@on_real_rounds
def test_a_hook_that_really_fails_is_alarmed(real: World, tmp_path: Path) -> None:
    checked(tmp_path, real, "SparringHookFailing", [{**LINE, "hook": "notify", "state": "failing"}])


@on_real_rounds
def test_a_hook_that_was_given_up_is_alarmed(real: World, tmp_path: Path) -> None:
    name = "sparring_hook_newest"
    given_up = real.put(name, 0, hook="notify").put(name, 1, hook="notify", state="given_up")
    checked(tmp_path, given_up, "SparringHookFailing", [{**LINE, "hook": "notify", "state": "given_up"}])


@on_real_rounds
def test_a_conflict_at_the_pool_is_alarmed(sound: World, tmp_path: Path) -> None:
    lost = conflict(tmp_path / "store")
    assert value(lost, "sparring_step_errors", step="update_pool", error="ConflictError") == 1
    world = replace(sound, values={**sound.values, **lost})
    labels = {**LINE, "step": "update_pool", "error": "ConflictError"}
    checked(tmp_path, world, "SparringPoolWriteConflict", [labels])


def checked(folder: Path, world: World, alert: str, expected: list[Labels]) -> None:
    """promtool agrees that of this alert exactly these fire."""
    (folder / "rules.yml").write_text(json.dumps(GROUPS))
    fired = [{"exp_labels": {**labels, **RULES[alert]["labels"]}, "exp_annotations": told(alert, labels)}
             for labels in expected]  # fmt: skip
    case = {
        "interval": "1m",
        "input_series": [shown(world, key) for key in sorted(world.values, key=repr)],
        "alert_rule_test": [{"eval_time": EVALUATED, "alertname": alert, "exp_alerts": fired}],
    }
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [case]}
    (folder / "test.yml").write_text(json.dumps(test))
    done = promtool("test", "rules", str(folder / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def shown(world: World, key: tuple[str, frozenset[tuple[str, str]]]) -> dict[str, str]:
    name, labels = key
    inside = ",".join(f"{label}={json.dumps(text)}" for label, text in sorted(labels))
    grows = world.grows.get(name, 0.0)
    return {"series": f"{name}{{{inside}}}", "values": f"{world.values[key]:.9f}+{grows:g}x{_MINUTES}"}


def told(alert: str, labels: Labels) -> Labels:
    """Annotations as they reach people."""
    notes: Labels = RULES[alert]["annotations"]
    return {name: re.sub(r"{{ \$labels\.(\w+) }}", lambda m: labels[m[1]], text) for name, text in notes.items()}


def test_promtool_finds_no_fault_in_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(json.dumps(GROUPS))
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yml"))
    assert done.returncode == 0 and f"{len(RULES)} rules found" in done.stdout, done.stdout + done.stderr


def test_rules_ask_for_metrics_that_are_served() -> None:
    asked = re.findall(r"sparring_[a-z0-9_]+", " ".join(rule["expr"] for rule in RULES.values()))
    assert set(asked) <= catalogue.names(catalogue.exported())


def test_each_alert_has_a_firing_case_and_a_section_in_the_runbook() -> None:
    elsewhere = {"SparringHookFailing", "SparringPoolWriteConflict"}  # tests of their own above
    assert {case[0] for case in FIRING} | elsewhere == set(RULES)
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == list(RULES)
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")
