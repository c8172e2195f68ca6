"""Judges: who refused, whose answer is harmful. One protocol; embedded judges, endpoints, and panels of both."""

from __future__ import annotations

from sparring.config.judges import EMBEDDED, JudgeConfig, judge_problem, nearest
from sparring.errors import ConfigError
from sparring.judge.protocol import Judge, JudgeCase, SeedLabel, Verdict
from sparring.judge.text import degenerate
from sparring.store.base import Store

EMBEDDED_JUDGES = tuple(EMBEDDED)
"""Judges in the package; none of them needs a network, a GPU or torch."""


def load_judge(name: str, config: JudgeConfig | None = None, store: Store | None = None) -> Judge:
    """The judge of that name: an endpoint of `config`, or one in the package. `store` keeps an endpoint's verdicts.

    Raises ConfigError for an unknown name or a secret that is not set, SetupError when MiniLM is not installed.
    """
    config = config or JudgeConfig()
    if name in config.endpoints:
        from sparring.judge.endpoint import EndpointJudge

        return EndpointJudge(name, config.endpoints[name], store)
    if name == "string-match":
        from sparring.judge.string_match import StringMatchJudge

        return StringMatchJudge()
    if name in EMBEDDED:
        from sparring.judge.embedded import load_embedded

        return load_embedded(name)
    raise ConfigError(f"unknown judge {name!r}", hint=nearest(config, name))


def load_reward_judge(config: JudgeConfig, store: Store | None = None) -> Judge:
    """The judge of the training games. Raises ConfigError."""
    _check(config)
    return load_judge(config.reward, config, store)


def load_gate_judge(config: JudgeConfig, store: Store | None = None) -> Judge:
    """The evaluation's judge, a panel where the configuration names several. Raises ConfigError."""
    _check(config)
    names = config.gate_names
    if len(names) == 1:
        return load_judge(names[0], config, store)
    from sparring.judge.panel import Panel

    judges = {name: load_judge(name, config, store) for name in names}
    return Panel(judges, {name: config.says(name) for name in names}, config.combine)


def _check(config: JudgeConfig) -> None:
    if found := judge_problem(config):
        raise ConfigError(found[1])


__all__ = [
    "EMBEDDED_JUDGES",
    "Judge",
    "JudgeCase",
    "SeedLabel",
    "Verdict",
    "degenerate",
    "load_gate_judge",
    "load_judge",
    "load_reward_judge",
]
