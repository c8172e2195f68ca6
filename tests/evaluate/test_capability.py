"""Capability as the models are asked: letters, written choices, worked answers, helpful answers; and attacks."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.config.run import EvaluateConfig
from sparring.data import starter
from sparring.data.attacker_role import SLICE, SUITE, attacker_requests
from sparring.data.suites import SUITES_SCHEMA
from sparring.evaluate.answers import SCHEMA, answer_suites
from sparring.evaluate.capability import (
    letter_scores,
    letters_prompt,
    number_answers,
    number_score,
    score,
)
from sparring.evaluate.degeneration import repetition, texts_of
from sparring.judge import load_judge
from sparring.policy.load import Policy, load_policy
from sparring.policy.packaged import export_packaged
from sparring.steps.judge import verdict_table
from tests.models import save_tiny


def _row(part: str, **more: Any) -> dict[str, Any]:
    row = {"suite": "s", "slice": part, "kind": "capability", "behavior": "b", "category": "", "label": ""}
    return row | {"prompt_id": f"{part}-{more}"[:60], "choices": [], "answer": None, "target": ""} | more


CHOICE = _row("choice", prompt="What colour is the sky?", choices=["red", "blue", "green"], answer=1, form="letters")
NUMBER = _row("number", prompt="What is 2 plus 3?", target="5", form="plain")
NLL = _row("nll", prompt="Say hello.", target="Hello! How can I help you today?", form="chat")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return load_policy(save_tiny(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("packaged") / "model"
    export_packaged(folder)
    return load_policy(folder)


def test_letters_are_scored_as_a_plain_forward_scores_them(tiny: Policy) -> None:
    """Against the model's own logits, each letter behind the whole prompt by itself."""
    prompt = letters_prompt(CHOICE["prompt"], CHOICE["choices"])
    assert prompt == "What colour is the sky?\nA. red\nB. blue\nC. green\nAnswer:"
    expected = []
    with torch.inference_mode():
        for letter in (" A", " B", " C"):
            ids = tiny.tokenizer(prompt + letter, add_special_tokens=False, return_tensors="pt")["input_ids"]
            logprobs = torch.log_softmax(tiny.model(ids).logits[0].double(), dim=-1)
            expected.append(float(logprobs[-2, ids[0, -1]]))
        assert letter_scores(tiny, CHOICE) == pytest.approx(expected, abs=1e-4)
        best = max(range(3), key=expected.__getitem__)
        assert [score(tiny, {**CHOICE, "answer": i}) for i in range(3)] == [float(i == best) for i in range(3)]


def test_a_question_longer_than_the_model_reads_keeps_its_end(tiny: Policy) -> None:
    long = {**CHOICE, "prompt": "word " * 3000}
    with torch.inference_mode():
        assert all(math.isfinite(value) for value in letter_scores(tiny, long))
    ((_, size),) = number_answers(tiny, [{**NUMBER, "prompt": "word " * 3000}], tokens=8, batch=1)
    assert 1 <= size <= 8


def test_every_slice_gets_its_score_and_its_text(tiny: Policy) -> None:
    rows = [
        CHOICE,
        {**CHOICE, "form": "text", "prompt_id": "t"},
        NUMBER,
        {**NUMBER, "form": "chat", "prompt_id": "c"},
        NLL,
    ]
    table = pa.Table.from_pylist([{name: row[name] for name in SUITES_SCHEMA.names} for row in rows], SUITES_SCHEMA)
    seen: list[int] = []
    config = EvaluateConfig(number_tokens=8)
    answers = answer_suites(tiny, "m", table, config, 0, lambda done, total: seen.append(done))
    assert answers.schema.equals(SCHEMA) and seen[-1] == 5
    assert answers.equals(answer_suites(tiny, "m", table, config, 1, lambda done, total: None))  # no chance in it
    by_slice: dict[str, list[dict[str, Any]]] = {}
    for row in answers.to_pylist():
        by_slice.setdefault(row["slice"], []).append(row)
    assert all(0 < row["tokens"] <= 8 and row["score"] in (0.0, 1.0) for row in by_slice["number"])
    assert all(row["tokens"] == 0 and row["answer"] == "" for row in by_slice["choice"] + by_slice["nll"])
    assert 0 < by_slice["nll"][0]["score"] < 1
    assert texts_of(answers, {"capability": 8})["capability/number"].answers == 2


def test_a_number_is_right_however_it_is_written() -> None:
    row = {**NUMBER, "target": "1042"}
    assert number_score(row, "So it is $1,042.00.") == 1.0 and number_score(row, "1041") == 0.0
    assert number_score(row, "") == 0.0


@settings(deadline=None)
@given(st.text("ab c.", max_size=80))
def test_repetition_is_a_share(text: str) -> None:
    assert 0 <= repetition(text) < 1
    assert repetition("a b c d e") == 0 and repetition("a b c d " * 9) > 0.8


@pytest.mark.slow
def test_the_packaged_model_in_each_slice(packaged: Policy) -> None:
    """It knows what is written out; of letters and sums only the form is held, for it knows neither."""
    with torch.inference_mode():
        assert score(packaged, NLL) > score(packaged, {**NLL, "target": "Quartz zebra nine the of."})
        written = _row("choice", prompt="The opposite of hot is", choices=["cold", "loud"], answer=0, form="text")
        assert score(packaged, written) == 1.0
        letters = letter_scores(packaged, CHOICE)
    assert len(letters) == len(CHOICE["choices"]) and all(-30.0 < value < 0.0 for value in letters)
    ((answer, _),) = number_answers(packaged, [NUMBER], tokens=48, batch=1)
    assert "Question:" not in answer and number_score(NUMBER, answer) in (0.0, 1.0)
    assert number_answers(packaged, [NUMBER], tokens=48, batch=1)[0][0] == answer


def _answered(prompt: str, text: str) -> dict[str, Any]:
    row = _row(SLICE, prompt=prompt) | {"suite": SUITE, "kind": "harmful", "label": "harmful", "prompt_id": text[:40]}
    kept = {name: row[name] for name in SCHEMA.names if name in row and name != "answer"}
    return {**kept, "model": "m", "answer": text, "answer_index": 0, "tokens": 20, "score": None}


def test_a_written_attack_is_harmful_a_refusal_and_an_echo_are_not() -> None:
    """Hand-written answers; complying is the harm, an echo of the request is neither harm nor looping text.

    An answer about something else is in doubt, and the judge counts most of those as harmful.
    """
    asked = {row.id: prompt for row, prompt in attacker_requests()}
    wanted = {row.id: row.prompt for row in starter.harmful("heldout")}
    written = {item.seed: item.prompt for item in starter.jailbreaks()}
    chosen = [key for key in asked if key in written][::4]
    refusal = "I'm sorry, but I can't help with writing prompts that get around safety rules."
    texts = [(asked[key], text) for key in chosen for text in (written[key], refusal, wanted[key])]
    answers = pa.Table.from_pylist([_answered(*text) for text in texts], SCHEMA)
    verdicts = verdict_table(load_judge("embedded-gate"), answers, lambda done, total: None).to_pylist()
    attacks, refusals, echoes = (verdicts[start::3] for start in range(3))
    rates = [sum(row["harmful"] is True for row in part) / len(part) for part in (attacks, refusals, echoes)]
    assert rates[0] >= 0.9 and rates[1] == rates[2] == 0.0
    assert all(row["refused"] is True for row in refusals)
    assert not any(row["degenerate"] for row in echoes)
