"""Rounds: one number a round, taken up when it was killed, and results that stand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from sparring.config.run import RunConfig
from sparring.errors import BusyError, ConflictError, CorruptError, NotFoundError
from sparring.registry import rounds
from sparring.steps.results import PromoteResult
from sparring.store import Store
from sparring.store.local import LocalStore

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DIGEST, OTHER = "a" * 64, "b" * 64
RESULT = PromoteResult(decision="REJECT", record=1, champion=None)


def test_rounds_are_numbered_and_end(any_store: Store) -> None:
    assert rounds.last_round(any_store) == 0
    assert rounds.open_round(any_store) is None
    for number in (1, 2, 3):
        claimed = rounds.claim(any_store, config_digest=DIGEST, now=NOW)
        assert claimed == rounds.Round(number, DIGEST, NOW, resumed=False)
        assert rounds.last_round(any_store) == number
        assert rounds.load_end(any_store, number) is None
        rounds.close(any_store, number, decision="REJECT", reason="worse")
        end = rounds.load_end(any_store, number)
        assert end is not None
        assert (end.number, end.decision, end.reason) == (number, "REJECT", "worse")
        assert rounds.open_round(any_store) is None


def test_a_killed_round_is_taken_up_as_it_began(any_store: Store) -> None:
    first = rounds.claim(any_store, config_digest=DIGEST, now=NOW)
    again = rounds.claim(any_store, config_digest=OTHER, now=NOW + timedelta(days=1))
    assert first == rounds.Round(1, DIGEST, NOW, resumed=False)
    assert again == rounds.Round(1, DIGEST, NOW, resumed=True)
    assert rounds.open_round(any_store) == again
    rounds.close(any_store, 1, decision="REJECT", reason="x")
    assert rounds.claim(any_store, config_digest=OTHER, now=NOW).number == 2


def test_a_clock_that_goes_back_changes_no_number(any_store: Store) -> None:
    for number in (1, 2):
        claimed = rounds.claim(any_store, config_digest=DIGEST, now=NOW - timedelta(days=number))
        assert claimed.number == number
        rounds.close(any_store, number, decision="REJECT", reason="x")


class ClaimsBetween(LocalStore):
    """A store in which another run claims the round right after this one has looked."""

    looks = 0

    def list(self, prefix: str = "") -> list[str]:
        found = super().list(prefix)
        self.looks += 1
        if self.looks == 1:
            rounds.claim(LocalStore(Path(self.url)), config_digest=OTHER, now=NOW)
        return found


def test_a_round_claimed_after_our_look_is_not_skipped(tmp_path: Path) -> None:
    """Once, two looks made round 2 while round 1 was open."""
    store = ClaimsBetween(tmp_path)
    with pytest.raises(BusyError, match="another run claimed round 1"):
        rounds.claim(store, config_digest=DIGEST, now=NOW)
    assert rounds.last_round(store) == 1
    assert rounds.claim(store, config_digest=DIGEST, now=NOW).resumed


def test_a_round_ends_once(any_store: Store) -> None:
    rounds.claim(any_store, config_digest=DIGEST, now=NOW)
    rounds.close(any_store, 1, decision="REJECT", reason="x")
    rounds.close(any_store, 1, decision="REJECT", reason="x, said again")
    with pytest.raises(ConflictError, match=r"round 1 .* ended with REJECT, not with PROMOTE"):
        rounds.close(any_store, 1, decision="PROMOTE", reason="y")


def test_results_round_trip_and_the_first_stands(any_store: Store) -> None:
    assert rounds.load_result(any_store, 1, "promote", PromoteResult) is None
    rounds.save_result(any_store, 1, "promote", RESULT)
    rounds.save_result(any_store, 1, "promote", RESULT)
    assert rounds.load_result(any_store, 1, "promote", PromoteResult) == RESULT
    changed = RESULT.model_copy(update={"record": 2})
    with pytest.raises(ConflictError, match="step promote of round 1 has another result"):
        rounds.save_result(any_store, 1, "promote", changed)
    assert rounds.load_result(any_store, 1, "promote", PromoteResult) == RESULT
    rounds.save_result(any_store, 1, "promote", changed, replace=True)
    assert rounds.load_result(any_store, 1, "promote", PromoteResult) == changed
    assert any_store.list() == ["rounds/000001/promote/result.json"]


class Other(BaseModel):
    """A result of another shape."""

    something: int


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"decision":"MAYBE","record":1,"champion":null}', b"[]"])
def test_damaged_results_are_named(tmp_path: Path, data: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put("rounds/000001/promote/result.json", data)
    with pytest.raises(CorruptError, match=r"'rounds/000001/promote/result\.json' in .* is not what was written"):
        rounds.load_result(store, 1, "promote", PromoteResult)
    with pytest.raises(CorruptError):
        rounds.load_result(store, 1, "promote", Other)


def test_a_damaged_claim_is_not_taken_up(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rounds.claim(store, config_digest=DIGEST, now=NOW)
    store.put("rounds/000001/claim.json", b"{}")
    with pytest.raises(CorruptError, match=r"'rounds/000001/claim\.json'"):
        rounds.claim(store, config_digest=DIGEST, now=NOW)


def test_run_files_are_stored_by_content(any_store: Store) -> None:
    config = RunConfig()
    digest = rounds.save_config(any_store, config)
    assert rounds.save_config(any_store, RunConfig()) == digest
    assert rounds.load_config(any_store, digest) == config
    other = config.model_copy(update={"seed": 1})
    assert rounds.save_config(any_store, other) != digest
    assert len(any_store.list("configs/")) == 2
    with pytest.raises(NotFoundError):
        rounds.load_config(any_store, OTHER)
    any_store.put(f"configs/{digest}.json", any_store.get(f"configs/{digest}.json").replace(b'"seed":0', b'"seed":7'))
    with pytest.raises(CorruptError, match=f"run file 'configs/{digest}.json' .* has digest"):
        rounds.load_config(any_store, digest)
