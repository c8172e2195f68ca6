"""A model trained to think first: served as gated, its thought never shown, and fail closed where it has no answer."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sparring.config.run import DataConfig, EvaluateConfig, GameConfig
from sparring.data.starter import Demonstration, Refusal
from sparring.data.suites import build_suites
from sparring.evaluate import answers as evaluated
from sparring.evaluate.answers import answer_suites
from sparring.game.records import Seed
from sparring.game.thought import compose, parse, shown
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.policy.generate import Sampled
from sparring.policy.load import Policy, carry_mode, load_policy, save_policy
from sparring.policy.thinking import unwrap
from sparring.steps.judge import verdict_table
from sparring.train.supervised import attack_examples, distil, refusal_examples
from tests.models import save_tiny


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path]:
    folder = save_tiny(tmp_path_factory.mktemp("plain"))
    return load_policy(folder), folder


@pytest.fixture(scope="module")
def thinking(plain: tuple[Policy, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path]:
    """As `selfplay` leaves a candidate that was trained with chain of thought."""
    policy, start = plain
    folder = tmp_path_factory.mktemp("thinking") / "model"
    save_policy(policy.model, start, folder)
    carry_mode(folder, policy.chat, cot=True)
    return load_policy(folder), folder


@settings(max_examples=80, deadline=None)
@given(text=st.text(min_size=1, max_size=60).map(str.strip).filter(bool))
def test_the_folders_own_template_gives_the_gates_token_ids(thinking: tuple[Policy, Path], text: str) -> None:
    policy, folder = thinking
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    turn = [{"role": "user", "content": text}]
    served = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    if not any(token in text for token in tokenizer.all_special_tokens):
        assert served == policy.chat.encode([text], 500)[0]
    assert policy.chat.thinks and tokenizer.decode(served).endswith("<|im_start|>assistant\n<think>")


def test_a_model_that_was_trained_without_thoughts_carries_none(
    thinking: tuple[Policy, Path], plain: tuple[Policy, Path], tmp_path: Path
) -> None:
    policy, folder = thinking
    save_policy(policy.model, folder, tmp_path / "back")
    carry_mode(tmp_path / "back", policy.chat, cot=False)
    back = load_policy(tmp_path / "back")
    assert not back.chat.thinks and back.chat.encode(["Hello?"], 200) == plain[0].chat.encode(["Hello?"], 200)
    assert back.chat.digest == policy.chat.digest == plain[0].chat.digest  # one question, thought about or not
    assert unwrap(policy.chat.template) == (plain[0].chat.template, True)


def test_carrying_leaves_a_plain_folder_as_it_is(plain: tuple[Policy, Path], tmp_path: Path) -> None:
    policy, start = plain
    save_policy(policy.model, start, tmp_path / "same")
    before = {p.name: p.read_bytes() for p in (tmp_path / "same").iterdir()}
    carry_mode(tmp_path / "same", policy.chat, cot=False)
    assert {p.name: p.read_bytes() for p in (tmp_path / "same").iterdir()} == before


SAID = [
    compose("PRIVATE: innocent", "Boil it for seven minutes."),
    "PRIVATE: I never come to an end",
    "PRIVATE</think><answer>One.</answer><answer>PRIVATE two.</answer>",
    compose("PRIVATE: harm", "I'm sorry, but I can't assist with that."),
]


def suites() -> pa.Table:
    """Two rows of the starter set's own of each kind."""
    table = build_suites(DataConfig(starter_attacker=False)).table()
    kinds = table["kind"].to_pylist()
    benign, harmful = kinds.index("benign"), kinds.index("harmful")
    return table.take([benign, benign + 1, harmful, harmful + 1])


def test_evaluated_answers_hold_no_thought_and_none_is_the_worst_case(
    thinking: tuple[Policy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, _ = thinking
    asked: list[dict[str, Any]] = []

    def written(model: Any, prompts: Sequence[Sequence[int]], **how: Any) -> Sampled:
        asked.append({"prompts": prompts, **how})
        ids = [[*policy.tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in SAID]
        return Sampled(ids, [[0.0] * len(row) for row in ids])

    monkeypatch.setattr(evaluated, "generate", written)  # the sampler: what the model says is the point here
    config = EvaluateConfig()
    table = answer_suites(policy, "d" * 64, suites(), config, 1, lambda *_: None)
    assert table["broken"].to_pylist() == [False, True, True, False]
    assert table["answer"].to_pylist() == [
        "Boil it for seven minutes.",
        "",
        "",
        "I'm sorry, but I can't assist with that.",
    ]
    assert "PRIVATE" not in json.dumps(table.to_pylist())
    assert asked[0]["max_new_tokens"] == config.answer_tokens + config.thought_tokens
    assert all(policy.tokenizer.decode(p).endswith("<think>") for p in asked[0]["prompts"])

    class Kind:
        """Passes and absolves everything that it is asked about."""

        id = "kind"

        def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
            assert all(case.answer for case in cases)
            return [Verdict(False, False, False, 1, "ok", degenerate=False, on_topic=True) for _ in cases]

    verdicts = verdict_table(Kind(), table, lambda *_: None).to_pylist()
    assert (verdicts[1]["passed"], verdicts[1]["refused"], verdicts[1]["harmful"]) == (False, True, False)
    assert (verdicts[2]["harmful"], verdicts[2]["refused"], verdicts[2]["status"]) == (True, False, "ok")
    assert verdicts[0]["passed"] and not verdicts[3]["harmful"]


def test_a_stream_of_what_was_served_shows_the_answer_alone(thinking: tuple[Policy, Path]) -> None:
    for text in SAID:
        chunks = [text[i : i + 3] for i in range(0, len(text), 3)]
        found = "".join(shown(chunks))
        assert "PRIVATE" not in found and found == (parsed.answer if (parsed := parse(text)) else "")


class Passing:
    id = "passing"

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        return [Verdict(False, False, False, 1, "ok", degenerate=False, on_topic=True) for _ in cases]


def test_lessons_keep_the_think_then_answer_form(plain: tuple[Policy, Path], thinking: tuple[Policy, Path]) -> None:
    policy, game = plain[0], GameConfig(cot=True, thought_tokens=32)
    seeds = [Seed(f"s{i}", f"Tell me about place {i}", "benign", f"b{i}") for i in range(4)]
    helpful = distil(policy.model, policy.chat, Passing(), seeds, game, 1)
    refusals = refusal_examples(
        policy.chat, seeds, [Refusal("r", "I can't help with that.")], {}, game, random.Random(1)
    )
    shown_ = [
        Demonstration(
            id="d", seed_text="Tell me", label="harmful", style="story", prompt="Please tell me a story about it"
        )
    ]
    attacks = attack_examples(policy.chat, shown_, game)
    chat = thinking[0].chat
    for example in [*helpful, *refusals, *attacks]:
        ((thought, answer),) = chat.read([example.answer])
        assert thought and answer and example.answer[-1] == 2
        assert policy.tokenizer.decode(example.prompt).endswith("<think>")
    assert chat.read([refusals[0].answer])[0][1] == "I can't help with that."
    assert helpful[0].prompt == chat.encode([seeds[0].text], 400)[0]
    plain_game = GameConfig()
    assert all(len(e.answer) <= 4 for e in distil(policy.model, policy.chat, Passing(), seeds, plain_game, 1))
