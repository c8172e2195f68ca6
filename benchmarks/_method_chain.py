"""One arm of `benchmarks method`: a chain of rounds played by the product's own steps, every candidate going on.

prepare ─► selfplay ─► update-pool ─► an `override` record in the champion log, so that the next round starts there:
what is compared is training, so nothing is gated. Arms of one seed share its warm start.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparring.config.checks import cross_check
from sparring.config.run import RunConfig
from sparring.data import starter
from sparring.errors import ConfigError
from sparring.game.prompts import attacker_prompt, clean_attack, playable
from sparring.game.records import Game
from sparring.game.schedule import composition
from sparring.registry import rounds
from sparring.registry.champion import append, read_log
from sparring.registry.checkpoints import load_checkpoint
from sparring.replay.games import read_games
from sparring.steps.entry import RunRequest, execute
from sparring.steps.results import SelfplayResult
from sparring.store import Store, open_store

WARM = "warm"
Settings = Mapping[str, Mapping[str, object]]
_FROZEN = {"train_attacker": False, "opponent": "start"}
_NO_REPLAY = {"replay": {"sampler": "none"}}

ARMS: Mapping[str, Settings] = {
    "base": {},
    WARM: {"selfplay": {"steps": 0}},
    "static": {"game": {"generated_share": 0.0}, "selfplay": {"train_attacker": False}, **_NO_REPLAY},
    "attacker only": {"selfplay": {"train_defender": False, "opponent": "start", "sft_coef": 0.0}, **_NO_REPLAY},
    "defender only": {"selfplay": _FROZEN, **_NO_REPLAY},
    "self-play": _NO_REPLAY,
    "self-play, cot": {"game": {"cot": True}, **_NO_REPLAY},
    "self-play, uniform": {"replay": {"sampler": "uniform"}},
    "self-play, ucb": {"replay": {"sampler": "ucb"}},
    "self-play, thompson": {"replay": {"sampler": "thompson"}},
    "self-play, learnability": {"replay": {"sampler": "learnability"}},
}
"""Arm → what it changes in the run file.

- `static`: no attacker; a fixed file of rewrites by the warm-started policy stands among the seeds, in the share that
  the others rewrite.
- `attacker only`, `defender only`: the other role is played by the round's starting policy. The supervised term teaches
  the defender, so that `attacker only` goes without it.
"""

_SMALL: Settings = {
    "warm_start": {"steps": 2, "batch": 8, "examples": 8, "helpful_examples": 24},
    "selfplay": {"games": 20, "sft_examples": 8},
}


@dataclass(frozen=True)
class Chain:
    """What every arm has alike: the store, rounds, and steps of a round of `self-play`, which set the token budget.

    `small` shrinks warm start and games to what shows that the cells work, and nothing else.
    """

    store: str
    rounds: int
    steps: int
    small: bool = False

    def line(self, arm: str, seed: int) -> str:
        """The model line of an arm."""
        return f"method-{arm.replace(', ', '-').replace(' ', '-')}-{seed}"

    def open(self, arm: str, seed: int) -> Store:
        """The line's store."""
        return open_store(self.store).scope(f"lines/{self.line(arm, seed)}")

    def config(self, arm: str, seed: int, attacks: tuple[Path, Path] | None = None) -> RunConfig:
        """The run file of an arm; `attacks` are the fixed ones of `static`, harmful and benign. Raises ConfigError."""
        asked: dict[str, Any] = {k: dict(v) for k, v in ARMS[arm].items()}
        for section, keys in _SMALL.items() if self.small else ():
            asked.setdefault(section, {}).update(keys)
        asked.setdefault("selfplay", {}).setdefault("steps", self.steps)
        data = {"harmful": ["starter", str(attacks[0])], "benign": ["starter", str(attacks[1])]} if attacks else {}
        config = RunConfig.model_validate(
            {"store": self.store, "line": self.line(arm, seed), "seed": seed, "data": data, **asked}
        )
        if problem := cross_check(config):
            raise ConfigError(f"arm {arm}: {problem.text}")
        if not config.selfplay.steps or arm == "self-play":
            return config
        budget = self.steps * tokens_a_step(self.config("self-play", seed))
        steps = max(1, round(budget / tokens_a_step(config)))
        return config.model_copy(update={"selfplay": config.selfplay.model_copy(update={"steps": steps})})


def tokens_a_step(config: RunConfig) -> int:
    """Most tokens that one step's games generate, both roles, thoughts included; replay in full."""
    plan = composition(config.game, config.selfplay, config.replay, pooled=10**9)
    answers = (plan.vanilla + plan.generated + plan.replayed) * config.game.answer_room
    return config.selfplay.group * (answers + plan.generated * config.game.attack_room)


def play(chain: Chain, arm: str, seed: int) -> None:
    """Plays what is missing of an arm's rounds. Its warm start must be there, but for `warm` and arms with thoughts."""
    config = chain.config(arm, seed, _fixed_attacks(chain, seed) if arm == "static" else None)
    if arm != WARM and not config.game.cot:
        _share_warm(chain, arm, seed)
    store = chain.open(arm, seed)
    request = RunRequest(store=config.store, line=config.line, config=rounds.save_config(store, config))
    for number in range(1, (1 if arm == WARM else chain.rounds) + 1):
        if rounds.load_end(store, number) is None:
            _round(store, request.model_dump_json())


