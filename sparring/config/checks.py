"""Rules that join several keys of a run file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparring.config.hooks import secrets_of
from sparring.config.judges import JudgeConfig, judge_problem
from sparring.config.run import DataConfig, ReplayConfig, RunConfig, SelfplayConfig


@dataclass(frozen=True)
class Problem:
    """One broken rule: the key to change, and a text that names the keys, their values and what is allowed."""

    path: tuple[str | int, ...]
    text: str


def cross_check(config: RunConfig) -> Problem | None:
    """The first broken rule, or None."""
    return next(_problems(config), None)


def _problems(config: RunConfig) -> Iterator[Problem]:
    yield from _multiples(config.selfplay)
    yield from _learners(config)
    yield from _players(config)
    yield from _lengths(config)
    yield from _shares(config.replay)
    yield from _sources(config.data)
    yield from _suites(config.data)
    yield from _judges(config.judge)
    yield from _scored(config)
    yield from _secrets(config)


def _multiples(selfplay: SelfplayConfig) -> Iterator[Problem]:
    for key, value in (("games", selfplay.games), ("micro_batch", selfplay.micro_batch)):
        if value % selfplay.group:
            text = f"selfplay.{key} = {value} must be a multiple of selfplay.group = {selfplay.group}"
            yield Problem(("selfplay", key), text)


def _learners(config: RunConfig) -> Iterator[Problem]:
    """Ablations that leave nobody who learns, or a term that would train whom another key freezes."""
    selfplay, share = config.selfplay, config.game.generated_share
    if not selfplay.train_attacker and not selfplay.train_defender:
        text = "selfplay.train_attacker and selfplay.train_defender are both false: nobody would learn"
        yield Problem(("selfplay", "train_attacker"), text)
    if not selfplay.train_defender and selfplay.train_attacker and share == 0:
        text = "selfplay.train_defender = false needs game.generated_share > 0: without it nobody attacks"
        yield Problem(("selfplay", "train_defender"), text)
    if not selfplay.train_defender and selfplay.sft_coef > 0:
        text = f"selfplay.train_defender = false needs selfplay.sft_coef = 0, not {selfplay.sft_coef:g}"
        yield Problem(("selfplay", "sft_coef"), f"{text}: the supervised term teaches the defender")
    if selfplay.trained_share < 1 and (selfplay.answers_per_attack > 1 or _compares_all(selfplay)):
        text = f"selfplay.trained_share = {selfplay.trained_share:g} leaves out groups that are paid alike: it needs "
        text += "estimator = grpo or baseline = group, and answers_per_attack = 1; else set it to 1"
        yield Problem(("selfplay", "trained_share"), text)
    if selfplay.games < (least := selfplay.group * selfplay.answers_per_attack):
        text = f"selfplay.games = {selfplay.games} must be at least selfplay.group x answers_per_attack = {least}"
        yield Problem(("selfplay", "games"), text)


def _compares_all(selfplay: SelfplayConfig) -> bool:
    """Whether a row is compared with the whole batch, so that its group alone does not say what it teaches."""
    return selfplay.estimator == "reinforce_pp" and selfplay.baseline == "batch"


def _players(config: RunConfig) -> Iterator[Problem]:
    """Opponents that nobody would meet, and an adapter where TRL takes the weights past it."""
    selfplay, share = config.selfplay, config.game.generated_share
    if selfplay.opponent == "start" and selfplay.train_attacker and selfplay.train_defender:
        text = (
            "selfplay.opponent = start plays a role that is not trained: set train_attacker or train_defender = false"
        )
        yield Problem(("selfplay", "opponent"), text)
    if selfplay.opponent == "league" and share == 0:
        text = "selfplay.opponent = league needs game.generated_share > 0: vanilla prompts have no attacker"
        yield Problem(("selfplay", "opponent"), text)
    if selfplay.rollouts == "vllm_server" and not selfplay.vllm.server:
        yield Problem(("selfplay", "vllm", "server"), "selfplay.rollouts = vllm_server needs selfplay.vllm.server")
    if selfplay.steps and config.game.temperature != 1:
        text = f"games that train need game.temperature = 1, not {config.game.temperature:g}"
        yield Problem(("game", "temperature"), f"{text}: the gradient is that of the policy at temperature 1")
    if selfplay.adapters != "none" and (head := [t for t in selfplay.lora.targets if t.endswith("lm_head")]):
        text = f"selfplay.lora.targets must not name {head[0]}: log-probabilities are computed from its plain weights"
        yield Problem(("selfplay", "lora", "targets"), text)


def _lengths(config: RunConfig) -> Iterator[Problem]:
    game = config.game
    if game.max_prompt_tokens < game.attack_tokens:
        text = f"game.max_prompt_tokens = {game.max_prompt_tokens} must be at least"
        yield Problem(
            ("game", "max_prompt_tokens"),
            f"{text} game.attack_tokens = {game.attack_tokens}: attacks are prompts",
        )


def _shares(replay: ReplayConfig) -> Iterator[Problem]:
    keys = ("sentinel_share", "stale_share", "all_fail_share", "over_refused_share")
    values = [getattr(replay, key) for key in keys]
    if sum(values) > 1 + 1e-9:
        listed = ", ".join(f"{key} = {value}" for key, value in zip(keys, values, strict=True))
        text = f"the shares of a draw must not exceed 1 together, they make {sum(values):.6g}: {listed}"
        yield Problem(("replay", keys[values.index(max(values))]), text)


def _sources(data: DataConfig) -> Iterator[Problem]:
    for key, sources in (("harmful", data.harmful), ("benign", data.benign)):
        for index, source in enumerate(sources):
            if source in sources[:index]:
                yield Problem(("data", key, index), f"data.{key} names {source!r} twice")


def _suites(data: DataConfig) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for index, suite in enumerate(data.suites):
        if suite.name == "starter" or suite.name.startswith("starter-"):
            yield Problem(("data", "suites", index, "name"), f"suite name {suite.name!r} belongs to the starter set")
        if (suite.name, suite.slice) in seen:
            text = f"suite {suite.name!r} has the slice {suite.slice!r} twice; give one of them another name or slice"
            yield Problem(("data", "suites", index, "name"), text)
        seen.add((suite.name, suite.slice))
    missing = {"harmful", "benign"} - {suite.kind for suite in data.suites}
    if not data.starter_suites and missing:
        text = f"data.starter_suites = false needs a {' and a '.join(sorted(missing))} suite in data.suites"
        yield Problem(("data", "starter_suites"), text)


def _judges(judge: JudgeConfig) -> Iterator[Problem]:
    if found := judge_problem(judge):
        yield Problem(*found)


def _secrets(config: RunConfig) -> Iterator[Problem]:
    """What a judge or hook takes from its environment as a secret would stand in the pipeline's specification."""
    endpoints = config.judge.endpoints.values()
    names = {name for one in endpoints for name in (one.api_key_env, *one.headers_env.values()) if name}
    names |= {secret.env for hook in config.hooks for secret in secrets_of(hook) if secret.env}
    if found := sorted(names & set(config.cluster.env)):
        text = f"cluster.env holds {found[0]}, which a judge or hook takes as a secret: name it under cluster.secrets"
        yield Problem(("cluster", "env", found[0]), text)


def _scored(config: RunConfig) -> Iterator[Problem]:
    """`graded` is paid by the score that not every judge gives."""
    endpoint = config.judge.endpoints.get(config.judge.reward)
    if config.game.reward == "graded" and endpoint and endpoint.format not in ("graded", "strongreject"):
        text = f"game.reward = graded needs harm scores from 1 to 5, and judge.reward = {config.judge.reward}"
        yield Problem(("game", "reward"), f"{text} (format {endpoint.format}) gives none; embedded-reward does")
