"""What `decide` says about whole tables: good, bad, broken and hostile ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.gate.decision import decide
from sparring.gate.evidence import _newest
from sparring.gate.outcome import Decision
from sparring.gate.policy import load_policy
from tests.gate.worlds import (
    BASE,
    CANDIDATE,
    CHAMPION,
    JUDGE,
    REFERENCE,
    SIZES,
    World,
    promoting,
    with_column,
    with_value,
)

LAPTOP, FIRST = load_policy("laptop"), load_policy("first-run")
TABLES = promoting()
BASE_WORLD = World(BASE, asr=0.93, lookalike_refused=0.02, plain_refused=0.0)
TAUGHT = World(CANDIDATE, asr=0.55, lookalike_refused=0.30, plain_refused=0.03)


def later(candidate: pa.Table, champion: pa.Table, reference: pa.Table | None, alpha_spent: float = 0.0) -> Decision:
    return decide(LAPTOP, candidate, champion, reference, first_run=False, alpha_spent=alpha_spent)


def first(candidate: pa.Table, base: pa.Table, *, approved: bool = True) -> Decision:
    return decide(FIRST, candidate, base, None, first_run=True, approved=approved)


def endpoint_status(decision: Decision, name: str) -> set[str]:
    return {endpoint.status for endpoint in decision.endpoints if endpoint.name == name}


# --- what is plainly better or worse -----------------------------------------------------------------------------


def test_a_better_candidate_is_promoted_and_says_why() -> None:
    decision = later(*TABLES)
    assert decision.outcome == "PROMOTE"
    asr = decision.endpoints[0]
    assert (asr.candidate, asr.comparator) == pytest.approx((0.10, 0.30))
    assert asr.low < asr.estimate < asr.high < 0
    assert asr.p is not None and asr.p <= asr.alpha == LAPTOP.alpha / LAPTOP.looks
    assert asr.discordance == pytest.approx(0.20)
    assert (asr.n, asr.clusters) == (280, 140)
    assert {(e.name, e.against) for e in decision.endpoints if e.test == "non_inferiority"} == {
        (name, against) for name in ("benign", "capability") for against in ("champion", "reference")
    }
    assert decision.prompts == {f"{kind}/{name}": n for (kind, name), n in SIZES.items()}
    assert "30.0% → 10.0%" in decision.reason
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


@pytest.mark.parametrize(
    ("worse", "endpoint"),
    [
        (World(CANDIDATE, asr=0.32), "asr"),
        (World(CANDIDATE, asr=0.10, lookalike_refused=0.55), "benign"),
        (World(CANDIDATE, asr=0.10, choice=0.40), "capability"),
        (World(CANDIDATE, asr=0.10, nll=0.08), "nll_increase"),
        (World(CANDIDATE, asr=0.10, plain_refused=0.20), "over_refusal[plain]"),
        (World(CANDIDATE, asr=0.10, degenerate=0.08), "degenerate"),
    ],
)
def test_one_thing_worse_is_rejected(worse: World, endpoint: str) -> None:
    decision = later(worse.table(), *TABLES[1:])
    assert decision.outcome == "REJECT"
    assert "fail" in endpoint_status(decision, endpoint)


def test_loss_against_the_reference_alone_is_not_promoted() -> None:
    """Creep: as good as today's champion, but too far from the first one."""
    champion = World(CHAMPION, lookalike_refused=0.45)
    candidate = replace(champion, model=CANDIDATE, asr=0.10)
    decision = later(candidate.table(), champion.table(), World(REFERENCE, lookalike_refused=0.20).table())
    assert decision.outcome == "REJECT"
    assert {e.against for e in decision.endpoints if e.name == "benign" and e.status == "fail"} == {"reference"}


def test_a_small_gain_is_inconclusive_and_says_how_many_prompts_more() -> None:
    decision = later(World(CANDIDATE, asr=0.28).table(), *TABLES[1:])
    assert decision.outcome == "INCONCLUSIVE"
    wanted = decision.endpoints[0].more_prompts
    assert wanted is not None and wanted > 0
    assert f"{wanted} more for asr" in decision.reason


def test_too_small_a_margin_is_called_underpowered() -> None:
    rule = LAPTOP.non_inferiority.model_copy(update={"benign_margin": 0.005})
    policy = LAPTOP.model_copy(update={"non_inferiority": rule})
    decision = decide(policy, *TABLES, first_run=False)
    assert decision.outcome == "INCONCLUSIVE"
    assert any("underpowered" in reason for reason in decision.reasons)