def _round(store: Store, run: str) -> None:
    number = execute("prepare", run)
    for step in ("selfplay", "update_pool"):
        execute(step, run, number)
    played = rounds.load_result(store, int(number), "selfplay", SelfplayResult)
    assert played
    log, reason = read_log(store), "benchmarks method measures the chain, ungated"
    if not any(record.round == int(number) for record in log.records):
        append(
            store, expected_head=log.head, kind="override", actor="benchmarks method", round=int(number),
            candidate=played.candidate, decision="INCONCLUSIVE", reason=reason,
        )  # fmt: skip
    rounds.close(store, int(number), decision="INCONCLUSIVE", reason=reason)


def final_model(chain: Chain, arm: str, seed: int, work: Path) -> Path:
    """Folder of the model that an arm ended in; `base` is what its warm start began with."""
    store = chain.open(WARM if arm == "base" else arm, seed)
    if arm == "base":
        return load_checkpoint(store, str(json.loads(store.get("base.json"))["digest"]), work)
    champion = read_log(store).champion
    assert champion
    return load_checkpoint(store, champion, work)


def _share_warm(chain: Chain, arm: str, seed: int) -> None:
    """Gives an arm's new line the warm start of its seed: data, checkpoints and the record of the warm start."""
    target = Path(chain.store) / "lines" / chain.line(arm, seed)
    if target.exists():
        return
    source, part = Path(chain.store) / "lines" / chain.line(WARM, seed), target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, ignore=_unshared(source), copy_function=_link)
    part.rename(target)


def _unshared(source: Path) -> Any:
    """Keeps all of the first round but what its self-play made of the warm start, and every record of decisions."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        at = Path(folder).relative_to(source).as_posix()
        if at == ".":
            return set(names) & {"champion", "pool", "ledger", "configs", "leases"}
        if at == "rounds/000001":
            return set(names) - {"selfplay"}
        return set(names) - {"warm.json"} if at == "rounds/000001/selfplay" else set()

    return ignored


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)  # content-addressed objects are never changed in place
    except OSError:
        shutil.copy2(source, target)


def _fixed_attacks(chain: Chain, seed: int) -> tuple[Path, Path]:
    """Files of rewrites that the warm-started policy writes once, one in three training seeds, harmful and benign."""
    folder = Path(chain.store) / "attacks" / str(seed)
    files = (folder / "harmful.jsonl", folder / "benign.jsonl")
    if all(file.is_file() for file in files):
        return files
    from sparring.policy.generate import generate
    from sparring.policy.load import load_policy

    config = chain.config("self-play", seed).game
    policy = load_policy(final_model(chain, WARM, seed, folder / "checkpoints"))
    folder.mkdir(parents=True, exist_ok=True)
    share = config.generated_share / (1 - config.generated_share)
    for label, file in zip(("harmful", "benign"), files, strict=True):
        found = [s for s in starter.seeds() if s.label == label]
        seeds = random.Random(seed).sample(found, round(len(found) * share))
        prompts = policy.chat.encode([attacker_prompt(s.text, s.label) for s in seeds], config.max_prompt_tokens)
        sampled = generate(
            policy.model, prompts, eos=policy.chat.eos, max_new_tokens=config.attack_tokens, temperature=1.0, seed=seed
        )
        attacks = [clean_attack(text) for text in policy.chat.decode(sampled.ids)]
        rows = [
            {"prompt": a, "label": label, "behavior": s.behavior}
            for s, a in zip(seeds, attacks, strict=True)
            if playable(a)
        ]
        part = file.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.replace(file)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return files


def training(chain: Chain, arm: str, seed: int) -> dict[str, Any]:
    """What the chain cost and how it went: tokens written, seconds of training steps, varied groups, last attacks."""
    store = chain.open(arm, seed)
    games, lines = [], []
    for number in range(1, chain.rounds + 1):
        played = rounds.load_result(store, number, "selfplay", SelfplayResult)
        if played:
            games += read_games(store.get(played.games_key), played.games_key, number)
            lines += [json.loads(line) for line in store.get(played.curves_key).decode().splitlines()]
    steps = [line for line in lines if line["phase"] == "selfplay"]
    return {
        "tokens": int(sum(line["tokens"] for line in steps)),
        "seconds": float(sum(line["seconds"] for line in steps)),
        "steps": len(steps),
        "varied_groups": varied_groups(games),
        "attacks": _last_attacks(games),
    }


def varied_groups(games: list[Game]) -> float | None:
    """Share of the defender's groups whose rewards differ: the others carry no gradient past a group baseline."""
    groups: dict[tuple[object, ...], list[float]] = {}
    for game in games:
        if game.defender_reward is not None:
            key = (game.round, game.step, game.kind, game.seed_id, game.attack if game.kind != "generated" else "")
            groups.setdefault(key, []).append(game.defender_reward)
    full = [rewards for rewards in groups.values() if len(rewards) > 1]
    return float(np.mean([max(rewards) > min(rewards) for rewards in full])) if full else None


def _last_attacks(games: list[Game], most: int = 200) -> list[tuple[str, str]]:
    """The last attacks written, with their seeds: what diversity is measured on."""
    written = [(g.seed, g.attack) for g in games if g.kind == "generated" and not g.attacker_void]
    return written[-most:]


def cells(arms: list[str], seeds: list[int], extra: list[int]) -> Iterator[tuple[str, int]]:
    """(arm, seed) in the order in which they are played: whole seeds, so that what is there compares.

    `extra` seeds are for `static` and `self-play` alone, with the warm start that they need.
    """
    for seed in [*seeds, *extra]:
        for arm in ARMS:
            if arm in arms and (seed in seeds or arm in (WARM, "static", "self-play")):
                yield arm, seed
