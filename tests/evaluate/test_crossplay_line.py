"""`benchmarks crossplay` on a line of tiny random models, as a person would call it with --store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import crossplay
from sparring.config.run import RunConfig
from sparring.evaluate.crossplay import read_crossplay
from sparring.registry import rounds
from sparring.registry.champion import append
from sparring.registry.checkpoints import save_checkpoint
from sparring.store import open_store
from tests.models import save_tiny


@pytest.mark.slow
def test_base_and_champions_meet_and_the_round_keeps_the_matrix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store")).scope("lines/default")
    base, *later = (save_checkpoint(store, save_tiny(tmp_path / str(n), seed=n)) for n in range(3))
    store.put("base.json", json.dumps({"digest": base}).encode())
    config = RunConfig.model_validate({"game": {"attack_tokens": 6, "answer_tokens": 6}})
    for number, digest in enumerate(later, 1):
        claimed = rounds.claim(store, config_digest=rounds.save_config(store, config), now=datetime.now(UTC))
        assert claimed.number == number
        append(
            store, expected_head=number - 1, kind="promotion", actor="test", round=number, candidate=digest,
            decision="PROMOTE", reason="",
        )  # fmt: skip
        rounds.close(store, number, decision="PROMOTE", reason="")
    assert crossplay.main(["--store", str(tmp_path / "store"), "--behaviors", "3"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = read_crossplay(store, 2)
    assert line["bench"] == "crossplay" and line["checks"]["attackers"] == ["base", "round 1", "round 2"]
    assert found.digests == {"base": base, "round 1": later[0], "round 2": later[1]}
    assert [[cell.rate for cell in found.row(a)] for a in range(3)] == [
        [None if rate is None else pytest.approx(rate, abs=1e-3) for rate in row] for row in line["checks"]["asr"]
    ]
    assert all(cell.judged + cell.void == 3 for cell in found.cells)
