"""The learning curves: a line for each training step, from its games and the trainer's log, kept in the store."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sparring.errors import CorruptError
from sparring.game.records import BROKEN_ANSWER, BROKEN_ATTACK, Game
from sparring.judge.text import degenerate
from sparring.store.base import Store

T = TypeVar("T")


def step_curve(
    step: int, games: list[Game], logs: Mapping[str, float], seconds: float, tokens: int
) -> dict[str, float]:
    """Means over the step's judged games and the trainer's numbers; a number that does not exist is left out."""
    judged = [g for g in games if not g.reason]
    means = {
        "attacker_reward": _mean(games, lambda g: g.attacker_reward),
        "defender_reward": _mean(games, lambda g: g.defender_reward),
        "refused_harmful": _mean(judged, lambda g: g.refused if g.label == "harmful" and g.faithful else None),
        "refused_benign": _mean(judged, lambda g: g.refused if g.label == "benign" and g.faithful else None),
        "faithful": _mean(judged, lambda g: g.faithful if g.kind == "generated" else None),
        "degenerate": _mean(judged, lambda g: g.degenerate),
        "looping": _mean(_texts(games), degenerate),
        "attacker_spread": _spread([g.attacker_reward for g in games]),
        "defender_spread": _spread([g.defender_reward for g in games]),
        "void": _mean(games, lambda g: bool(g.reason)),
    }
    kept = {key: float(logs[key]) for key in ("loss", "kl", "entropy", "grad_norm", "sft_loss") if key in logs}
    line = {"step": float(step), "seconds": seconds, "tokens": float(tokens), **kept}
    return {**line, **{key: value for key, value in means.items() if value is not None}}


def _texts(games: Iterable[Game]) -> Iterable[str]:
    """What the policy wrote: attacks and answers. What broke the form is paid for that, and has no text."""
    for game in games:
        if game.kind == "generated" and game.reason != BROKEN_ATTACK:
            yield game.attack
        if game.reason not in (BROKEN_ATTACK, BROKEN_ANSWER):
            yield game.answer


def _spread(rewards: Iterable[float | None]) -> float | None:
    """Standard deviation of the rewards that there are; None of fewer than two."""
    found = [r for r in rewards if r is not None]
    return statistics.pstdev(found) if len(found) > 1 else None


def _mean(games: Iterable[T], value: Callable[[T], float | bool | None]) -> float | None:
    found = [float(v) for g in games if (v := value(g)) is not None]
    return sum(found) / len(found) if found else None


class CurveFile:
    """The learning curves, one JSON object a line; kept in the store after every step, taken up after a kill."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self.lines: list[dict[str, Any]] = self._load()

    def _load(self) -> list[dict[str, Any]]:
        if not self._store.exists(self._key):
            return []
        try:
            return [json.loads(line) for line in self._store.get(self._key).decode().splitlines()]
        except ValueError as error:
            raise CorruptError(f"{self._key} in {self._store.url} is not JSON lines", hint="delete it") from error

    def add(self, line: dict[str, Any]) -> None:
        """Appends a line; those of this and later steps of the phase, left by a killed run, give way."""
        self.lines = [old for old in self.lines if old["phase"] != line["phase"] or old["step"] < line["step"]]
        self.lines.append({"schema_version": 1, **line})

    def flush(self) -> None:
        """Puts all lines into the store."""
        self._store.put(self._key, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
