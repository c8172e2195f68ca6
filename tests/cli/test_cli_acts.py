"""`sparring approve|override|reanchor` and what `history` and `verify` say of them, on a planted round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.config.run import RunConfig
from sparring.registry import rounds
from sparring.registry.champion import read_log
from tests.cli.test_cli import play, sparring
from tests.pipelines.planted import BASE, BETTER, Planted, plant

WAITING = RunConfig.model_validate({"gate": {"approve_first_run": True, "require_approval": True}})


def held(folder: Path, *, waiting: bool) -> Planted:
    """A first round that waits for approval, or that was rejected."""
    planted = plant(folder, BETTER if waiting else replace(BASE, asr=0.95), WAITING if waiting else None)
    play(planted, "gate", "hold")
    return planted


def run(planted: Planted, *arguments: str, cwd: Path) -> str:
    done = sparring(*arguments, "--store", planted.request.store, cwd=cwd)
    assert done.exit_code == 0, done.stderr
    return done.stdout + done.stderr


def test_approve_promotes_and_history_and_verify_say_so(tmp_path: Path) -> None:
    planted = held(tmp_path, waiting=True)
    end = rounds.load_end(planted.store, 1)
    assert end is not None and end.decision == "INCONCLUSIVE" and "sparring approve" in end.reason
    said = run(planted, "approve", "--round", "1", "--reason", "read them", "--actor", "ann", cwd=tmp_path)
    assert f"champion is {planted.candidate}" in said
    records = json.loads(run(planted, "history", "--json", cwd=tmp_path))
    assert [(record["kind"], record["actor"]) for record in records] == [
        ("hold", "pipeline"), ("approval", "ann"), ("promotion", "ann")
    ]  # fmt: skip
    table = run(planted, "history", cwd=tmp_path)
    assert "approval" in table and "ann" in table and "read them" in table
    assert "follows from its tables" in run(planted, "verify", cwd=tmp_path)


def test_override_warns_and_verify_repeats_it(tmp_path: Path) -> None:
    planted = held(tmp_path, waiting=False)
    said = run(planted, "override", "--round", "1", "--reason", "the suite is wrong", cwd=tmp_path)
    assert "warning: the gate said REJECT" in said and planted.candidate in said
    assert "OVERRIDE of round 1's REJECT" in run(planted, "verify", cwd=tmp_path)
    assert "override" in run(planted, "history", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("approve", "--round", "1", "--reason", "x"), "does not wait for approval"),
        (("approve", "--round", "7", "--reason", "x"), "has no decision"),
        (("override", "--round", "1", "--reason", " "), "a reason must be given"),
        (("reanchor", "--to", "a" * 64, "--reason", "x"), "does not name one earlier champion"),
        (("reanchor", "--to", "a" * 64, "--reason", ""), "a reason must be given"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    planted = held(tmp_path, waiting=False)
    done = sparring(*arguments, "--store", planted.request.store, cwd=tmp_path)
    assert done.exit_code == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert [record.kind for record in read_log(planted.store).records] == ["hold"]