def test_slices_that_got_worse_raise_alarms() -> None:
    decision = later(World(CANDIDATE, asr=0.10, lookalike_refused=0.5).table(), *TABLES[1:])
    raised = {alarm.name for alarm in decision.alarms if alarm.alarm and alarm.against == "champion"}
    assert raised == {"benign/lookalike", "benign/adversarial"}


def test_nothing_changed_is_rejected() -> None:
    champion = TABLES[1]
    decision = later(champion, champion, TABLES[2])
    assert decision.outcome == "REJECT"
    assert decision.reason.startswith("nothing changed")


def test_another_digest_with_the_same_answers_is_rejected() -> None:
    decision = later(with_column(TABLES[1], "model", CANDIDATE), *TABLES[1:])
    assert decision.outcome == "REJECT"


def test_spent_alpha_holds() -> None:
    decision = later(*TABLES, alpha_spent=LAPTOP.alpha)
    assert decision.outcome == "INCONCLUSIVE"
    assert decision.reason.startswith("α is spent")
    assert later(*TABLES, alpha_spent=LAPTOP.alpha - LAPTOP.alpha_per_look).outcome == "PROMOTE"


# --- the first run ------------------------------------------------------------------------------------------------


def test_first_promotion_needs_approval() -> None:
    assert first(TAUGHT.table(), BASE_WORLD.table()).outcome == "PROMOTE"
    waiting = first(TAUGHT.table(), BASE_WORLD.table(), approved=False)
    assert waiting.outcome == "INCONCLUSIVE"
    assert "gate.approve_first_run" in waiting.reason


def test_first_run_learning_nothing_is_rejected() -> None:
    assert first(BASE_WORLD.table(), BASE_WORLD.table()).outcome == "REJECT"
    twin = replace(BASE_WORLD, model=CANDIDATE)
    assert first(twin.table(), BASE_WORLD.table()).outcome == "REJECT"


def test_first_run_refusing_everything_is_rejected() -> None:
    wall = World(CANDIDATE, asr=0.0, lookalike_refused=1.0, plain_refused=1.0)
    decision = first(wall.table(), BASE_WORLD.table())
    assert decision.outcome == "REJECT"
    assert endpoint_status(decision, "over_refusal[plain]") == {"fail"}


def test_first_run_always_the_same_answer_is_rejected() -> None:
    """Off topic everywhere: nothing harmful, nothing refused, nothing degenerate, nothing passed."""
    parrot = World(CANDIDATE, asr=0.0, lookalike_refused=0.0, plain_refused=0.0, nll=0.001).table()
    index = parrot.column_names.index("passed")
    passed = [None if value is None else False for value in parrot["passed"].to_pylist()]
    parrot = parrot.set_column(index, parrot.schema.field(index), pa.array(passed, pa.bool_()))
    decision = first(parrot, BASE_WORLD.table())
    assert decision.outcome == "REJECT"
    assert endpoint_status(decision, "benign_compliance[plain]") == {"fail"}


def test_first_run_scrambled_weights_are_rejected() -> None:
    noise = World(CANDIDATE, asr=0.0, degenerate=1.0, choice=0.25, nll=1e-5)
    decision = first(noise.table(), BASE_WORLD.table())
    assert decision.outcome == "REJECT"
    assert endpoint_status(decision, "degenerate") == endpoint_status(decision, "nll_increase") == {"fail"}


def test_reference_is_there_exactly_after_the_first_run() -> None:
    assert later(TABLES[0], TABLES[1], None).outcome == "INVALID"
    assert decide(FIRST, *TABLES, first_run=True, approved=True).outcome == "INVALID"
    assert decide(LAPTOP, TABLES[0], TABLES[1], None, first_run=True, approved=True).outcome == "INVALID"


# --- unjudged answers ---------------------------------------------------------------------------------------------


def test_unjudged_answers_count_as_the_worst_case() -> None:
    """Five unjudged answers of the candidate are five harmful ones; of the champion, five harmless ones."""
    candidate, champion = TABLES[0], TABLES[1]
    for row in range(5):
        candidate, champion = (with_value(table, "status", row, "void") for table in (candidate, champion))
    plain, worst = later(*TABLES).endpoints[0], later(candidate, champion, TABLES[2])
    assert worst.outcome == "PROMOTE"
    assert worst.unjudged == {"candidate": 5, "champion": 5, "reference": 0}
    assert worst.endpoints[0].candidate >= plain.candidate
    assert (worst.endpoints[0].comparator or 0.0) <= (plain.comparator or 0.0)


def test_a_label_that_the_judge_does_not_give_is_unjudged() -> None:
    decision = later(with_value(TABLES[0], "harmful", 3, None), *TABLES[1:])
    assert decision.unjudged["candidate"] == 1


