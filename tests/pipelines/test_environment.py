"""What the processes of a local round inherit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local import Files, _environment


@pytest.mark.parametrize(("own", "found"), [(None, "10000"), ("7", "7")])
def test_threads_soon_sleep_while_they_wait_unless_the_user_says_otherwise(
    own: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if own:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    files = Files(tmp_path / "events", tmp_path / "log", tmp_path / "guards")
    say = "import os, pipelines; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run(
        [sys.executable, "-c", say], env=_environment(files), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
