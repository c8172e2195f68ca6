"""Where a step keeps what it can make again: unpacked checkpoints, training states, logs. Never the only copy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

WORK_VARIABLE: Final = "SPARRING_WORK"
"""Folder for the work of all stores and lines, when the usual place does not suit (a pod's scratch volume)."""
CHECKPOINTS: Final = "checkpoints"
"""Folder of unpacked models below a line's work folder. `answer` leaves those that it asked, and the rest goes."""


def work_folder(url: str, line: str) -> Path:
    """Work folder of one line: beside `lines/` in a folder store, else in the user's cache or SPARRING_WORK, by the
    store's URL: two stores' rounds of one number must not meet.

    The folder need not exist yet.
    """
    named = os.environ.get(WORK_VARIABLE)
    if "://" not in url:
        url = str(Path(url).expanduser().absolute())
        if not named:
            return Path(url) / "work" / line
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparring"
    return (Path(named) if named else cache) / hashlib.sha256(url.encode()).hexdigest()[:16] / line
