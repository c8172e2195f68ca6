"""Real public evaluation files are read as they are, and the starter set trains on nothing near them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparring.config.run import DataConfig, SuiteSource
from sparring.data import starter
from sparring.data.hygiene import shared_ngrams
from sparring.data.load import load_prompts
from sparring.data.neighbours import main, neighbours, public_texts, training_texts
from sparring.data.suites import build_suites
from sparring.embedding import default_embedder
from sparring.errors import DataError

ROOT = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data").resolve()

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no public files at {ROOT} (SPARRING_BENCHMARK_DATA)")


@pytest.mark.parametrize(
    ("name", "rows", "labels"),
    [
        ("harmbench/harmbench_behaviors_text_test.csv", 320, {None}),
        ("harmbench", 400, {None}),
        ("strongreject/strongreject_dataset.csv", 313, {None}),
        ("xstest/xstest_prompts.csv", 450, {"benign", "harmful"}),
        ("xstest/xstest_v2_completions_gpt4.csv", 450, {"benign", "harmful"}),
        ("or_bench/or_bench-hard-1k.csv", 1319, {None}),
        ("or_bench/or_bench-toxic.csv", 655, {None}),
        ("wildjailbreak_eval/harmful.jsonl", 2000, {None}),
        ("wildjailbreak_eval/benign.jsonl", 250, {None}),
        ("gsm8k/test.jsonl", 1319, {None}),
    ],
)
def test_public_files_are_read_whole(name: str, rows: int, labels: set[str | None]) -> None:
    for adversarial in (False, True):
        found = load_prompts(str(ROOT / name), adversarial=adversarial, max_chars=4000)
        assert len(found) == rows and {row.label for row in found} == labels
        assert ("wildjailbreak" in name and adversarial) == any(row.prompt != row.intent for row in found[:1])


def test_a_file_of_completions_has_its_prompts_labels() -> None:
    labels = {
        name: {row.prompt: row.label for row in load_prompts(str(ROOT / "xstest" / name), max_chars=4000)}
        for name in ("xstest_prompts.csv", "xstest_v2_completions_gpt4.csv")
    }
    prompts, completed = labels.values()
    assert len(prompts.keys() & completed.keys()) > 400
    assert all(prompts[text] == completed[text] for text in prompts.keys() & completed.keys())


def test_a_prompt_over_the_limit_is_named_with_its_row() -> None:
    with pytest.raises(DataError, match=r"mmlu.test\.jsonl: row 447, column 'question': 4509 characters, at most 4000"):
        load_prompts(str(ROOT / "mmlu"), max_chars=4000)
    assert len(load_prompts(str(ROOT / "mmlu"), max_chars=5000)) == 2850


def test_wildjailbreak_is_clustered_with_harmbench() -> None:
    def suite(name: str, path: str, part: str) -> SuiteSource:
        return SuiteSource(name=name, path=str(ROOT / path), kind="harmful", slice=part)

    wild = suite("wild", "wildjailbreak_eval/harmful.jsonl", "adversarial")
    config = DataConfig(starter_suites=False, suites=[suite("harmbench", "harmbench", "vanilla"), wild])
    rows = build_suites(config).rows
    behaviors = {name: {row.behavior for row in rows if row.suite == name} for name in ("harmbench", "wild")}
    assert len(behaviors["wild"]) == 200 and behaviors["wild"] <= behaviors["harmbench"]


def test_the_starter_set_shares_no_eight_words_with_any_public_prompt() -> None:
    public = list(public_texts([str(ROOT)]))
    assert len(public) > 9000
    assert shared_ngrams([text for _, text in training_texts()], public, 8) == {}


def test_the_harmful_seeds_are_not_near_harmbench() -> None:
    """Its validation set; every training text against every public prompt takes minutes, in the slow test."""
    public = public_texts([str(ROOT / "harmbench/harmbench_behaviors_text_val.csv")])
    training = [(seed.id, seed.text) for seed in starter.seeds("train") if seed.label == "harmful"]
    rows = neighbours(training, public, default_embedder().embed)
    assert rows[0].cosine < 0.8 and not any(row.too_near for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_starter_set_is_near_no_public_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT)]) == 0
    assert "; 0 too near" in capsys.readouterr().out.splitlines()[-1]


def test_a_copied_prompt_would_be_found() -> None:
    public = public_texts([str(ROOT / "strongreject/strongreject_small_dataset.csv")])
    copied = [("x", next(iter(public))), ("y", "Where do swallows spend the winter?")]
    rows = neighbours(copied, public, default_embedder().embed)
    assert [row.too_near for row in rows] == [True, False]
