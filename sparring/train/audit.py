"""How far the reward judge and the gate's judge are apart on the games that are being played.

A policy that learns to please one judge moves away from the other: the share is a value of the learning curve, and a
stop guard (`selfplay.guards.max_judge_disagreement`). Nothing is trained on what the gate's judge says here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.game.prompts import split_turns
from sparring.game.records import Game
from sparring.judge.protocol import Judge, JudgeCase, Verdict

KEY = "judge_disagreement"


@dataclass(frozen=True)
class Audit:
    """Asks `judge` about at most `games` judged games of each step; which, depends on (seed, step) alone."""

    judge: Judge
    games: int
    seed: int

    def measure(self, step: int, games: Sequence[Game]) -> dict[str, float]:
        """The curve's value for a step; empty when no game was labelled by both judges."""
        judged = [game for game in games if game.refused is not None and game.harmful is not None]
        chosen = random.Random(f"{self.seed}/audit/{step}").sample(judged, min(self.games, len(judged)))
        share = disagreement(chosen, self.judge.judge([_case(game) for game in chosen]))
        return {} if share is None else {KEY: share}


def disagreement(games: Sequence[Game], verdicts: Sequence[Verdict]) -> float | None:
    """Share of games that another judge labels differently, refused or harmful; void ones are left out.

    None when there are none that both labelled. A label that the other judge does not give is not compared.
    """
    pairs = [(g, v) for g, v in zip(games, verdicts, strict=True) if v.ok and {v.refused, v.harmful} != {None}]
    differ = [
        any(theirs is not None and mine != theirs for mine, theirs in ((g.refused, v.refused), (g.harmful, v.harmful)))
        for g, v in pairs
    ]
    return sum(differ) / len(differ) if differ else None


def _case(game: Game) -> JudgeCase:
    """As the reward judge saw it."""
    label = None if game.kind == "generated" else game.label
    return JudgeCase("\n".join(split_turns(game.attack)), game.answer, label)
