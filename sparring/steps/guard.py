"""A step must not outlive its runner: one killed with -9 would leave a training that burns the cores unseen.

The runner holds a file lock; each step waits for it in a thread. Getting it means that the runner is gone, however it
ended: the kernel drops the lock even while the dead process still waits to be reaped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RUNNER_VARIABLE: Final = "SPARRING_RUNNER"
"""Path of the lock file that the laptop's runner holds; not set in a pod."""


@contextlib.contextmanager
def runner_alive(path: Path) -> Iterator[dict[str, str]]:
    """Holds the lock at `path` and yields the environment that tells the steps of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield {RUNNER_VARIABLE: str(path)}


def end_with_runner() -> None:
    """Ends this process as soon as its runner is gone; does nothing when there is none."""
    named = os.environ.get(RUNNER_VARIABLE)
    if named and Path(named).exists():
        threading.Thread(target=_wait, args=(Path(named),), name="runner-guard", daemon=True).start()


def _wait(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        os._exit(1)
