"""From a round's games to rows of the pool. Pure functions.

A pool attack is a generated game's attack whose attacker kept the rules: not void, label and topic of the seed kept.
An outcome is what one defender did with one pooled attack in one step, replayed or just written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.data.text import normalise
from sparring.errors import ConfigError, CorruptError
from sparring.game.records import Game
from sparring.game.rewards import FORMAT, load_form, outcomes
from sparring.replay import schema as schemas
from sparring.replay.identity import attack_id, event_id
from sparring.replay.vectors import Codes

Range = tuple[float, float]

_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}


def _games_schema() -> pa.Schema:
    columns = []
    for field in fields(Game):
        kind, _, optional = str(field.type).partition(" | ")
        columns.append(pa.field(field.name, _TYPES.get(kind, pa.string()), nullable=bool(optional)))
    return pa.schema(columns)


GAMES: pa.Schema = _games_schema()
"""The transcript table: one column a field of `Game`."""


@dataclass(frozen=True)
class SeedOrigin:
    """What the pool keeps about a seed beyond what a game's row says."""

    category: str
    source: str


def read_games(data: bytes, where: str, round_number: int) -> list[Game]:
    """The games of a transcript, Parquet bytes, in playing order. Raises CorruptError naming row, column and value."""
    try:
        table = schemas.conform(pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False), GAMES)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptError(f"games {where}: {schemas.one_line(error)}") from error
    games = sorted((Game(**row) for row in table.to_pylist()), key=lambda game: (game.step, game.game))
    for before, game in zip([None, *games], games, strict=False):
        if game.round != round_number:
            raise CorruptError(f"games {where}: game {game.game} is of round {game.round}, this is {round_number}")
        if before and (before.step, before.game) == (game.step, game.game):
            raise CorruptError(f"games {where}: step {game.step} has two games {game.game}")
    return games


def poolable(games: Iterable[Game]) -> dict[str, Game]:
    """Attack id → the first game in which an attack fit for the pool was played."""
    found: dict[str, Game] = {}
    for game in games:
        fit = game.kind == "generated" and not game.attacker_void and game.faithful
        if fit and normalise(game.attack):
            found.setdefault(attack_id(game.attack, game.seed_id), game)
    return found


def replayed(games: Iterable[Game]) -> set[str]:
    """Ids of the pooled attacks that were replayed."""
    return {game.attack_id for game in games if game.kind == "replayed" and game.attack_id}


def attack_rows(
    attacks: Mapping[str, Game], codes: Codes, led: Sequence[str], attacker: str, seeds: Mapping[str, SeedOrigin]
) -> pa.Table:
    """Rows of the table `attacks`; row i of `codes` and `led` belongs to the i-th attack. A seed not in `seeds` has no
    origin.
    """
    unknown = SeedOrigin("", "")
    rows = [
        {
            "attack_id": name,
            "text": game.attack,
            "seed_id": game.seed_id,
            "seed": game.seed,
            "label": game.label,
            "behavior": game.behavior,
            "category": seeds.get(game.seed_id, unknown).category,
            "seed_source": seeds.get(game.seed_id, unknown).source,
            "source": "selfplay",
            "attacker": attacker,
            "origin_round": game.round,
            "origin_step": game.step,
        }
        for name, game in attacks.items()
    ]
    return pool_rows(rows, codes, led)


def pool_rows(rows: Sequence[Mapping[str, object]], codes: Codes, led: Sequence[str]) -> pa.Table:
    """A table `attacks` of rows without version, embedding and cluster; `led` are the leaders of their clusters."""
    added = ("schema_version", "embedding", "cluster")
    columns = tuple(name for name in schemas.ATTACKS.names if name not in added)
    table = pa.Table.from_pylist(rows, schema=schemas.part(schemas.ATTACKS, columns))
    version = pa.array([schemas.SCHEMA_VERSION] * len(rows), pa.int32())
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    for name, column in zip(added, (version, embedding, pa.array(led, pa.string())), strict=True):
        table = table.append_column(name, column)
    return table.select(schemas.ATTACKS.names)


def outcome_rows(games: Iterable[Game], pooled: Set[str], defender: str, scale: Range) -> pa.Table:
    """Rows of the table `outcomes`: one for each step and attack in `pooled`, over all its games of that step.

    `scale` is the range of raw defender rewards (see `defender_range`). Raises CorruptError for a reward outside it.
    """
    groups: dict[tuple[int, str], list[Game]] = {}
    for game in games:
        name = _pooled_name(game, pooled)
        if name:
            groups.setdefault((game.step, name), []).append(game)
    rows = [_outcome(name, played, defender, scale) for (_, name), played in groups.items()]
    return pa.Table.from_pylist(rows, schema=schemas.OUTCOMES)


@lru_cache
def defender_range(form: str, cot: bool = False) -> Range:
    """Least and greatest raw defender reward that a reward form of the run file can give to a judged game.

    With chain of thought the format term is in it: a judged game kept the format. Raises ConfigError.

    >>> defender_range("general_sum_guarded")
    (-2.0, 2.0)
    """
    form_of = load_form(form)
    rewards = [reward for outcome in outcomes() if (reward := form_of(outcome).defender) is not None]
    if not rewards:
        raise ConfigError(f"reward form {form!r} never pays the defender", hint="choose another game.reward")
    shift = FORMAT if cot else 0.0
    return min(rewards) + shift, max(rewards) + shift


def _pooled_name(game: Game, pooled: Set[str]) -> str | None:
    """The pooled attack that a game played. A replayed game says which; a generated one is known by its text."""
    if game.kind == "replayed":
        return game.attack_id if game.attack_id in pooled else None
    name = attack_id(game.attack, game.seed_id) if game.kind == "generated" else ""
    return name if name in pooled else None


def _outcome(name: str, games: Sequence[Game], defender: str, scale: Range) -> dict[str, object]:
    first, judged = games[0], [game for game in games if _is_judged(game)]
    rewards = list(_scaled(judged, scale))
    return {
        "event_id": event_id(first.round, first.step, first.game, name, defender),
        "attack_id": name,
        "round": first.round,
        "step": first.step,
        "defender": defender,
        "unsafe": sum(game.harmful is True for game in judged),
        "answers": len(judged),
        "refused": sum(game.refused is True for game in judged),
        "void": len(games) - len(judged),
        "defender_reward": math.fsum(rewards) / len(rewards) if rewards else None,
        "status": "ok" if rewards else "void",
        "schema_version": schemas.SCHEMA_VERSION,
    }


def _is_judged(game: Game) -> bool:
    """A label or reward that is missing never counts as safe, harmful, refused or complied."""
    labelled = game.harmful is not None and game.refused is not None
    return labelled and game.defender_reward is not None and not game.defender_void


def _scaled(games: Iterable[Game], scale: Range) -> Iterator[float]:
    """Raw rewards mapped linearly from `scale` to [0, 1]."""
    low, high = scale
    for game in games:
        reward = game.defender_reward
        if reward is None or not low <= reward <= high:  # NaN fails the comparison too
            raise CorruptError(
                f"game {game.game} of step {game.step}: `defender_reward` is {reward}, outside {low} to {high}"
            )
        yield (reward - low) / (high - low) if high > low else 0.5
