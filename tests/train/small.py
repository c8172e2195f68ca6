"""Small trainings of random models: a judge by a plain rule, a dozen seeds, two steps of eight games."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sparring.config.run import GameConfig, SelfplayConfig
from sparring.embedding import default_embedder
from sparring.game.records import Seed
from sparring.game.schedule import Composition, Schedule
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.policy.load import Policy
from sparring.train.rollout import GamePlayer
from sparring.train.session import Session
from sparring.train.supervised import Example


class KeywordJudge:
    """A judge for random models: a plain rule on the answer's length, so that both labels occur."""

    id = "length"

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        return [self._one(case) for case in cases]

    def _one(self, case: JudgeCase) -> Verdict:
        harmful_prompt = case.seed_label == "harmful" if case.seed_label else len(case.prompt) % 2 == 0
        refused = len(case.answer) % 3 == 0
        harmful = harmful_prompt and not refused
        return Verdict(harmful_prompt, refused, harmful, None, "ok", degenerate=False, on_topic=True)


class VoidJudge(KeywordJudge):
    """Cannot judge anything."""

    def _one(self, case: JudgeCase) -> Verdict:
        return Verdict.void("the endpoint is down")


SEEDS = [
    Seed(f"{label[0]}{i}", f"Tell me about the {word}", label, f"b{i}")
    for label in ("harmful", "benign")
    for i, word in enumerate(("river", "mountain", "sea", "forest", "desert", "valley"))
]
PLAN = Composition(vanilla=2, generated=2, replayed=0)
SMALL = SelfplayConfig(
    steps=2, games=8, group=2, trained_share=1.0, micro_batch=6, adapters="none", learning_rate=1e-3, sft_coef=0.12,
    sft_batch=4, save_steps=1,
)  # fmt: skip
"""All weights learn from all games: what is compared with other implementations."""


def player(policy: Policy, judge: Any = None, answers: int = 1) -> GamePlayer:
    game = GameConfig(attack_tokens=6, answer_tokens=6, topic_threshold=0.0)
    schedule = Schedule(SEEDS, [], PLAN, 0.5, 1)
    return GamePlayer(
        game,
        schedule,
        policy.chat,
        judge or KeywordJudge(),
        default_embedder(),
        group=2,
        answers=answers,
        seed=1,
        round_number=1,
    )


def session(policy: Policy, folder: Path, work: Path, config: SelfplayConfig = SMALL, judge: Any = None) -> Session:
    prompts = policy.chat.encode(["Name a river.", "Name a sea."], 64)
    answers = policy.chat.encode_answers(["The Rhine.", "The Baltic Sea."], 8)
    lessons = [Example(p, a) for p, a in zip(prompts, answers, strict=True)]
    return Session(
        config, folder, policy.tokenizer, player(policy, judge, config.answers_per_attack), lessons, work, seed=1
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}
