"""The cross-play matrix on the page: there when a round has one, with its numbers, and hostile names stay text."""

from __future__ import annotations

from pathlib import Path

from sparring.evaluate.crossplay import Cell, CrossPlay, crossplay_key, put_crossplay
from tests.report.pages import line, page, parse, words
from tests.report.world import FIRST, SECOND, Plan


def matrix(rates: list[list[float | None]], *names: str) -> CrossPlay:
    cells = tuple(
        Cell(attacker=a, defender=d, judged=0 if rate is None else 50, worked=round(50 * (rate or 0)), void=0)
        for a, row in enumerate(rates)
        for d, rate in enumerate(row)
    )
    return CrossPlay(
        attackers=names, defenders=names, digests={}, behaviors=50, judge="embedded-gate:1", seed=0, cells=cells
    )


def test_the_matrix_is_shaded_and_says_what_was_forgotten(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(FIRST), Plan(SECOND))
    assert parse(page(store, 2)).find(".//section[@id='crossplay']") is None
    found = matrix([[0.2, 0.1, 0.8], [0.5, 0.3, 0.32], [0.5, None, 0.1]], "base", "round 1", "<b>round 2</b>")
    put_crossplay(store, 2, found)
    document = parse(page(store, 2))
    section = document.find(".//section[@id='crossplay']")
    assert words(section.find(".//p[@class='said']")).startswith("Forgotten:")
    assert "base (20 % then, 80 % now)" in words(section)
    rows = section.findall(".//tbody/tr")
    assert [words(row.find("th")) for row in rows] == ["base", "round 1", "<b>round 2</b>"]  # text, no markup
    assert words(rows[0].findall("td")[2]).startswith("80.0 %") and words(rows[2].findall("td")[1]) == "–"
    assert [cell.get("style") for cell in rows[0].findall("td")] == ["--heat: 12%", "--heat: 6%", "--heat: 48%"]


def test_an_earlier_matrix_stays_and_a_broken_one_costs_only_itself(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(FIRST), Plan(SECOND))
    put_crossplay(store, 1, matrix([[0.2, 0.1], [0.5, 0.3]], "base", "round 1"))
    section = parse(page(store, 2)).find(".//section[@id='crossplay']")
    assert "No old attacker does better" in words(section)
    store.put(crossplay_key(2), b"{")
    document = parse(page(store, 2))
    assert "the cross-play cannot be read" in words(document)
    assert document.find(".//section[@id='crossplay']") is not None
