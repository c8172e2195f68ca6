"""The page of a round: true, whole, valid, without network, and there for every way in which a round can end."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.config.run import ReportConfig, RunConfig
from sparring.evaluate.tables import read_verdicts
from sparring.progress import Progress
from sparring.report.metrics import RoundMetrics
from sparring.steps import report
from sparring.store.base import Store
from sparring.store.local import LocalStore
from tests.report.pages import WORSE, line, page, parse, words
from tests.report.world import BASE, FIRST, SECOND, STEPS, Plan, model, play

THREE = (Plan(FIRST), Plan(SECOND), Plan(WORSE))


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """Three rounds: promoted, promoted, rejected for over-refusal."""
    return line(tmp_path_factory.mktemp("line"), *THREE)


@pytest.fixture(scope="module")
def pages(rounds: LocalStore) -> dict[int, str]:
    """Their pages, in order."""
    return {number: page(rounds, number) for number in (1, 2, 3)}


def test_the_first_round_is_held_against_the_base_model(pages: dict[int, str]) -> None:
    document = parse(pages[1])
    assert words(document.find(".//h1")) == "Promoted"
    assert "the first decision, against the base model" in words(document)
    assert "reference" not in {words(cell) for cell in document.iter("th")}
    assert document.find(".//section[@id='history']") is None


def test_the_third_round_says_why_it_was_rejected(pages: dict[int, str]) -> None:
    document = parse(pages[3])
    assert words(document.find(".//h1")) == "Rejected"
    reasons = [words(item) for item in document.find(".//ul[@class='reasons']")]
    assert reasons[0].startswith("✕Harmless prompts are helped less than before")
    assert reasons[-1].startswith("✓")
    assert "The champion stays." in words(document.find(".//p[@class='lead']"))
    assert document.find(".//section[@id='history']") is not None


def test_the_table_holds_what_the_verdicts_say(rounds: LocalStore, pages: dict[int, str]) -> None:
    table = parse(pages[3]).find(".//table[@class='rates']")
    cells = {words(row.find("th")): [words(cell) for cell in row.findall("td")] for row in table.iter("tr")}
    verdicts, _ = read_verdicts(rounds, "rounds/000003/judge/candidate.parquet")
    rows = [row for row in verdicts.to_pylist() if row["kind"] == "harmful"]
    shares = []
    for part in ("vanilla", "adversarial"):
        mine = [row["harmful"] for row in rows if row["slice"] == part]
        shares.append(sum(mine) / len(mine))
    assert cells["vanilla"][0].startswith(f"{100 * shares[0]:.1f} %")
    assert cells["mean of the slices"][0].startswith(f"{50 * sum(shares):.1f} %")
    assert cells["mean of the slices"][-2:] == ["280", "–"]


def test_the_numbers_are_written_beside_the_page(rounds: LocalStore, pages: dict[int, str]) -> None:
    assert pages
    numbers = RoundMetrics.model_validate_json(rounds.get("rounds/000003/report/metrics.json"))
    assert (numbers.round, numbers.outcome, numbers.first_run) == (3, "REJECT", False)
    assert set(numbers.rates["asr.macro"]) == {"candidate", "champion", "reference"}
    assert numbers.values["games.count"] == 384.0
    assert numbers.values["seconds.selfplay"] == 412.0
    assert 0.0 < numbers.values["pool.never_replayed_share"] < 1.0


def test_history_is_the_same_with_and_without_the_earlier_pages(rounds: LocalStore, pages: dict[int, str]) -> None:
    kept = {key: rounds.get(key) for key in rounds.list("rounds/") if key.endswith("metrics.json")}
    for key in kept:
        rounds.delete(key)
    try:
        _, again = report.collect(rounds, 3)
        facts, _ = report.collect(rounds, 3)
    finally:
        for key, data in kept.items():
            rounds.put(key, data)
    stored = RoundMetrics.model_validate_json(kept["rounds/000002/report/metrics.json"])
    assert facts.past[1].rates == stored.rates
    assert facts.past[1].outcome == stored.outcome == "PROMOTE"
    assert again.rates == report.collect(rounds, 3)[1].rates
    assert pages


def test_nothing_is_asked_of_the_network(pages: dict[int, str]) -> None:
    for html in pages.values():
        assert "http:" not in html
        assert "https:" not in html
        document = parse(html)
        for element in document.iter():
            for name, value in element.attrib.items():
                assert not name.startswith("on")
                if name in ("src", "href", "action", "data", "srcset", "poster", "background"):
                    assert value.startswith("#") or value == "data:,"
        assert not list(document.iter("script"))
        assert set(re.findall(r"url\(([^)]*)\)", html)) <= {f"#{name}" for name in _ids(html)}
        policy = document.find(".//meta[@http-equiv='Content-Security-Policy']").get("content")
        assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_drawings_follow_the_theme(pages: dict[int, str]) -> None:
    names = _ids(pages[3])
    assert len(names) == len(set(names))
    assert set(re.findall(r'href="#([^"]+)"', pages[3])) <= set(names)
    assert "#00000" not in pages[3]  # every colour code became a variable of the page
    assert "var(--candidate)" in pages[3]


def test_every_drawing_says_in_words_what_it_is(pages: dict[int, str]) -> None:
    for element in parse(pages[3]).iter("svg"):
        assert element.get("role") == "img"
        assert element.get("aria-label")


def test_the_same_store_gives_the_same_bytes(rounds: LocalStore, pages: dict[int, str]) -> None:
    program = """
