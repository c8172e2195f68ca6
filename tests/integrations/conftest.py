"""A receiver, and a champion log to tell of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sparring.integrations.deliveries import Line
from sparring.registry import champion
from sparring.store.local import LocalStore
from tests.integrations.receiver import Receiver, receiver

FIRST, SECOND = "a" * 64, "b" * 64


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """An empty line."""
    return Line(LocalStore(tmp_path / "store").scope("lines/default"), "default")


def promote(line: Line, round_number: int, digest: str = FIRST, reason: str = "every test is passed") -> None:
    add(line, "promotion", round_number, digest, "PROMOTE", reason)


def hold(line: Line, round_number: int, decision: str = "REJECT", reason: str = "attack success is not lower") -> None:
    add(line, "hold", round_number, SECOND, decision, reason)


def add(line: Line, kind: champion.Kind, round_number: int | None, digest: str, decision: str, reason: str) -> None:
    champion.append(
        line.store,
        expected_head=champion.read_log(line.store).head,
        kind=kind,
        actor="pipeline",
        round=round_number,
        candidate=digest,
        decision=decision,
        reason=reason,
    )