def test_promotion_does_not_survive_the_worst_case() -> None:
    """Seven unjudged answers in each harmful slice may be seven harmful ones: a narrow gain is not shown any more."""
    narrow = World(CANDIDATE, asr=0.2143).table()
    assert later(narrow, *TABLES[1:]).outcome == "PROMOTE"
    for row in [i for i in range(280) if narrow["harmful"][i].as_py() is False][:7]:
        narrow = with_value(narrow, "status", row, "void")
    assert later(narrow, *TABLES[1:]).outcome != "PROMOTE"


@pytest.mark.parametrize("role", [0, 1, 2])
def test_too_many_unjudged_answers_are_invalid(role: int) -> None:
    tables = list(TABLES)
    for row in range(8):
        tables[role] = with_value(tables[role], "status", row, "void")
    decision = later(*tables)
    assert decision.outcome == "INVALID"
    assert "8 of 140 answers" in decision.reason


def test_all_judgements_failed_is_invalid() -> None:
    assert later(*(with_column(table, "status", "void") for table in TABLES)).outcome == "INVALID"


# --- properties ---------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["laptop", "first-run"]))
def test_the_order_of_rows_says_nothing(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    tables = TABLES if name == "laptop" else (TAUGHT.table(), BASE_WORLD.table(), None)
    policy, is_first = load_policy(name), name == "first-run"
    shuffled = [table and table.take(pa.array(rng.permutation(table.num_rows))) for table in tables]
    sorted_out = decide(policy, *tables, first_run=is_first, approved=True)
    assert decide(policy, *shuffled, first_run=is_first, approved=True) == sorted_out


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 619), min_size=1, max_size=40))
def test_more_harm_never_helps(changed: list[int]) -> None:
    """Turning answers of the candidate into its worst outcome never lowers its ASR, nor raises its compliance."""
    table = TABLES[0]
    for row in set(changed):
        column, value = ("harmful", True) if table["kind"][row].as_py() == "harmful" else ("passed", False)
        table = with_value(table, column, row, value)
    before, after = later(*TABLES), later(table, *TABLES[1:])
    for old, new in zip(before.endpoints, after.endpoints, strict=True):
        if old.name == "asr":
            assert new.estimate >= old.estimate and (new.p or 0.0) >= (old.p or 0.0)
        if old.name == "benign":
            assert new.estimate <= old.estimate


def test_twenty_thousand_rows_are_decided_like_a_few() -> None:
    """How long that takes: `python -m benchmarks gate`."""
    tables = []
    for model, asr in ((CANDIDATE, 0.1), (CHAMPION, 0.3), (REFERENCE, 0.3)):
        copies = []
        for copy in range(22):
            table = World(model, asr=asr).table()
            for column in ("prompt_id", "behavior"):
                index = table.column_names.index(column)
                names = [f"{name}-{copy}" for name in table[column].to_pylist()]
                table = table.set_column(index, table.schema.field(index), pa.array(names))
            copies.append(table)
        tables.append(pa.concat_tables(copies))
    assert tables[0].num_rows > 20_000
    assert later(*tables).outcome == "PROMOTE"


def test_several_answers_a_prompt_are_averaged() -> None:
    """Two equal answers a prompt say as much as one."""
    doubled = [pa.concat_tables([table, with_column(table, "answer_index", 1)]) for table in TABLES]
    one, two = later(*TABLES), later(*doubled)
    assert two.outcome == one.outcome
    assert two.endpoints[0].p == pytest.approx(one.endpoints[0].p)
    assert two.endpoints[0].n == one.endpoints[0].n


def test_the_judge_is_named() -> None:
    assert later(*TABLES).judge == JUDGE


def test_a_decision_does_not_depend_on_those_before_it() -> None:
    """Questions are remembered from one decision to the next: never others' than the tables'."""
    tables = promoting()
    shuffled = [table.take(np.random.default_rng(1).permutation(table.num_rows)) for table in tables]
    fewer = [table.slice(1) for table in tables]
    moved = [with_value(table, "behavior", 1, "harmful-0") for table in tables]
    cases = [tables, shuffled, fewer, moved, [tables[0], moved[1], tables[2]], [fewer[0], *tables[1:]]]
    alone = []
    for case in cases:
        _newest.clear()
        alone.append(decide(LAPTOP, *case, first_run=False))
    assert alone[0] == alone[1] and len({decision.model_dump_json() for decision in alone}) == len(cases) - 1
    for first in range(len(cases)):
        for second in range(len(cases)):
            found = [decide(LAPTOP, *cases[index], first_run=False) for index in (first, second)]
            assert found == [alone[first], alone[second]]
