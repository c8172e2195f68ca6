"""The model card as Hugging Face's own parser reads it, and what a hostile name can do to it: nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sparring.errors import CorruptError, UsageError
from sparring.registry import rounds
from sparring.registry.champion import append, read_log
from sparring.report.measures import measures
from sparring.report.model_card import CardFacts, render_card
from sparring.steps.card import card_facts, card_key, promotion_of, write_card
from sparring.steps.entry import execute
from sparring.steps.gate import decision_key, read_record
from sparring.steps.prepare import Base
from sparring.store.canonical import sha256
from tests.pipelines.planted import BETTER, Planted, plant

hub = pytest.importorskip("huggingface_hub", reason="it comes with transformers (extra `train`)")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A line whose first round promoted the packaged model's child."""
    planted = plant(tmp_path_factory.mktemp("card"), BETTER)
    base = Base(source="packaged:smollm2-135m", digest=planted.base)
    planted.store.put("base.json", base.model_dump_json().encode())
    for step in ("gate", "promote"):
        execute(step, planted.request.model_dump_json(), "1")
    return planted


@pytest.fixture(scope="module")
def facts(line: Planted) -> CardFacts:
    return card_facts(line.store, 1)


def test_the_hubs_parser_finds_the_results_of_the_decision(line: Planted, facts: CardFacts) -> None:
    card = hub.ModelCard(write_card(line.store, 1))
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    found = {(r.metric_type, r.dataset_config): r for r in card.data.eval_results}
    expected = measures(facts_table(line))
    for measure in expected:
        kind = {"asr": "harmful", "over_refusal": "benign", "capability": "capability", "degenerate": "all"}
        metric = {"asr": "attack_success_rate", "over_refusal": "over_refusal_rate", "capability": "capability_score",
                  "degenerate": "degenerate_rate"}  # fmt: skip
        result = found.pop((metric[measure.group], f"{kind[measure.group]}/{measure.slice}"))
        assert result.metric_value == pytest.approx(measure.rate.value, abs=1e-6)
        assert f"n = {measure.rate.prompts} prompts" in result.metric_name
        assert f"{measure.rate.low:.1%} to {measure.rate.high:.1%}" in result.metric_name
        assert facts.decision.judge is not None and facts.decision.judge in result.metric_name
        assert result.dataset_revision == facts.suites_digest
    (compliance,) = found.values()
    assert compliance.metric_type == "benign_compliance"
    passed = [row["passed"] for row in facts_table(line).to_pylist() if row["kind"] == "benign"]
    assert compliance.metric_value == pytest.approx(sum(passed) / len(passed), abs=1e-6)
    again = hub.repocard_data.eval_results_to_model_index(card.data.model_name, card.data.eval_results)
    assert again == hub.repocard_data.eval_results_to_model_index(*reparsed(again))


def reparsed(index: list[dict[str, object]]) -> tuple[str, list[object]]:
    name, results = hub.repocard_data.model_index_to_eval_results(index)
    return name, results


def facts_table(line: Planted):  # type: ignore[no-untyped-def]
    from sparring.evaluate.tables import read_verdicts

    return read_verdicts(line.store, read_record(line.store, decision_key(1)).tables["candidate"].key)[0]


def test_the_text_names_what_the_promotion_rests_on(line: Planted) -> None:
    text = write_card(line.store, 1)
    decision = read_record(line.store, decision_key(1))
    rests_on = [line.candidate, line.base, decision.decision.policy_digest, decision.inputs.suites]
    rests_on += [file.sha256 for file in decision.tables.values()]
    rests_on += [sha256(line.store.get(decision_key(1))), decision_key(1)]
    assert all(name in text for name in rests_on)
    assert "record 1" in text and decision.decision.reason.split(":")[0] in text
    for heading in ("Why it was promoted", "What was measured", "trained on", "Limits and risks", "How to check it"):
        assert f"\n## {heading}" in text or heading in text
    assert "also played the attacker" in text
    assert line.request.store not in text and "/tmp" not in text


def test_it_is_written_once_and_says_the_same(line: Planted) -> None:
    text = write_card(line.store, 1)
    line.store.delete(card_key(1))
    assert write_card(line.store, 1) == text == line.store.get(card_key(1)).decode()
    log = read_log(line.store)  # a card beside the log is no record
    assert promotion_of(log, line.candidate).number == 1
    with pytest.raises(UsageError, match="never promoted"):
        promotion_of(log, line.base)
    for number in (0, 2):
        with pytest.raises(UsageError, match=f"record {number} of"):
            write_card(line.store, number)


def test_a_table_that_changed_makes_no_card(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    for step in ("gate", "promote"):
        execute(step, planted.request.model_dump_json(), "1")
    store, key = planted.store, "rounds/000001/judge/{}.parquet"
    store.put(key.format("candidate"), store.get(key.format("champion")))
    store.delete(card_key(1))  # written with the promotion
    with pytest.raises(CorruptError, match="the decision was made on"):
        write_card(store, 1)
    assert not store.exists(card_key(1))


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    """No base record, no data cards, no run file, and a base that is a folder of this machine."""
    planted = plant(tmp_path, BETTER)
    for step in ("gate", "promote"):
        execute(step, planted.request.model_dump_json(), "1")
    for key in planted.store.list("configs/"):
        planted.store.delete(key)
    assert card_facts(planted.store, 1).line == "unknown"
    assert hub.ModelCard(write_card(planted.store, 1)).data.license is None
    planted.store.delete(card_key(1))
    planted.store.put("base.json", Base(source=f"{tmp_path}/my-model", digest=planted.base).model_dump_json().encode())
    text = write_card(planted.store, 1)
    assert "my-model" in text and str(tmp_path) not in text and hub.ModelCard(text).data.base_model is None


def test_a_hold_has_no_card(tmp_path: Path) -> None:
    planted = plant(tmp_path, BETTER)
    append(planted.store, expected_head=0, kind="hold", actor="a", round=1, decision="REJECT", reason="x")
    with pytest.raises(UsageError, match="is no promotion"):
        write_card(planted.store, 1)
    assert rounds.last_round(planted.store) == 1


def test_an_override_is_said_loudly(facts: CardFacts) -> None:
    text = render_card(replace(facts, override="ann: the *old* one leaks"))
    assert "**The gate said PROMOTE; a person promoted it all the same**" in text and "ann: the \\*old\\*" in text
    assert "all the same" not in render_card(facts)


HOSTILE = st.text("ab |`\n#-*[]()<>:!&\\_\u202e\u00e9'\"{}", max_size=40)


@settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # a failing card shrinks for minutes
@given(name=HOSTILE, reason=HOSTILE, suite=HOSTILE, judge=HOSTILE)
def test_no_name_breaks_the_card(facts: CardFacts, name: str, reason: str, suite: str, judge: str) -> None:
    """The metadata reads back, no line of text begins something, no table gets a column."""
    decision = facts.decision.model_copy(update={"reason": reason, "judge": judge, "policy": name})
    changed = replace(facts, line=name, decision=decision, suites={"harmful": [suite]}, data={name: reason})
    text = render_card(changed)
    card, plain = hub.ModelCard(text), hub.ModelCard(render_card(facts))
    assert len(card.data.eval_results) == len(plain.data.eval_results)
    assert "<" not in card.text.replace("&lt;", "")
    assert headings(card.text)[1:] == headings(plain.text)[1:]
    for line in card.text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)
            assert len(cells) in (4, 8, 9)


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]
