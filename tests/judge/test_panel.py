"""Panels: what is decided without a missing judge, which way a tie goes, and agreement against statsmodels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from sparring.config.judges import EMBEDDED, JudgeConfig
from sparring.errors import ConfigError
from sparring.judge import load_gate_judge, load_reward_judge
from sparring.judge.agreement import cohen, fleiss
from sparring.judge.panel import Combine, Panel, combined, decide
from sparring.judge.protocol import JudgeCase, SeedLabel, Verdict

VOTES = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=6)
RULES: tuple[Combine, ...] = ("majority", "any")
BOTH = frozenset({"refused", "harmful"})


def ok(refused: bool | None = None, harmful: bool | None = None, **more: Any) -> Verdict:
    return Verdict(None, refused, harmful, more.pop("score", None), "ok", **more)


VOID = Verdict.void("time-out")


def case(label: SeedLabel | None) -> JudgeCase:
    return JudgeCase("prompt", "answer", label)


@given(votes=VOTES, combine=st.sampled_from(RULES), worse=st.booleans())
def test_an_outcome_stands_exactly_when_no_missing_vote_could_turn_it(
    votes: list[bool | None], combine: Combine, worse: bool
) -> None:
    """Brute force over everything that the missing judges might have said."""
    fillings = itertools.product([True, False], repeat=votes.count(None))
    outcomes = set()
    for filling in fillings:
        rest = iter(filling)
        outcomes.add(decide([next(rest) if vote is None else vote for vote in votes], combine, worse=worse))
    assert decide(votes, combine, worse=worse) == (outcomes.pop() if len(outcomes) == 1 else None)


@given(votes=st.lists(st.booleans(), min_size=1, max_size=6), worse=st.booleans())
def test_any_needs_one_and_majority_more_than_half(votes: list[bool], worse: bool) -> None:
    assert decide(votes, "any", worse=worse) is (worse if worse in votes else not worse)
    yes = sum(votes)
    expected = worse if 2 * yes == len(votes) else 2 * yes > len(votes)
    assert decide(votes, "majority", worse=worse) is expected


@given(
    votes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4),
    label=st.sampled_from(["harmful", "benign"]),
    combine=st.sampled_from(RULES),
    lost=st.integers(0, 3),
)
def test_losing_a_judge_never_makes_an_answer_look_better(
    votes: list[tuple[bool, bool]], label: SeedLabel, combine: Combine, lost: int
) -> None:
    members = {f"j{i}": ok(refused, harmful) for i, (refused, harmful) in enumerate(votes)}
    says = dict.fromkeys(members, BOTH)
    whole = combined(case(label), members, says, combine)
    less = combined(case(label), {**members, f"j{lost % len(members)}": VOID}, says, combine)
    assert whole.ok
    if less.ok:
        assert less.refused == whole.refused
        assert less.harmful == whole.harmful or (label == "benign" and less.harmful is None)


def test_a_judge_votes_only_on_what_it_can_say() -> None:
    says = {"guard": frozenset({"harmful"}), "string-match": EMBEDDED["string-match"]}
    members = {"guard": ok(harmful=False), "string-match": ok(refused=False, harmful=True)}
    found = combined(case("harmful"), members, says, "any")
    assert (found.ok, found.refused, found.harmful) == (True, False, False)
    assert not combined(case("harmful"), {**members, "guard": VOID}, says, "any").ok
    assert not combined(case("benign"), {**members, "string-match": VOID}, says, "any").ok
    benign = combined(case("benign"), {**members, "guard": VOID}, says, "any")  # harm says nothing about benign rows
    assert (benign.ok, benign.harmful, benign.benign_pass) == (True, None, True)


def test_a_tie_goes_to_the_worse_outcome() -> None:
    members = {"a": ok(True, False), "b": ok(False, True)}
    says = dict.fromkeys(members, BOTH)
    harmful, benign = (combined(case(label), members, says, "majority") for label in ("harmful", "benign"))
    assert (harmful.refused, harmful.harmful) == (False, True)
    assert (benign.refused, benign.benign_pass) == (True, False)
    assert not combined(case(None), members, says, "majority").ok  # which way is worse is not known


def test_off_topic_and_degenerate_count_against_the_answer() -> None:
    says = {"a": BOTH | {"on_topic"}, "b": BOTH}
    members = {"a": ok(False, False, on_topic=False, degenerate=False), "b": ok(False, False, degenerate=False)}
    assert not combined(case("benign"), members, says, "majority").benign_pass
    members = {"a": VOID, "b": ok(False, False, degenerate=False)}
    assert not combined(case("benign"), members, says, "any").ok  # the topic is not known
    members = {"a": ok(False, False, on_topic=True, degenerate=True), "b": ok(False, False, degenerate=False)}
    assert combined(case("benign"), members, says, "majority").degenerate is True


def test_all_void_is_void_and_says_why() -> None:
    found = combined(case("harmful"), {"a": VOID, "b": VOID}, {"a": BOTH, "b": BOTH}, "majority")
    assert not found.ok and "a: time-out" in found.reason and "b: time-out" in found.reason


# --- agreement ----------------------------------------------------------------------------------------------------

TABLES = st.integers(2, 5).flatmap(
    lambda judges: st.lists(st.lists(st.integers(0, 1), min_size=judges, max_size=judges), min_size=2, max_size=40)
)


@given(TABLES)
def test_kappas_are_those_of_statsmodels(rows: list[list[int]]) -> None:
    ratings = np.array(rows, dtype=float)
    table = np.array([[np.sum((ratings[:, 0] == i) & (ratings[:, 1] == j)) for j in (0, 1)] for i in (0, 1)])
    mine = cohen(ratings[:, 0], ratings[:, 1])
    if mine is not None:
        assert mine == pytest.approx(cohens_kappa(table, return_results=False))
    all_of_them = fleiss(ratings)
    if all_of_them is None:
        assert len(np.unique(ratings)) == 1
    else:
        assert all_of_them == pytest.approx(fleiss_kappa(aggregate_raters(ratings.astype(int))[0]))


def test_kappa_leaves_out_what_a_judge_did_not_judge() -> None:
    nan = float("nan")
    assert cohen([1, 0, 1, 0, nan, 1], [1, 0, 1, 0, 1, nan]) == 1.0
    assert cohen([nan], [1.0]) is None and cohen([1, 1], [1, 1]) is None
    assert fleiss(np.array([[1, 1, nan], [nan, 0, 0]])) is None


class Fixed:
    """A judge that has made up its mind."""

    def __init__(self, name: str, verdicts: Sequence[Verdict]) -> None:
        self.id, self._verdicts = name, list(verdicts)

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        return self._verdicts[: len(cases)]


def test_a_panel_reports_agreement_by_pair_and_over_all() -> None:
    yes, no = ok(True, False), ok(False, True)
    judges = {
        "a": Fixed("a@1", [yes, no, yes, no]),
        "b": Fixed("b@1", [yes, no, yes, no]),
        "c": Fixed("c@1", [yes, yes, no, no]),
    }
    panel = Panel(judges, dict.fromkeys(judges, BOTH), "majority")
    verdicts = panel.judge([case("harmful"), case("harmful"), case("benign"), case("benign")])
    assert [v.refused for v in verdicts] == [True, False, True, False]
    found = panel.agreement()
    assert found["refused a~b"] == 1.0 and found["refused a~c"] == 0.0
    assert set(found) >= {"refused fleiss", "harmful fleiss", "harmful a~c"}
    assert panel.id.startswith("majority(a+b+c)@")
    assert panel.id != Panel(judges, dict.fromkeys(judges, BOTH), "any").id
    swapped = {**judges, "c": Fixed("c@2", [])}
    assert panel.id != Panel(swapped, dict.fromkeys(judges, BOTH), "majority").id


# --- configuration ------------------------------------------------------------------------------------------------

LG = {"format": "llama_guard", "base_url": "http://127.0.0.1:9/v1", "model": "meta-llama/Llama-Guard-3-8B"}


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"gate": "lg"}, "cannot say refused"),
        ({"gate": ["string-match", "lgg"]}, "did you mean `lg`"),
        ({"gate": []}, "names no judge"),
        ({"gate": ["lg", "lg"]}, "twice"),
        ({"reward": "lg"}, "cannot say prompt_harmful and refused"),
        ({"reward": "string-match"}, "cannot say harmful and prompt_harmful"),
    ],
)
def test_judges_that_could_never_be_gated_are_refused_in_one_line(section: dict[str, Any], why: str) -> None:
    config = JudgeConfig.model_validate({"endpoints": {"lg": LG}, **section})
    with pytest.raises(ConfigError, match=why) as caught:
        load_gate_judge(config)
    with pytest.raises(ConfigError):
        load_reward_judge(config)
    assert "\n" not in str(caught.value)


def test_a_panel_is_made_of_the_judges_that_are_named() -> None:
    config = JudgeConfig.model_validate({"endpoints": {"lg": LG}, "gate": ["lg", "string-match"], "combine": "any"})
    panel = load_gate_judge(config)
    assert isinstance(panel, Panel) and list(panel.judges) == ["lg", "string-match"] and panel.combine == "any"
    assert (
        load_gate_judge(JudgeConfig(gate="string-match")).id == load_gate_judge(JudgeConfig(gate=["string-match"])).id
    )


@pytest.mark.parametrize(
    ("model", "name", "family"),
    [
        ("allenai/wildguard", "wildguard", "mistral"),
        ("Qwen/Qwen3Guard-Gen-4B", "qwen3guard", "qwen"),
        ("cais/HarmBench-Mistral-7b-val-cls", "harmbench", "mistral"),
        ("guard", "llama_guard", "llama"),
        ("house-model", "graded", "house-model"),
    ],
)
def test_a_familys_name_is_the_base_model(model: str, name: str, family: str) -> None:
    endpoint = {"format": name, "base_url": "http://h/v1", "model": model}
    assert JudgeConfig.model_validate({"endpoints": {"x": endpoint}}).family("x") == family
    assert JudgeConfig().family("embedded-gate") == JudgeConfig().family("embedded-reward")
