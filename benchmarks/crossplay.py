"""Every past attacker of a line against every past defender: `python -m benchmarks crossplay [--quick]`.

    python -m benchmarks crossplay --store sparring-store --line default     a line of yours; its next report shows it

Players are the base model and all champions; with one adapter a role the attacker is the one stored beside the
champion. Each cell plays one game on each held-out harmful behaviour of the starter set, which no round trains on, by
the run file's own game settings and its gate judge. Without --store a line of the packaged model is made first, without
a gate: rounds of the default recipe (--quick: one round of two steps, no warm start). No peer: ratio is None.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._ratio import end
from sparring.config.run import DataConfig, RunConfig
from sparring.data.suites import build_suites
from sparring.embedding import default_embedder
from sparring.errors import UsageError
from sparring.evaluate.crossplay import CrossPlay, play_matrix, put_crossplay
from sparring.game.records import Game, Seed
from sparring.game.schedule import Composition, Schedule
from sparring.judge import load_gate_judge
from sparring.policy.generate import Sampled
from sparring.policy.load import load_policy
from sparring.registry import rounds
from sparring.registry.champion import append, read_log
from sparring.registry.checkpoints import load_checkpoint
from sparring.steps.entry import RunRequest, execute
from sparring.steps.players import champions, load_player
from sparring.steps.results import SelfplayResult
from sparring.store import Store, open_store
from sparring.train.roles import ATTACKER, DEFENDER, Roles, SharedRoles
from sparring.train.rollout import GamePlayer


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks crossplay")
    parser.add_argument("--store", help="root of a store; without it a line is made")
    parser.add_argument("--line", default="default")
    parser.add_argument("--behaviors", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the line that is made")
    parser.add_argument("--players", type=int, default=6, help="the base and the newest champions, at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    if given.quick:
        given.behaviors, given.rounds = min(given.behaviors, 8), 1
    with tempfile.TemporaryDirectory(prefix="sparring-crossplay-") as scratch:
        root = given.store or str(Path(scratch) / "store")
        store = open_store(root).scope(f"lines/{given.line}")
        if not given.store:
            make_line(root, given.line, given.rounds, quick=given.quick)
        began = time.monotonic()
        found = measure(store, Path(scratch) / "work", given.behaviors, given.players, given.seed)
    show(found)
    matrix = [found.row(attacker) for attacker in range(len(found.attackers))]
    put = {"stored": f"lines/{given.line}"} if given.store else {}
    end({
        "bench": "crossplay", "peer": None, "ratio": None, "n": found.behaviors, "checks": {
            "attackers": list(found.attackers), "defenders": list(found.defenders), "judge": found.judge,
            "asr": [[_rounded(cell.rate) for cell in row] for row in matrix],
            "interval": [[[_rounded(value) for value in cell.interval] for cell in row] for row in matrix],
            "void": sum(cell.void for cell in found.cells), "seconds": round(time.monotonic() - began, 1), **put,
        },
    })  # fmt: skip
    return 0


def make_line(root: str, line: str, count: int, *, quick: bool) -> None:
    """Plays rounds by the product's own steps; every candidate goes on, by an `override` record, without a gate."""
    small: dict[str, Any] = {
        "warm_start": {"steps": 0}, "game": {"generated_share": 0.25},
        "selfplay": {"steps": 2, "games": 8, "max_void_share": 1.0, "sft_examples": 4},
    }  # fmt: skip
    config = RunConfig.model_validate({"store": root, "line": line, **(small if quick else {})})
    store = open_store(root).scope(f"lines/{line}")
    request = RunRequest(store=root, line=line, config=rounds.save_config(store, config)).model_dump_json()
    for _ in range(count):
        number = execute("prepare", request)
        for step in ("selfplay", "update_pool"):
            execute(step, request, number)
        played = rounds.load_result(store, int(number), "selfplay", SelfplayResult)
        assert played
        append(
            store, expected_head=read_log(store).head, kind="override", actor="benchmarks crossplay", round=int(number),
            candidate=played.candidate, decision="INCONCLUSIVE", reason="a line to measure, ungated",
        )  # fmt: skip
        rounds.close(store, int(number), decision="INCONCLUSIVE", reason="a line to measure, ungated")


