"""The training curves and the games of a round, as the page shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sparring.report.measures import Rate, share
from sparring.report.svg import Ink

Values = Sequence[float | None]
_KINDS = {"vanilla": "Seed as it is", "generated": "Rewritten by the attacker", "replayed": "Replayed from the pool"}


@dataclass(frozen=True)
class Line:
    """One curve: a value a training step, None where the step recorded none; `band` holds the values' intervals."""

    name: str
    color: str
    values: Values
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """One small chart. `percent` says that values are shares, whose scale goes up to `most` at least."""

    title: str
    unit: str
    lines: Sequence[Line]
    percent: bool = False
    most: float = 0.0


@dataclass(frozen=True)
class Curves:
    """All training steps of a round; the first `warm` are the warm start. `dropped` lines could not be read."""

    steps: Sequence[Mapping[str, float]]
    warm: int
    dropped: int = 0

    def values(self, key: str, *, warm: bool = True) -> Values:
        """One value a step; `warm=False` leaves the warm start's steps empty."""
        return [None if index < self.warm and not warm else step.get(key) for index, step in enumerate(self.steps)]


@dataclass(frozen=True)
class GameShare:
    """The games of one kind: how often the defender refused, how often an attack worked, how many are void."""

    kind: str
    games: int
    refused_harmful: Rate | None
    refused_benign: Rate | None
    harmed: Rate | None
    void: int


def parse_curves(data: bytes) -> Curves:
    """Reads the curves' JSON lines; keeps finite numbers only. A line cut short by a crash is counted, not fatal."""
    steps: list[tuple[bool, dict[str, float]]] = []
    dropped = 0
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            dropped += 1
            continue
        if isinstance(record, dict):
            steps.append((record.get("phase") == "warm", _numbers(record)))
        else:
            dropped += 1
    ordered = [step for warm, step in steps if warm] + [step for warm, step in steps if not warm]
    return Curves(ordered, sum(warm for warm, _ in steps), dropped)


def panels(curves: Curves) -> list[Panel]:
    """The small charts that have anything to show."""
    found = [
        Panel("Refusals", "share of games", _refusals(curves), percent=True),
        Panel("Reward", "mean a game", _rewards(curves)),
        _single(curves, "Groups that teach", "share whose rewards differ", "informative", percent=True),
        _single(curves, "Distance from the start", "KL, nats a token", "kl"),
        _single(curves, "Entropy", "nats a token", "entropy"),
        _single(curves, "Void games", "share of games", "void", percent=True),
        _single(curves, "Gradient norm", "before clipping", "grad_norm"),
        _single(curves, "Loss", "as optimised", "loss"),
        _single(curves, "Faithful rewrites", "share of rewrites", "faithful", percent=True),
        Panel("Variety of the attacks", "of a step", _variety(curves), percent=True),
        _single(curves, "Broken answers", "share of games", "degenerate", percent=True),
    ]
    return [panel for panel in found if any(_present(line.values) for line in panel.lines)]


def game_shares(table: pa.Table) -> list[GameShare]:
    """The games by kind, in the order vanilla, generated, replayed; kinds without a game are left out."""
    rows = table.select(["kind", "label", "refused", "harmful", "reason"]).to_pylist()
    found = [_games(name, [row for row in rows if row["kind"] == kind]) for kind, name in _KINDS.items()]
    return [each for each in found if each.games]


def _games(name: str, rows: Sequence[Mapping[str, object]]) -> GameShare:
    harmful = [row for row in rows if row["label"] == "harmful"]
    benign = [row for row in rows if row["label"] == "benign"]
    return GameShare(
        kind=name,
        games=len(rows),
        refused_harmful=_share(row["refused"] for row in harmful),
        refused_benign=_share(row["refused"] for row in benign),
        harmed=_share(row["harmful"] for row in harmful),
        void=sum(bool(row["reason"]) for row in rows),
    )


def _share(values: Iterable[object]) -> Rate | None:
    judged = [value for value in values if value is not None]
    return share(sum(map(bool, judged)), len(judged)) if judged else None


def _refusals(curves: Curves) -> list[Line]:
    return [
        Line("harmful", Ink.HARM, curves.values("refused_harmful")),
        Line("benign", Ink.HELP, curves.values("refused_benign")),
    ]


def _rewards(curves: Curves) -> list[Line]:
    return [
        Line("attacker", Ink.HARM, curves.values("attacker_reward", warm=False)),
        Line("defender", Ink.HELP, curves.values("defender_reward", warm=False)),
    ]


def _variety(curves: Curves) -> list[Line]:
    return [
        Line("in meaning", Ink.HARM, curves.values("inverse_sbert")),
        Line("in wording", Ink.HELP, curves.values("inverse_self_bleu")),
        Line("nearness to the seed", Ink.TEXT, curves.values("seed_similarity")),
    ]


def _single(curves: Curves, title: str, unit: str, key: str, *, percent: bool = False) -> Panel:
    return Panel(title, unit, [Line("", Ink.TEXT, curves.values(key))], percent)


def _present(values: Values) -> bool:
    return any(value is not None for value in values)


def _numbers(record: Mapping[str, object]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
