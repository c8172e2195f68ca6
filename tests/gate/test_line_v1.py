"""A line written by the release before warnings, corrections and approvals (`line_v1`) is read and reproduced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sparring.cli.facts import verified
from sparring.config.run import GateConfig
from sparring.gate.outcome import agree
from sparring.gate.policy import load_policy
from sparring.registry.champion import read_log
from sparring.steps import acts
from sparring.steps.gate import check_record, decision_key, read_record
from sparring.store import Store, open_store
from tests.gate.lines import Line, end

STORED = Path(__file__).parent / "line_v1"


@pytest.fixture
def old(tmp_path: Path) -> Store:
    shutil.copytree(STORED, tmp_path / "line")
    return open_store(str(tmp_path / "line"))


def test_the_fixture_is_of_the_old_format() -> None:
    decision = json.loads((STORED / decision_key(2)).read_text())["decision"]
    assert "warnings" not in decision and "corrections" not in decision


@pytest.mark.parametrize("number", [2, 3, 4])
def test_every_old_decision_is_made_again(old: Store, number: int) -> None:
    record = read_record(old, decision_key(number))
    assert agree(check_record(old, record), record.decision)


@pytest.mark.parametrize("factor", [1 + 1e-15, 1 + 1e-7])
def test_last_digits_of_another_processor_are_no_edit(old: Store, factor: float) -> None:
    decision = read_record(old, decision_key(2)).decision
    moved = [e.model_copy(update={"low": e.low * factor}) for e in decision.endpoints]
    other = decision.model_copy(update={"endpoints": moved})
    assert agree(decision, other) is (factor < 1 + 1e-9)
    assert not agree(decision, decision.model_copy(update={"reason": f"{decision.reason}."}))


def test_the_old_log_verifies(old: Store) -> None:
    found = list(verified(old))
    assert found[0] == "champion log: 4 records, the chain holds"
    assert sum("follows from its tables" in text for text in found) == 2


def test_old_policies_are_no_policy_change(old: Store, tmp_path: Path) -> None:
    """Unless the shipped file itself means something else today, and then the log says so."""
    line = Line(old, tmp_path)
    line.round = 4
    end(old, line.second(asr=0.05))
    changed = read_record(old, decision_key(4)).policy.digest != load_policy("laptop").digest
    assert ("policy_change" in [record.kind for record in read_log(old).records]) == changed


def test_an_old_candidate_that_waited_is_approved_only_if_nobody_came_first(old: Store) -> None:
    from sparring.errors import ConflictError

    with pytest.raises(ConflictError, match="gates again"):
        acts.approve(old, 1, actor="ann", reason="late")
    assert GateConfig().require_approval is False
