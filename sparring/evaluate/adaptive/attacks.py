"""What an attack of the adaptive evaluation is, and which behaviours are attacked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa

from sparring.config.run import AdaptiveMethod
from sparring.errors import InvalidEvaluation
from sparring.game.records import Seed

SUITE = "adaptive"

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("behavior", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("request", pa.string(), nullable=False),
        pa.field("answer_index", pa.int32(), nullable=False),
        pa.field("turns", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
        pa.field("prefill", pa.string(), nullable=False),
        pa.field("written", pa.bool_(), nullable=False),
    ],
    metadata={"sparring.schema": "1"},
)
"""One row an attack. `model` is the digest of the model it was made for ("": the same attack for every model);
`prompt_id` and `answer_index` (the try) are those of the answers and verdicts; `turns` are the user's; `written` is
False where the attacker wrote nothing that can be played and the plain request stands in its place."""


@dataclass(frozen=True)
class Behavior:
    """A held-out harmful behaviour and the plain request that stands for it."""

    prompt_id: str
    behavior: str
    category: str
    request: str


@dataclass(frozen=True)
class Attack:
    """One try at one behaviour: a row of SCHEMA."""

    method: AdaptiveMethod
    prompt_id: str
    behavior: str
    category: str
    request: str
    answer_index: int
    turns: tuple[str, ...]
    prefill: str = ""
    written: bool = True
    model: str = ""

    @classmethod
    def on(
        cls,
        target: Behavior,
        method: AdaptiveMethod,
        attempt: int,
        turns: Sequence[str],
        *,
        prefill: str = "",
        written: bool = True,
        model: str = "",
    ) -> Attack:
        """An attack on `target`, try number `attempt` from 0."""
        key = f"{method}:{target.prompt_id}"
        place = (method, key, target.behavior, target.category, target.request, attempt)
        return cls(*place, turns=tuple(turns), prefill=prefill, written=written, model=model)


def draw_behaviors(suites: pa.Table, count: int, seed: int, held_out: Sequence[Seed] = ()) -> list[Behavior]:
    """`count` behaviours that never train (all, when there are fewer), in the order of the draw.

    They are those of the suites' harmful prompts and of the `held_out` seeds.

    A behaviour is told by its plain request: one of slice `vanilla` where there is one, a jailbreak of it only where
    there is nothing else. Raises InvalidEvaluation without a harmful prompt.
    """
    requests: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
    for row in suites.to_pylist():
        if row["kind"] == "harmful":
            rank = {"vanilla": 0, "adversarial": 2}.get(row["slice"], 1)
            requests.setdefault(row["behavior"], []).append((rank, row["prompt_id"], row))
    for held in held_out:
        row = {"category": held.category, "prompt": held.text}
        requests.setdefault(held.behavior, []).append((0, held.id, row))
    if not requests:
        raise InvalidEvaluation(
            "evaluate.adaptive: the suites hold no harmful prompt", hint="add a harmful suite, or list no methods"
        )
    rng = random.Random(f"{seed}/adaptive/behaviors")
    names = rng.sample(sorted(requests), min(count, len(requests)))
    return [_behavior(name, requests[name], rng) for name in names]


def _behavior(name: str, rows: list[tuple[int, str, dict[str, Any]]], rng: random.Random) -> Behavior:
    best = min(rank for rank, _, _ in rows)
    plain = sorted((key, row["category"], row["prompt"]) for rank, key, row in rows if rank == best)
    key, category, prompt = rng.choice(plain)
    return Behavior(key, name, category, prompt)


def stream(seed: int, *parts: object) -> int:
    """A seed of its own for each place that draws: 63 bits of SHA-256 over the round's seed and the parts."""
    text = "/".join(map(str, (seed, "adaptive", *parts)))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def attack_table(attacks: Sequence[Attack]) -> pa.Table:
    """Attacks under SCHEMA."""
    return pa.Table.from_pylist([{**asdict(attack), "turns": list(attack.turns)} for attack in attacks], SCHEMA)


def read_attacks(table: pa.Table) -> list[Attack]:
    """The attacks of a table under SCHEMA, or of one with more columns."""
    rows = table.select(SCHEMA.names).to_pylist()
    return [Attack(**{**row, "turns": tuple(row["turns"])}) for row in rows]
