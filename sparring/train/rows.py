"""From a step's games to the rows that TRL trains on: attackers first, then defenders.

| rows | group, whose rewards are compared |
|---|---|
| attackers of a generated slot | the `group` rewrites of one seed; of several turns, those of one turn |
| defenders of a generated slot | the `group` answers to rewrites of one seed; with k > 1 the k answers to one attack |
| defenders of any other slot | the `group` answers to one prompt |

A generated slot has `group` attacker rows a turn and `group`·k defender rows, so a step's rows are a multiple of
`group`, which is TRL's `num_generations`. Groups never mix roles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sparring.game.records import Game
from sparring.train.roles import ATTACKER, DEFENDER
from sparring.train.rollout import Played, Side


def rollout_rows(played: Played, *, trained: Collection[int]) -> dict[str, list[Any]]:
    """The columns of TRL's rollout. Void rows, and those of a role not in `trained`, carry an all-zero `env_mask`.

    A completion has at least one token (TRL fails on empty ones): the sampler always returns one.
    """
    rows: dict[str, list[Any]] = {
        k: [] for k in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "role", "score", "valid", "slot")
    }
    groups: dict[tuple[int, int, int], int] = {}
    for role, side, rewards in (
        (ATTACKER, played.attackers, attacker_rewards(played.games, played.answers) * _turns(played)),
        (DEFENDER, played.defenders, [g.defender_reward for g in played.games]),
    ):
        for i, (reward, part) in enumerate(zip(rewards, _parts(role, side, played), strict=True)):
            valid = reward is not None and role in trained and i not in side.fillers
            rows["prompt_ids"].append(side.prompts[i])
            rows["completion_ids"].append(side.sampled.ids[i])
            rows["logprobs"].append(side.sampled.logprobs[i])
            rows["env_mask"].append([int(valid)] * len(side.sampled.ids[i]))
            rows["role"].append(role)
            rows["score"].append(reward if reward is not None else 0.0)
            rows["valid"].append(int(valid))
            rows["slot"].append(groups.setdefault((role, side.slots[i], part), len(groups)))
    return rows


def attacker_rewards(games: Sequence[Game], answers: int) -> list[float | None]:
    """Each written attack's reward: the mean over those of its `answers` games that have one, None without any."""
    rewards = [g.attacker_reward for g in games if g.kind == "generated"]
    parts = [[r for r in rewards[i : i + answers] if r is not None] for i in range(0, len(rewards), answers)]
    return [sum(part) / len(part) if part else None for part in parts]


def _turns(played: Played) -> int:
    """Turns of the step's written attacks: each is paid what the whole attack is."""
    return max(played.attackers.turns, default=0) + 1


def _parts(role: int, side: Side, played: Played) -> Iterator[int]:
    """For each row the number of its group within its slot: its turn; of several answers to an attack, the attack's."""
    if role == ATTACKER:
        yield from side.turns or [0] * len(side.prompts)
        return
    seen = 0
    for game in played.games:
        many = game.kind == "generated" and played.answers > 1
        yield 1 + seen // played.answers if many else 0
        seen += many
