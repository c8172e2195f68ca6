"""Judges: who refused, whose answer is harmful. The protocol, the embedded judges, the string-match check."""

from __future__ import annotations

from sparring.errors import ConfigError
from sparring.judge.protocol import Judge, JudgeCase, SeedLabel, Verdict
from sparring.judge.text import degenerate

EMBEDDED_JUDGES = ("embedded-reward", "embedded-gate", "string-match")
"""Names that `load_judge` knows; none of them needs a network, a GPU or torch."""


def load_judge(name: str) -> Judge:
    """The judge of that name. Raises ConfigError for an unknown name, SetupError when MiniLM is not installed."""
    if name == "string-match":
        from sparring.judge.string_match import StringMatchJudge

        return StringMatchJudge()
    if name in ("embedded-reward", "embedded-gate"):
        from sparring.judge.embedded import load_embedded

        return load_embedded(name)
    raise ConfigError(f"unknown judge {name!r}", hint=f"known are {', '.join(EMBEDDED_JUDGES)}")


__all__ = ["EMBEDDED_JUDGES", "Judge", "JudgeCase", "SeedLabel", "Verdict", "degenerate", "load_judge"]
