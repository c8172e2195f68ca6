"""What a decision costs, in fresh processes: seconds, memory, and that torch stays out."""

from __future__ import annotations
from typing import Any


def cost() -> dict[str, Any]:
    return {}
