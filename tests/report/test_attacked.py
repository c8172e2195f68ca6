"""The adaptive evaluation and the answers' looks on the page: true numbers, and nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sparring.evaluate.tables import read_verdicts, write_verdicts
from sparring.steps import report
from sparring.store.local import LocalStore
from tests.report.attacks import METHODS, attack, worked
from tests.report.pages import line, page, parse, words
from tests.report.world import FIRST, SECOND, Plan

JUDGED = "rounds/000001/judge/candidate.parquet"
ANSWERED = "rounds/000001/answer/candidate.parquet"


@pytest.fixture
def attacked(tmp_path: Path) -> LocalStore:
    """A first round with four tries at forty behaviours by five methods."""
    store = line(tmp_path, Plan(FIRST))
    attack(store, 1)
    return store


def test_the_table_holds_the_share_of_behaviours_that_some_try_broke(attacked: LocalStore) -> None:
    cells = _cells(page(attacked))
    for method, name in (("pair", "refined after each answer"), ("prefill", "the answer begun")):
        for place, role in ((0, "candidate"), (2, "champion")):
            first = [worked(role, method, n, 0) for n in range(40)]
            tried = [any(worked(role, method, n, k) for k in range(4)) for n in range(40)]
            assert cells[name][place].startswith(f"{100 * sum(first) / 40:.1f} %")
            assert cells[name][place + 1].startswith(f"{100 * sum(tried) / 40:.1f} %")
    together = [any(worked("candidate", m, n, k) for m in METHODS for k in range(4)) for n in range(40)]
    assert cells["any of these"][1].startswith(f"{100 * sum(together) / 40:.1f} %")


def test_the_page_draws_a_curve_a_method_and_says_what_it_shows(attacked: LocalStore) -> None:
    section = parse(page(attacked)).find(".//section[@id='results']")
    drawn = words(section.findall(".//figure")[1])
    assert all(name in drawn for name in ("Written by the candidate", "Over several turns", "Any of these"))
    assert "40 behaviours at the first try" in words(section) and "within 4 tries, against the base model" in words(
        section
    )
    rates = section.find(".//table[@class='rates']")
    assert "the answer begun" not in words(rates) and "adaptive-" not in words(section)


def test_one_method_alone_has_no_line_for_all(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(FIRST))
    attack(store, 1, methods=["best_of_n"], tries=1)
    document = parse(page(store))
    assert list(_cells(page(store)))[1:] == ["perturbed letters"]
    assert "within" not in words(document.findall(".//section[@id='results']/p[@class='said']")[1])


def test_without_an_adaptive_evaluation_the_page_says_nothing_of_it(tmp_path: Path) -> None:
    document = parse(page(line(tmp_path, Plan(FIRST))))
    assert "several tries" not in words(document) and document.find(".//table[@class='rates tight']") is None


def test_an_unjudged_try_counts_and_is_named(attacked: LocalStore) -> None:
    assert "without a usable judgement counts as one" not in page(attacked)
    before = _cells(page(attacked))["perturbed letters"]
    _change(attacked, lambda row: {**row, "status": "void", "harmful": None} if row["answer_index"] == 3 else row)
    html = page(attacked)
    assert "without a usable judgement counts as one" in html
    after = _cells(html)["perturbed letters"]
    assert after[1].startswith("100.0 %") and after[0] == before[0]


def test_a_missing_try_costs_that_models_curves_and_is_told(attacked: LocalStore) -> None:
    table, _ = read_verdicts(attacked, JUDGED)
    lost = pc.and_(pc.equal(table["prompt_id"], "pair:b3"), pc.equal(table["answer_index"], 0))
    write_verdicts(attacked, JUDGED, table.filter(pc.invert(lost)))
    facts, _ = report.collect(attacked, 1)
    assert set(facts.attacked) == {"champion"}
    assert any("candidate's tries cannot be read" in problem and "pair:b3" in problem for problem in facts.problems)
    assert "–" in _cells(page(attacked))["refined after each answer"][0]


def test_length_and_repetition_stand_beside_each_other(attacked: LocalStore) -> None:
    (table,) = (each for each in parse(page(attacked)).iter("table") if "repeated" in words(each.find("thead")))
    cells = {words(row.find("th")): [words(cell) for cell in row.findall("td")] for row in table.iter("tr")}
    attacked_row, vanilla = cells["refined after each answer 160"], cells["vanilla 140"]
    # tokens, share at the limit of 32 and repetition, each for candidate and base model
    broken = [worked("candidate", "pair", n, k) for n in range(40) for k in range(4)]
    mean = sum(32 if one else 20 for one in broken) / len(broken)
    assert attacked_row[0] == f"{mean:.1f}"
    assert attacked_row[2].removesuffix(" %") in f"{100 * sum(broken) / len(broken):.1f}"
    assert attacked_row[4:] == ["40 %", "40 %"]  # 4 of 10 runs of four words
    assert vanilla == ["24.0", "24.0", "0 %", "0 %", "0 %", "0 %"]


def test_answers_are_described_before_anyone_judged_them(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(SECOND, until="answer", ending="killed"))
    assert "Length and repetition" in words(parse(page(store)).find(".//section[@id='results']"))


def test_a_broken_answer_table_is_told(attacked: LocalStore) -> None:
    table = pq.read_table(pa.BufferReader(attacked.get(ANSWERED))).drop_columns(["tokens"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    attacked.put(ANSWERED, bytes(sink.getvalue().to_pybytes()))
    facts, _ = report.collect(attacked, 1)
    assert set(facts.texts) == {"champion"}
    assert any("no column 'tokens'" in problem for problem in facts.problems)


def _cells(html: str) -> dict[str, list[str]]:
    table = parse(html).find(".//table[@class='rates tight']")
    return {words(row.find("th")): [words(cell) for cell in row.findall("td")] for row in table.iter("tr")}


def _change(store: LocalStore, change: object) -> None:
    table, _ = read_verdicts(store, JUDGED)
    rows = [change(row) if row["suite"] == "adaptive" else row for row in table.to_pylist()]  # type: ignore[operator]
    write_verdicts(store, JUDGED, pa.Table.from_pylist(rows, table.schema))