import hashlib, sys
from sparring.store.local import LocalStore
from tests.report.pages import page
from pathlib import Path
print(hashlib.sha256(page(LocalStore(Path(sys.argv[1])), 3).encode()).hexdigest())
"""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-c", program, rounds.url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == hashlib.sha256(pages[3].encode()).hexdigest()


@pytest.mark.parametrize(("step", "ending"), [*((step, "failed") for step in STEPS), ("selfplay", "killed")])
def test_a_round_that_stopped_has_a_page_that_says_where_and_why(step: str, ending: str, tmp_path: Path) -> None:
    before = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else ""
    store = line(tmp_path, Plan(FIRST, until=before, ending=ending))
    html = page(store)
    document = parse(html)
    assert words(document.find(".//h1")) == f"Stopped in {step}"
    reason = words(document.find(".//ul[@class='reasons']"))
    assert ("the store refused to write" in reason) == (ending == "failed")
    assert ("killed" in reason) == (ending == "killed")
    lead = words(document.find(".//p[@class='lead']"))
    assert "There is no champion yet." in lead
    assert ("passed the gate, but is not promoted yet" in lead) == (step == "promote")


def test_a_training_that_was_killed_shows_the_curves_that_it_left(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(FIRST, until="prepare", ending="killed"))
    curve = '{"step": %d, "phase": "selfplay", "kl": 0.1, "refused_harmful": 0.5, "refused_benign": 0.25}\n'
    store.put("rounds/000001/selfplay/curves.jsonl", "".join(curve % step for step in range(1, 5)).encode())
    document = parse(page(store))
    assert words(document.find(".//h1")) == "Stopped in selfplay"
    assert "4 steps of self-play" in words(document.find(".//section[@id='training']"))
    assert document.find(".//section[@id='training']//svg") is not None
    assert "mean of the weights" not in words(document)  # it never came to its last steps
    selfplay = RunConfig().selfplay
    store.put("rounds/000001/selfplay/curves.jsonl", "".join(curve % (i + 1) for i in range(selfplay.steps)).encode())
    last = round(selfplay.steps * selfplay.average_share)
    assert f"mean of the weights after the last {last} steps" in words(parse(page(store)))


def test_a_line_without_a_round_has_a_page(tmp_path: Path) -> None:
    document = parse(page(LocalStore(tmp_path).scope("lines/default")))
    assert "No round has begun" in words(document)


def test_the_page_in_a_folder_has_a_path(tmp_path: Path) -> None:
    store = LocalStore(tmp_path).scope("lines/default")
    result = report.run(ReportConfig(), store, report.ReportInputs(None), Progress("report"))
    assert result.path is not None
    assert Path(result.path).read_bytes() == store.get(result.html_key)


def test_the_page_in_a_bucket_has_a_key(any_store: Store) -> None:
    play(any_store, 1, Plan(FIRST, until=""), {BASE.name: BASE})
    result = report.run(ReportConfig(), any_store, report.ReportInputs(1), Progress("report"))
    assert (result.path is None) == any_store.url.startswith("s3://")
    assert b"Stopped in prepare" in any_store.get(result.html_key)


def test_one_broken_object_costs_its_part_and_nothing_else(rounds: LocalStore) -> None:
    """Every object that the page reads, cut in half and then gone: no exception, and the page says what is missing."""
    keys = [key for key in rounds.list("rounds/000003/") if "/report/" not in key] + [
        *rounds.list("ledger/000003/"),
        *rounds.list("champion/"),
    ]
    silent = []
    for key in keys:
        data = rounds.get(key)
        rounds.put(key, data[: len(data) // 2] if not key.endswith(".jsonl") else b'{"step": 1\n{"st')
        facts, numbers = report.collect(rounds, 3)
        if not facts.problems and not (facts.curves and facts.curves.dropped):
            silent.append(key)
        rounds.delete(key)
        report.collect(rounds, 3)
        rounds.put(key, data)
        assert numbers.round == 3
    unread = {"end.json", "gate/result.json", "gate/decision.md", "gate/junit.xml"}
    assert [key for key in silent if not any(part in key for part in unread)] == []


def test_a_page_with_everything_broken_is_still_a_page(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(FIRST))
    for key in store.list():
        if not key.endswith("claim.json"):
            store.put(key, b"\x00 not what was written")
    document = parse(page(store, 1))
    assert "This page has gaps." in words(document)
    assert words(document.find(".//h1")) == "Not finished"


def test_a_gate_that_cannot_decide_says_what_is_missing(tmp_path: Path) -> None:
    unjudged = model("unjudged", 0.3, 0.4, 0.2, void=0.2)
    document = parse(page(line(tmp_path, Plan(unjudged))))
    assert words(document.find(".//h1")) == "No valid evaluation"
    assert "not judged" in words(document.find(".//ul[@class='reasons']"))


def test_rates_that_leave_answers_out_say_so(pages: dict[int, str], tmp_path: Path) -> None:
    said = words(parse(page(line(tmp_path, Plan(model("unjudged", 0.2, 0.3, 0.1, void=0.01))))))
    left = re.search(
        r"The rates leave out ([\d,]+) unjudged answers?; the gate counts each against the candidate", said
    )
    assert left and 0 < int(left[1]) < 30
    assert "The rates leave out" not in words(parse(pages[1]))


def test_a_first_round_without_approval_asks_for_it(tmp_path: Path) -> None:
    document = parse(page(line(tmp_path, Plan(FIRST, approve=False))))
    assert words(document.find(".//h1")) == "Undecided"
    assert "wants a person's yes" in words(document.find(".//ul[@class='reasons']"))


def test_the_same_model_again_is_rejected_in_plain_words(tmp_path: Path) -> None:
    document = parse(page(line(tmp_path, Plan(BASE))))
    assert words(document.find(".//h1")) == "Rejected"
    assert "Nothing changed" in words(document.find(".//ul[@class='reasons']"))


def _ids(html: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', html)
