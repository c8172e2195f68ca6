"""One line of the learning curves: the numbers of a training step, from its games and the trainer's log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sparring.game.records import Game


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
        "void": _mean(games, lambda g: bool(g.reason)),
    }
    kept = {key: float(logs[key]) for key in ("loss", "kl", "entropy", "grad_norm", "sft_loss") if key in logs}
    line = {"step": float(step), "seconds": seconds, "tokens": float(tokens), **kept}
    return {**line, **{key: value for key, value in means.items() if value is not None}}


def _mean(games: Iterable[Game], value: Callable[[Game], float | bool | None]) -> float | None:
    found = [float(v) for g in games if (v := value(g)) is not None]
    return sum(found) / len(found) if found else None
