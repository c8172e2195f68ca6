"""A model line in an empty folder store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparring.store import Store, open_store
from tests.gate.lines import Line


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store")).scope("lines/test")


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Line:
    return Line(store, tmp_path)
