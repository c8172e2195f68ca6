"""A decision's forms: what each outcome looks like, and that names of others never become markup or markup errors."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.gate.decision import decide
from sparring.gate.forms import junit, markdown, terminal
from sparring.gate.outcome import Decision
from sparring.gate.policy import load_policy
from sparring.steps.gate import run
from tests.gate.lines import APPROVED, PROGRESS, Line
from tests.gate.worlds import BASE, CANDIDATE, World, promoting

LAPTOP, FIRST = load_policy("laptop"), load_policy("first-run")
TABLES = promoting()


def later(world: World, **options: float) -> Decision:
    return decide(LAPTOP, world.table(), *TABLES[1:], first_run=False, **options)  # type: ignore[arg-type]


DECISIONS = {
    "PROMOTE": later(World(CANDIDATE, asr=0.10)),
    "REJECT": later(World(CANDIDATE, asr=0.10, lookalike_refused=0.55)),
    "unchanged": decide(LAPTOP, TABLES[1], TABLES[1], TABLES[2], first_run=False),
    "INCONCLUSIVE": later(World(CANDIDATE, asr=0.28)),
    "spent": later(World(CANDIDATE, asr=0.10), alpha_spent=LAPTOP.alpha),
    "waiting": decide(
        FIRST, World(CANDIDATE, asr=0.5).table(), World(BASE, asr=0.93, lookalike_refused=0.02).table(), None,
        first_run=True,
    ),
    "INVALID": decide(LAPTOP, TABLES[0].slice(200), *TABLES[1:], first_run=False),
}  # fmt: skip


SCHEMA = Path(__file__).parent / "schemas" / "junit-10.xsd"
"""Of Jenkins' xUnit plugin."""


@cache
def jenkins() -> tuple[Any, Any]:
    """The schema, and the reader of what it checks."""
    etree = pytest.importorskip("lxml.etree", reason="no lxml: install the dev extra")
    return etree.XMLSchema(etree.parse(str(SCHEMA))), etree.fromstring


def cases(text: str) -> ElementTree.Element:
    """The test suite, valid by Jenkins' schema and by the rules that Jenkins' and GitLab's readers share beside it."""
    schema, read = jenkins()
    schema.assertValid(read(text.encode()))
    root = ElementTree.fromstring(text.split("\n", 1)[1])
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n') and root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite" and suite.get("name")
    found = suite.findall("testcase")
    for case in found:
        assert case.get("name") and case.get("classname") and float(case.get("time", "x")) >= 0
        assert [child.tag for child in case] in ([], ["failure"], ["error"], ["skipped"])
        assert all(child.get("message") and child.get("type") for child in case)
    assert [child.tag for child in suite] == ["testcase"] * len(found) + ["system-out"]
    for node in (root, suite):
        assert int(node.get("tests", "")) == len(found)
        assert int(node.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(node.get("errors", "")) == len(suite.findall("testcase/error"))
    return suite


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (' tests="', ' number="'),
        ('name="decision"', ""),
        ("<testcase ", "<testcase started='1' "),
        ('time="0"', 'time="soon"'),
        ("</testsuite>", "<verdict/></testsuite>"),
    ],
)
def test_the_schema_sees_what_jenkins_would_refuse(was: str, becomes: str) -> None:
    schema, read = jenkins()
    text = junit(DECISIONS["REJECT"])
    assert was in text
    assert not schema.validate(read(text.replace(was, becomes).encode()))


@pytest.mark.parametrize("name", DECISIONS)
def test_a_suite_is_green_exactly_for_promote(name: str) -> None:
    decision, suite = DECISIONS[name], cases(junit(DECISIONS[name]))
    bad = suite.findall("testcase/failure") + suite.findall("testcase/error")
    assert (bad == []) == (decision.outcome == "PROMOTE")
    assert bool(suite.findall("testcase/failure")) == (decision.outcome == "REJECT")
    assert len(suite.findall("testcase")) == len(decision.endpoints) + 1 + len(decision.missing)
    if decision.outcome == "INVALID":
        assert {node.get("message") for node in bad} >= set(decision.missing)


@pytest.mark.parametrize("name", DECISIONS)
def test_every_form_says_the_outcome_first_and_each_test(name: str) -> None:
    decision = DECISIONS[name]
    text, mark = terminal(decision), markdown(decision)
    assert text.startswith(f"{decision.outcome}: ") and mark.startswith(f"## Gate: {decision.outcome}\n")
    first_words = " ".join(decision.reason.split()[:6])
    assert first_words in " ".join(text.split())
    rows = [line for line in mark.splitlines() if line.startswith("| ")]
    assert len(rows) == (len(decision.endpoints) + 2 if decision.endpoints else 0)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 10 for row in rows)
    assert all(f"missing: {line[:20]}" in text for line in decision.missing)
    assert all(len(line) <= 160 for line in text.splitlines())


def test_open_tests_say_how_many_prompts_more() -> None:
    wanted = DECISIONS["INCONCLUSIVE"].endpoints[0].more_prompts
    for form in (terminal, markdown):
        assert f"not shown, {wanted} more prompts" in form(DECISIONS["INCONCLUSIVE"])


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_names_of_others_break_no_form(text: str) -> None:
    """Model, judge and slice names come from tables; control and direction characters, markup and HTML do not pass."""
    decision = DECISIONS["INCONCLUSIVE"]
    endpoints = [test.model_copy(update={"name": text or "x", "text": text}) for test in decision.endpoints]
    hostile = decision.model_copy(
        update={"reason": text, "endpoints": endpoints, "judge": text, "candidate": text, "warnings": [text]}
    )
    cases(junit(hostile)) if text.strip() else None
    for form in (terminal(hostile), markdown(hostile), junit(hostile)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]", form)
    mark = markdown(hostile)
    assert not re.search(r"(?<!\\)<[a-zA-Z/!]", re.sub(r"`[^`\n]*`", "", mark))
    assert sum(line.startswith("| ") for line in mark.splitlines()) == len(endpoints) + 2


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "[x](http://evil)", "a | b", "![i](u)", "`code`", "@team", "# head\n# two"]
)
def test_markup_is_text(text: str) -> None:
    decision = DECISIONS["PROMOTE"].model_copy(update={"reason": text, "warnings": [text]})
    body = markdown(decision).split("*\n", 1)[1].split("\n")[1]
    assert re.sub(r"\\(.)", r"\1", body) == " ".join(text.split()) and body != text


def test_a_round_leaves_all_forms_beside_its_decision(line: Line) -> None:
    inputs = line.first()
    for _ in range(2):
        run(APPROVED, line.store, inputs, PROGRESS)
    assert line.store.get("rounds/000001/gate/decision.md").decode().startswith("## Gate: PROMOTE")
    cases(line.store.get("rounds/000001/gate/junit.xml").decode())
    line.store.delete("rounds/000001/gate/junit.xml")
    run(APPROVED, line.store, inputs, PROGRESS)
    assert line.store.exists("rounds/000001/gate/junit.xml")