def measure(store: Store, work: Path, behaviors: int, players: int, seed: int) -> CrossPlay:
    """Plays the matrix of a line and stores it beside its last round. Raises UsageError for a line without champion."""
    number = rounds.last_round(store)
    claimed = json.loads(store.get(f"rounds/{number:06d}/claim.json"))
    config = rounds.load_config(store, claimed["config_digest"])
    digests = named_players(store, players)
    names = list(digests)
    seeds = held_out(behaviors)
    judge = load_gate_judge(config.judge, store)
    policy = load_policy(load_checkpoint(store, digests[names[-1]], work))
    schedule = Schedule(seeds, [], Composition(0, len(seeds), 0), 1.0, seed)
    player = GamePlayer(
        config.game, schedule, policy.chat, judge, default_embedder(), group=1, seed=seed, round_number=number
    )

    def play(attacker: int, defender: int) -> list[Game]:
        print(f"{names[attacker]} against {names[defender]}", file=sys.stderr)
        sides = {
            role: SharedRoles(load_player(store, digests[names[index]], role, work), player.chat.eos)
            for role, index in ((ATTACKER, attacker), (DEFENDER, defender))
        }
        return player.play(Pair(sides), 0).games

    cells = play_matrix(len(names), len(names), play)
    found = CrossPlay(
        attackers=tuple(names), defenders=tuple(names), digests=digests, behaviors=len(seeds), judge=judge.id,
        seed=seed, cells=cells,
    )  # fmt: skip
    put_crossplay(store, number, found)
    return found


@dataclass(frozen=True)
class Pair:
    """Each role is played by another policy."""

    sides: Mapping[int, Roles]

    def sample(self, role: int, prompts: Sequence[Sequence[int]], **asked: Any) -> Sampled:
        """See `Roles`."""
        return self.sides[role].sample(role, prompts, **asked)


def named_players(store: Store, most: int) -> dict[str, str]:
    """Digests of the base and of the newest champions, oldest first, by name. Raises UsageError without a champion."""
    crowned = list(reversed(champions(store)))
    if not crowned:
        raise UsageError(f"{store.url} has no champion yet: there is nobody to play against")
    kept = crowned[-max(most - 1, 1) :]
    by_digest = {record.champion: record.round for record in read_log(store).records if record.champion}
    base = str(json.loads(store.get("base.json"))["digest"])
    return {"base": base, **{f"round {by_digest[digest]}": digest for digest in kept}}


def held_out(most: int) -> list[Seed]:
    """One harmful prompt a behaviour of the starter set's evaluation suite: no round trains on them."""
    rows = build_suites(DataConfig()).table().to_pylist()
    wanted = [row for row in rows if row["kind"] == "harmful" and row["slice"] == "vanilla"]
    first = {row["behavior"]: row for row in reversed(wanted)}
    return [
        Seed(row["prompt_id"], row["prompt"], "harmful", behavior, source="starter")
        for behavior, row in sorted(first.items())
    ][:most]


def show(found: CrossPlay) -> None:
    """The matrix for people: attack success in per cent."""
    width = max(len(name) for name in found.defenders) + 2
    print(f"attack success, {found.behaviors} held-out behaviours a cell, judge {found.judge}")
    print("attacker \\ defender".ljust(22) + "".join(name.rjust(max(width, 18)) for name in found.defenders))
    for index, name in enumerate(found.attackers):
        print(name.ljust(22) + "".join(_cell(cell).rjust(max(width, 18)) for cell in found.row(index)))


def _cell(cell: Any) -> str:
    low, high = cell.interval
    return "–" if cell.rate is None else f"{cell.rate:.0%} ({low:.0%}–{high:.0%})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
