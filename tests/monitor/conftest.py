"""Two real rounds, played once for all tests of the monitor that need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.monitor.real_history import History, play


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A line after a promotion and a second round. Tests must only read it."""
    folder: Path = tmp_path_factory.mktemp("history")
    return play(folder)
