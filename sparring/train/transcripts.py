"""The transcript of a training: every game of every step, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.game.records import GAMES_VERSION, Game


class Transcripts:
    """Transcripts of the steps played so far, one file a step, so that a resumed training replaces what it replays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, step: int, games: Sequence[Game]) -> None:
        """Keeps a step's games in place of what a killed run left of it."""
        path = self.folder / "games" / f"{step:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(games_table(games), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def paths(self) -> list[Path]:
        """Files of the steps kept so far, in order; each is named after its step."""
        return sorted((self.folder / "games").glob("*.parquet"))

    def table(self) -> pa.Table:
        """All games kept so far, in the order of their steps."""
        paths = self.paths()
        if not paths:
            return games_table([])
        return pa.concat_tables([pq.read_table(path) for path in paths], promote_options="default")


def games_table(games: Sequence[Game]) -> pa.Table:
    """Transcripts as a table: one row a game, the fields of `Game` as columns."""
    types = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema(
        [
            pa.field(f.name, types.get(str(f.type).split(" ")[0], pa.string()), "None" in str(f.type))
            for f in fields(Game)
        ]
    )
    marked = schema.with_metadata({"sparring.schema": GAMES_VERSION})
    return pa.Table.from_pylist([asdict(game) for game in games], schema=marked)
