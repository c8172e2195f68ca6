"""The suites table and the seeds: shapes, labels, clusters, cleaning, cards."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.config.run import DataConfig, SuiteSource
from sparring.data import starter
from sparring.data.card import seeds_card, suites_card
from sparring.data.seeds import SEEDS_SCHEMA, clean_seeds, collect_seeds, read_seeds, seeds_table
from sparring.data.suites import SUITES_SCHEMA, Suites, build_suites
from sparring.embedding import Vectors
from sparring.errors import DataError

ONE_HOT = 1024


def _vectors(texts: list[str]) -> Vectors:
    """Texts are alike when they have the same last word: a stand-in with known neighbours, shape (n, 1024)."""
    vectors = np.zeros((len(texts), ONE_HOT), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row, sum(text.split()[-1].encode()) % ONE_HOT] = 1.0
    return vectors


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _suite(path: str, kind: Any, name: str = "mine", **more: Any) -> SuiteSource:
    return SuiteSource(name=name, path=path, kind=kind, **more)


def test_the_starter_suites_have_every_slice_that_the_gate_asks_for() -> None:
    suites = build_suites(DataConfig())
    table = suites.table()
    assert table.schema.equals(SUITES_SCHEMA, check_metadata=True)
    rows = table.to_pylist()
    counts = Counter((row["kind"], row["slice"]) for row in rows)
    assert set(counts) == {
        ("harmful", "vanilla"),
        ("harmful", "adversarial"),
        ("harmful", "attacker-role"),
        ("benign", "lookalike"),
        ("benign", "plain"),
        ("benign", "adversarial"),
        ("capability", "choice"),
        ("capability", "nll"),
    }
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    assert all(row["label"] == (row["kind"] if row["kind"] != "capability" else "") for row in rows)
    for row in rows:
        if row["slice"] == "choice":
            assert 0 <= row["answer"] < len(row["choices"]) and not row["target"]
        else:
            assert row["answer"] is None and not row["choices"] and bool(row["target"]) == (row["slice"] == "nll")


def test_a_plain_request_and_its_jailbreak_are_one_behaviour() -> None:
    rows = build_suites(DataConfig()).rows
    by_slice = {
        part: {r.behavior for r in rows if (r.kind, r.slice) == ("harmful", part)}
        for part in ("vanilla", "adversarial")
    }
    assert by_slice["vanilla"] == by_slice["adversarial"]


def test_public_suites_that_overlap_are_clustered_across_files(tmp_path: Path) -> None:
    plain = _jsonl(tmp_path / "a.jsonl", [{"Behavior": f"Do {i}.", "BehaviorID": f"b{i}"} for i in range(3)])
    wild = [{"vanilla": f"do {i % 3}", "adversarial": f"pretend to do {i} now"} for i in range(6)]
    config = DataConfig(
        starter_suites=False,
        suites=[
            _suite(plain, "harmful", "hb"),
            _suite(_jsonl(tmp_path / "b.jsonl", wild), "harmful", "wild", slice="adversarial"),
        ],
    )
    rows = build_suites(config).rows
    assert [row.behavior for row in rows[:3]] == ["hb:b0", "hb:b1", "hb:b2"]
    assert [row.behavior for row in rows[3:]] == [f"hb:b{i % 3}" for i in range(6)]
    assert rows[3].prompt == "pretend to do 0 now" and rows[3].intent == "do 0"


def test_a_file_with_both_labels_feeds_a_harmful_and_a_benign_suite(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "label": "safe" if i % 2 else "unsafe", "type": "t"} for i in range(10)]
    path = _jsonl(tmp_path / "xs.jsonl", [*rows, rows[1], rows[3]])
    config = DataConfig(
        starter_suites=False, suites=[_suite(path, "harmful", "unsafe"), _suite(path, "benign", "safe", limit=2)]
    )
    suites = build_suites(config)
    assert [row.prompt for row in suites.rows] == ["p0", "p2", "p4", "p6", "p8", "p1", "p5"]
    assert suites.left_out == {
        "unsafe/vanilla": {"other label": 7},
        "safe/vanilla": {"other label": 5, "duplicate": 2},
    }
    with pytest.raises(DataError, match=r"suite only: no row of .* is labelled benign"):
        only = _jsonl(tmp_path / "h.jsonl", [{"prompt": "p", "label": "unsafe"}])
        build_suites(DataConfig(starter_suites=False, suites=[_suite(only, "benign", "only")]))


def test_ids_of_user_rows_depend_on_their_text_alone(tmp_path: Path) -> None:
    first = _jsonl(tmp_path / "a.jsonl", [{"prompt": "x"}, {"prompt": "y"}])
    second = _jsonl(tmp_path / "b.jsonl", [{"prompt": "z"}, {"prompt": "y"}])

    def rows(path: str) -> dict[str, str]:
        suite = [_suite(path, "harmful")]
        return {r.prompt: r.prompt_id for r in build_suites(DataConfig(starter_suites=False, suites=suite)).rows}

    assert rows(first)["y"] == rows(second)["y"] and len(set(rows(first).values())) == 2
    one, two = collect_seeds(DataConfig(harmful=[first])), collect_seeds(DataConfig(harmful=[second]))
    assert one.seeds[1].id == two.seeds[1].id and one.seeds[1].source == "a.jsonl"


def test_the_starter_seeds_are_the_training_half() -> None:
    collected = collect_seeds(DataConfig())
    assert collected.seeds == starter.seeds("train")
    table = seeds_table(collected.seeds)
    assert table.schema.equals(SEEDS_SCHEMA, check_metadata=True)
    assert read_seeds(table) == collected.seeds


def test_what_stands_in_a_suite_or_twice_does_not_train_and_is_counted(tmp_path: Path) -> None:
    bad = [
        "Do the alpha",
        "do THE alpha!",
        "Say one two three four beta",
        "How gamma",
        "How else gamma",
        "Make a delta",
    ]
    harmful = _jsonl(tmp_path / "h.jsonl", [{"prompt": text} for text in bad])
    benign = _jsonl(
        tmp_path / "b.jsonl", [{"prompt": "Why gamma", "label": "safe"}, {"prompt": "Bad", "label": "unsafe"}]
    )
    asked = ["make a DELTA.", "they say one two three four times"]
    suite = _jsonl(tmp_path / "s.jsonl", [{"prompt": text} for text in asked])
    config = DataConfig(
        harmful=[harmful],
        benign=[benign],
        starter_suites=False,
        suites=[_suite(suite, "harmful")],
        decontaminate_ngram=5,
    )
    suites, collected = build_suites(config), collect_seeds(config)
    ids, texts = suites.texts()
    seed_vectors, suite_vectors = _vectors([seed.text for seed in collected.seeds]), _vectors(texts)
    clean = clean_seeds(collected, seed_vectors, texts, suite_vectors, config)
    assert [seed.text for seed in clean.seeds] == ["Do the alpha", "How gamma", "Why gamma"]
    card = seeds_card(collected, clean, ids, suite_vectors, config)
    assert card["dropped"] == {"exact duplicate": 1, "exact in suite": 1, "n-gram in suite": 1, "near duplicate": 1}
    assert (card["read"], card["rows"], card["other_label"]) == (7, 3, {benign: 1})
    rows = {row["place"]: row for row in card["dropped_rows"]}  # type: ignore[attr-defined]
    assert rows[f"{harmful}: row 6"]["other"] == suites.rows[0].prompt_id
    assert rows[f"{harmful}: row 2"]["other"] == collected.seeds[0].id
    assert rows[f"{harmful}: row 5"]["reason"] == "near duplicate"
    assert json.loads(json.dumps(card)) == card


def test_a_label_without_seeds_left_is_an_error(tmp_path: Path) -> None:
    suite = _jsonl(tmp_path / "s.jsonl", [{"prompt": "Do alpha"}])
    config = DataConfig(harmful=[suite], starter_suites=False, suites=[_suite(suite, "harmful")])
    suites, collected = build_suites(config), collect_seeds(config)
    texts = suites.texts()[1]
    with pytest.raises(DataError, match=r"no harmful seed is left of 1 .*data\.harmful"):
        clean_seeds(collected, _vectors([s.text for s in collected.seeds]), texts, _vectors(texts), config)


def test_no_benign_row_enters_the_harmful_seeds(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "xs.jsonl", [{"prompt": "a", "label": "safe"}])
    with pytest.raises(DataError, match=r"xs\.jsonl: no row is labelled harmful; take it out of data\.harmful"):
        collect_seeds(DataConfig(harmful=[path]))


def test_the_suites_card_counts_everything() -> None:
    suites = build_suites(DataConfig())
    card = suites_card(suites, DataConfig(), {"laptop": "plan"})
    assert sum(card["prompts"].values()) == sum(card["kinds"].values()) == card["rows"] == len(suites.rows)  # type: ignore[attr-defined]
    assert card["power"] == {"laptop": "plan"} and card["licences"] == {
        "starter": "CC-BY-4.0 (written for this project)"
    }
    assert json.loads(json.dumps(card)) == card


def test_suites_without_rows_have_a_table_too() -> None:
    assert Suites((), {}).table().schema.equals(SUITES_SCHEMA) and Suites((), {}).texts() == ([], [])
