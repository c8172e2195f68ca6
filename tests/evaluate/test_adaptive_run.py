"""Adaptive evaluation of real (tiny, random) models: equal budgets, frozen tries, a search that hears one judge."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from sparring.config.run import DataConfig, EvaluateConfig
from sparring.data.suites import build_suites
from sparring.errors import CorruptError, StoreError
from sparring.evaluate.adaptive.attacker import Feedback, refine_prompt
from sparring.evaluate.adaptive.attacks import Attack, read_attacks
from sparring.evaluate.adaptive.run import AdaptiveRun, Models, Plan
from sparring.evaluate.adaptive.target import answer_attacks
from sparring.evaluate.answers import SCHEMA as ANSWERS
from sparring.game.prompts import attacker_prompt
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.policy.load import Policy, load_policy
from sparring.store import Store, open_store
from sparring.store.datasets import load_table, save_table
from sparring.store.local import LocalStore
from tests.models import save_tiny

pytestmark = pytest.mark.timeout(300)  # a busy machine takes long to make the tokenizer
METHODS = ["attacker", "best_of_n", "pair", "prefill", "multi_turn"]
CANDIDATE, CHAMPION = "a" * 64, "b" * 64


@dataclass
class Scores:
    """A judge that gives every answer one score and keeps what it was shown."""

    score: int | None = 3
    seen: list[JudgeCase] = field(default_factory=list)
    id: str = "scores"

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        self.seen += cases
        if self.score is None:
            return [Verdict.void("test") for _ in cases]
        return [Verdict(True, False, self.score > 2, self.score, "ok") for _ in cases]


@dataclass
class Bench:
    """Two models, the suites, and how many times each model was asked for."""

    policies: dict[str, Policy]
    suites: pa.Table
    asked: Counter[str] = field(default_factory=Counter)

    def policy(self, digest: str) -> Policy:
        self.asked[digest] += 1
        return self.policies[digest]

    def run(self, store: Store, judge: Scores | None = None, seed: int = 7, **adaptive: Any) -> AdaptiveRun:
        small = {"methods": METHODS, "behaviors": 3, "tries": 2, "attack_tokens": 6}
        config = EvaluateConfig.model_validate({"answer_tokens": 5, "adaptive": {**small, **adaptive}})
        suites = save_table(store, self.suites, name="suites", meta={})
        plan = Plan(config, seed, suites, CANDIDATE, "scores")
        return AdaptiveRun(plan, store, "rounds/000001/answer", Models(self.policy, lambda: judge or Scores()))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.set_num_threads(1)
    suites = build_suites(DataConfig()).table()
    first = load_policy(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))
    other = copy.deepcopy(first.model)
    with torch.no_grad():  # another model with the same tokenizer, which takes long to make
        for weights in other.parameters():
            weights.copy_(weights.roll(1, 0))
    tiny = {CANDIDATE: first, CHAMPION: Policy(other, first.tokenizer, first.chat)}
    return Bench(tiny, suites.filter(pa.compute.equal(suites["slice"], "vanilla")).slice(0, 6))


def store_at(folder: Path) -> Store:
    return open_store(str(folder / "store"))


def test_every_model_gets_the_same_tries_with_the_same_limits(bench: Bench, tmp_path: Path) -> None:
    run = bench.run(store_at(tmp_path))
    tables = {model: run.answers(model) for model in (CANDIDATE, CHAMPION)}
    keys = [list(zip(*(t[c].to_pylist() for c in KEYS), strict=True)) for t in tables.values()]
    assert keys[0] == keys[1] and len(set(keys[0])) == len(keys[0]) == 5 * 3 * 2
    for model, table in tables.items():
        assert table.schema.equals(ANSWERS, check_metadata=True) and set(table["model"].to_pylist()) == {model}
        assert Counter(table["slice"].to_pylist()) == {f"adaptive-{name}": 6 for name in METHODS}
        assert max(table["tokens"].to_pylist()) <= 5 and min(table["tokens"].to_pylist()) >= 1
        assert set(table["answer_index"].to_pylist()) == {0, 1}
    texts = [table["answer"].to_pylist() for table in tables.values()]
    assert texts[0] != texts[1]


KEYS = ("suite", "slice", "kind", "prompt_id", "behavior", "label", "prompt", "answer_index")


def test_attacks_are_the_same_for_all_models_but_those_of_pair(bench: Bench, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    run = bench.run(store)
    for model in (CANDIDATE, CHAMPION):
        run.answers(model)
    attacks = read_attacks(load_table(store, run.attacks([CANDIDATE, CHAMPION, CHAMPION])))
    assert Counter((a.method, a.model) for a in attacks) == {
        **{(name, ""): 6 for name in METHODS if name != "pair"},
        ("pair", CANDIDATE): 6,
        ("pair", CHAMPION): 6,
    }
    pair = {(a.model, a.behavior, a.answer_index): a.turns for a in attacks if a.method == "pair"}
    behaviors = [target.behavior for target in run.behaviors]
    assert all(pair[CANDIDATE, name, 0] == pair[CHAMPION, name, 0] for name in behaviors)  # nothing was heard yet
    assert any(pair[CANDIDATE, name, 1] != pair[CHAMPION, name, 1] for name in behaviors)
    assert all(pair[CANDIDATE, name, 0] != pair[CANDIDATE, name, 1] for name in behaviors)


def test_the_same_plan_draws_the_same_and_another_seed_another(bench: Bench, tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        run = bench.run(store_at(tmp_path / name), seed=seed)
        found.append((run.answers(CHAMPION).to_pylist(), run.attacks([CHAMPION])))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1]


def test_what_is_frozen_is_read_back_and_no_model_is_asked_again(bench: Bench, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    first, digest = bench.run(store).answers(CHAMPION), bench.run(store).attacks([CHAMPION])
    bench.asked.clear()
    again = bench.run(store)
    assert again.answers(CHAMPION).equals(first) and again.attacks([CHAMPION]) == digest
    assert not bench.asked


def test_a_damaged_object_is_named(bench: Bench, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    bench.run(store, methods=["prefill"]).answers(CHAMPION)
    (pointer,) = (key for key in store.list("rounds/") if key.endswith("attacks.json"))
    (key, _) = (key for key in store.list("rounds/") if key.endswith(".parquet"))
    store.put(key, store.get(key)[:-20])
    with pytest.raises(CorruptError, match=r"prefill-0\.parquet.*is not readable Parquet"):
        bench.run(store, methods=["prefill"]).answers(CHAMPION)
    store.put(pointer, b"[]")
    with pytest.raises(CorruptError, match=r"attacks\.json.*names no dataset"):
        bench.run(store, methods=["prefill"]).shared()


class Failing(LocalStore):
    """A store that refuses the write after the next `left` new ones, once."""

    left = 0

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not self.exists(key):
            if self.left == 0:
                raise StoreError("pulled the plug")
            self.left -= 1
        return super().put_if_absent(key, data)


def test_stopped_at_every_write_it_goes_on_and_ends_as_if_nothing_had_happened(bench: Bench, tmp_path: Path) -> None:
    small: dict[str, Any] = {"methods": ["attacker", "pair"], "behaviors": 2}
    twin = bench.run(store_at(tmp_path / "twin"), **small)
    wanted = twin.answers(CHAMPION), twin.attacks([CHAMPION])
    stops, store = 0, Failing(tmp_path / "store")
    while True:
        store.left = 1  # one more write than the last time
        run = bench.run(store, **small)
        try:
            found = run.answers(CHAMPION), run.attacks([CHAMPION])
            break
        except StoreError:
            stops += 1
    assert stops >= 4 and found[0].equals(wanted[0]) and found[1] == wanted[1]


def test_a_try_that_somebody_else_froze_first_stands(bench: Bench, tmp_path: Path) -> None:
    """Two runs at once: the second reads what the first wrote, also where it would have drawn otherwise."""
    store = store_at(tmp_path)
    other = bench.run(store, Scores(5), methods=["pair"])
    first = other.answers(CHAMPION)
    assert bench.run(store, Scores(1), methods=["pair"]).answers(CHAMPION).equals(first)


def test_pair_hears_the_reward_judge_of_every_try_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    low, high = Scores(1), Scores(5)
    runs = [bench.run(store_at(tmp_path / str(j.score)), j, tries=3) for j in (low, high)]
    tables = [run.answers(CHAMPION) for run in runs]
    for judge, table in zip((low, high), tables, strict=True):
        rows = [row for row in table.to_pylist() if row["slice"] == "adaptive-pair"]
        assert [(c.prompt, c.answer, c.seed_label) for c in judge.seen] == [
            (row["prompt"], row["answer"], "harmful") for row in rows
        ]
    made = [read_attacks(load_table(run.store, run.attacks([CHAMPION]))) for run in runs]
    told = [[a.turns for a in attacks if a.method == "pair" and a.answer_index] for attacks in made]
    rest = [[a for a in attacks if a.method != "pair"] for attacks in made]
    assert told[0] != told[1] and rest[0] == rest[1]


def test_a_void_score_is_told_as_unknown_and_long_answers_leave_the_request(bench: Bench, tmp_path: Path) -> None:
    run = bench.run(store_at(tmp_path), Scores(None), methods=["pair"])
    assert run.answers(CHAMPION).num_rows == 6
    prompt = refine_prompt("Do it", Feedback("a " * 5000, "b\n" * 5000, None))
    assert prompt.endswith(attacker_prompt("Do it", "harmful")) and "answer: unknown." in prompt and len(prompt) < 1500
    assert "answer: 4 of 5." in refine_prompt("Do it", Feedback("a", "b", 4))


def test_a_begun_answer_is_continued_token_for_token(bench: Bench) -> None:
    """Greedy: Hugging Face's `generate` on the template with `continue_final_message` says the same."""
    policy, config = bench.policies[CHAMPION], EvaluateConfig(answer_tokens=8, temperature=0)
    attack = Attack("prefill", "p", "b", "", "Name three rivers.", 0, ("Name three rivers.",), "Sure, here is")
    (ours,) = answer_attacks(policy, [attack], config, 0)
    chat = [{"role": "user", "content": attack.turns[0]}, {"role": "assistant", "content": attack.prefill}]
    ids = policy.tokenizer.apply_chat_template(chat, continue_final_message=True, return_tensors="pt", return_dict=True)
    theirs = policy.model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert ours.text == (attack.prefill + policy.tokenizer.decode(theirs, skip_special_tokens=True)).strip()
    assert ours.tokens == len(theirs)
    (plain,) = answer_attacks(policy, [replace(attack, prefill="")], config, 0)
    assert not plain.text.startswith(attack.prefill)


def test_later_turns_are_asked_behind_the_models_own_answers(bench: Bench) -> None:
    """Greedy: Hugging Face's `generate`, turn by turn on the growing template, ends with the same answer."""
    policy, config = bench.policies[CHAMPION], EvaluateConfig(answer_tokens=6, temperature=0)
    turns = ("First part: rivers.", "Second part: and lakes.", "Now answer.")
    attack = Attack("multi_turn", "p", "b", "", "rivers and lakes", 0, turns)
    short = replace(attack, turns=turns[:1])
    ours = answer_attacks(policy, [attack, short], config, 0)
    chat: list[dict[str, str]] = []
    for turn in turns:
        chat.append({"role": "user", "content": turn})
        ids = policy.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        found = policy.model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
        said = policy.tokenizer.decode(found, skip_special_tokens=True).strip()
        chat.append({"role": "assistant", "content": said})
        if turn == turns[0]:
            assert ours[1].text == said
    assert ours[0].text == said
