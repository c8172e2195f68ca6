"""Where a step keeps what it can make again: unpacked checkpoints, training states, logs. Never the only copy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

WORK_VARIABLE: Final = "SPARRING_WORK"
"""Folder for the work of all lines, when the usual place does not suit (a pod's scratch volume)."""


def work_folder(url: str, line: str) -> Path:
    """Work folder of one line: beside `lines/` in a folder store, else in the user's cache, by the store's URL.

    The folder need not exist yet.
    """
    named = os.environ.get(WORK_VARIABLE)
    if named:
        return Path(named) / line
    if "://" not in url:
        return Path(url).expanduser().absolute() / "work" / line
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sparring" / hashlib.sha256(url.encode()).hexdigest()[:16] / line
