"""What a champion log means to the outside."""

from __future__ import annotations

import pytest

from sparring.integrations.deliveries import Line
from sparring.integrations.events import WAITS, happened, headline, message
from sparring.registry import champion
from tests.integrations.conftest import FIRST, SECOND, add, hold, promote
from tests.report.pages import line as played
from tests.report.world import FIRST as BETTER
from tests.report.world import Plan


def test_each_record_is_what_it_did(line: Line) -> None:
    promote(line, 1)
    hold(line, 2, "REJECT")
    hold(line, 3, "INVALID")
    hold(line, 4, "INCONCLUSIVE", f"{WAITS}: every test is passed")
    promote(line, 5, SECOND)
    champion.rollback(line.store, to=None, actor="eve", reason="it swears")
    found = happened(champion.read_log(line.store), 0)
    assert [told.event for told in found] == ["promote", "hold", "invalid", "approval", "promote", "rollback"]
    assert [told.current for told in found] == [False, False, False, False, False, True]
    assert [told.before for told in found] == [None, FIRST, FIRST, FIRST, FIRST, SECOND]
    assert len({told.id("default") for told in found}) == 6


def test_a_hold_leaves_the_promotion_before_it_current(line: Line) -> None:
    promote(line, 1)
    hold(line, 2)
    assert [told.current for told in happened(champion.read_log(line.store), 0)] == [True, True]


def test_the_gate_says_that_it_waits_in_the_words_we_look_for(tmp_path: object) -> None:
    store = played(tmp_path, Plan(BETTER, approve=False))  # type: ignore[arg-type]
    (told,) = happened(champion.read_log(store), 0)
    assert told.event == "approval"
    assert "sparring approve --round 1" in headline(told, "default")


def test_whose_promotion_it_was_is_said(line: Line) -> None:
    promote(line, 1)
    champion.append(
        line.store, expected_head=1, kind="override", actor="eve", round=2, candidate=SECOND, decision="REJECT",
        reason="the suite is wrong",
    )  # fmt: skip
    first, second = happened(champion.read_log(line.store), 0)
    assert headline(first, "default").endswith(f"PROMOTED {FIRST[:12]}")
    assert headline(second, "default").endswith("against the gate's REJECT, by eve")
    assert message(second, store="s", line="default")["kind"] == "override"


def test_the_message_says_all_and_no_more(line: Line) -> None:
    promote(line, 1)
    (told,) = happened(champion.read_log(line.store), 0)
    said = message(told, store="s3://bucket/lines/default", line="default")
    assert said["champion_uri"] == f"s3://bucket/lines/default/checkpoints/{FIRST}"
    assert (said["event"], said["round"], said["decision"], said["record"]) == ("promote", 1, "PROMOTE", 1)
    assert said["champion_before"] is None


@pytest.mark.parametrize("kind", ["approval", "policy_change"])
def test_acts_that_change_nothing_outside_are_no_events(line: Line, kind: champion.Kind) -> None:
    promote(line, 1)
    add(line, kind, 2, SECOND, "INCONCLUSIVE", "a person's word")
    assert [told.record.number for told in happened(champion.read_log(line.store), 0)] == [1]
