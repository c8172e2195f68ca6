"""Supervised batches: refusals, self-distilled helpful answers and attacker demonstrations, as token tensors.

The helpful answers are the start model's own, kept only when the judge passes them ([SR]: self-distilled, so that
helpfulness does not drift towards another model's style). Targets are cut where the game cuts answers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparring.config.run import GameConfig, WarmStartConfig
from sparring.data.starter import Demonstration, Refusal
from sparring.errors import TrainingError
from sparring.game.prompts import attacker_prompt
from sparring.game.records import Seed
from sparring.game.thought import Thought
from sparring.judge.protocol import Judge, JudgeCase
from sparring.policy.chat import ChatEncoder
from sparring.policy.generate import generate
from sparring.policy.logprobs import pack_rows, tree_masks

IGNORED = -100
HELPFUL_TOKENS, REFUSAL_TOKENS = 3, 5
"""Tokens of an own helpful answer and of a refusal that are learnt: whether to help is said in the first few, and the
model goes on by itself."""
_DECAY = 0.4
"""Weight of each of these words in a lesson against the one before it."""
_DISTIL_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Example:
    """A prompt and the answer to learn, as token ids.

    `own`: words of the model that is taught, learnt by the distributions that they were drawn from. `decay`: how much
    less each word counts than the one before it.
    """

    prompt: list[int]
    answer: list[int]
    own: bool = False
    decay: float = 1.0


@dataclass(frozen=True)
class Lessons:
    """Examples by kind: what the warm start mixes."""

    refusals: list[Example]
    helpful: list[Example]
    attacks: list[Example]


_HELPING = (
    "This is innocent. I help.",
    "Nothing here does harm. I answer in full.",
    "A harmless request: I say what was asked for.",
)
_DECLINING = (
    "This asks for harm. I decline.",
    "Whatever the wording, an answer would do harm. I refuse politely.",
    "The aim is harmful, so I do not help with it.",
)
_ATTACKING: Mapping[str, tuple[str, ...]] = {
    "harmful": ("I keep the aim and wrap it in a pretext.", "A story may get it answered. The aim stays."),
    "benign": ("It must look suspicious and stay harmless.", "I use alarming words for an innocent aim."),
}
"""What is thought in the lessons of a model that does not think yet: short, so that it fits `game.thought_tokens`."""


def distil(
    model: Any, chat: ChatEncoder, judge: Judge, seeds: Sequence[Seed], game: GameConfig, seed: int
) -> list[Example]:
    """Openings of the model's own answers to benign seeds, without those whose whole answer the judge does not pass.

    With chain of thought the targets are whole completions: the model's own where it thinks already, else its plain
    answers behind a short thought of ours.
    """
    texts = [s.text for s in seeds]
    room = game.max_prompt_tokens + chat.overhead
    prompts = chat.encode(texts, room)
    tokens = game.answer_tokens + (game.thought_tokens if chat.thinks else 0)
    sampled = generate(model, prompts, eos=chat.eos, max_new_tokens=tokens, temperature=_DISTIL_TEMPERATURE, seed=seed)
    answers = [answer or "" for _, answer in chat.read(sampled.ids)]
    verdicts = judge.judge([JudgeCase(text, answer, "benign") for text, answer in zip(texts, answers, strict=True)])
    passed = [i for i, v in enumerate(verdicts) if v.benign_pass and (answers[i] or not game.cot)]
    if not game.cot:
        return [Example(prompts[i], sampled.ids[i][:HELPFUL_TOKENS], own=True, decay=_DECAY) for i in passed]
    if chat.thinks:
        return [Example(prompts[i], sampled.ids[i], own=True) for i in passed]
    return _thoughtful(chat.mode(True), [(texts[i], answers[i]) for i in passed], _HELPING, game)


def refusal_examples(
    chat: ChatEncoder,
    seeds: Sequence[Seed],
    refusals: Sequence[Refusal],
    topics: Mapping[str, str],
    game: GameConfig,
    rng: random.Random,
) -> list[Example]:
    """The opening of one refusal for each harmful seed, its topic filled in where the text has a slot for one."""
    texts = []
    for s in seeds:
        fitting = [r.text for r in refusals if s.category in topics or "{topic}" not in r.text]
        texts.append(rng.choice(fitting).replace("{topic}", topics.get(s.category, "")))
    if game.cot:
        pairs = [(s.text, text) for s, text in zip(seeds, texts, strict=True)]
        return _thoughtful(chat.mode(True), pairs, _DECLINING, game)
    prompts = chat.encode([s.text for s in seeds], game.max_prompt_tokens)
    answers = chat.encode_answers(texts, game.answer_tokens)
    return [Example(p, a[:REFUSAL_TOKENS], decay=_DECAY) for p, a in zip(prompts, answers, strict=True)]


def attack_examples(chat: ChatEncoder, demonstrations: Sequence[Demonstration], game: GameConfig) -> list[Example]:
    """Demonstrations of the attacker's role."""
    asked = [attacker_prompt(d.seed_text, d.label, game.cot) for d in demonstrations]
    if game.cot:
        thinking = chat.mode(True)
        prompts = thinking.roleless.encode(asked, game.max_prompt_tokens + thinking.overhead)
        options = [_ATTACKING[d.label] for d in demonstrations]
        thoughts = [
            Thought(o[i % len(o)], d.prompt) for i, (o, d) in enumerate(zip(options, demonstrations, strict=True))
        ]
        answers = thinking.encode_thoughts(thoughts, game.attack_room)
    else:
        prompts = chat.encode(asked, game.max_prompt_tokens)
        answers = chat.encode_answers([d.prompt for d in demonstrations], game.attack_tokens)
    return [Example(p, a) for p, a in zip(prompts, answers, strict=True)]


def _thoughtful(
    chat: ChatEncoder, pairs: Sequence[tuple[str, str]], thoughts: Sequence[str], game: GameConfig
) -> list[Example]:
    """Whole think-then-answer completions of (prompt, answer) pairs; the thoughts take turns."""
    prompts = chat.encode([prompt for prompt, _ in pairs], game.max_prompt_tokens + chat.overhead)
    whole = [Thought(thoughts[i % len(thoughts)], answer) for i, (_, answer) in enumerate(pairs)]
    answers = chat.encode_thoughts(whole, game.answer_room)
    return [Example(p, a) for p, a in zip(prompts, answers, strict=True)]


def warm_batches(lessons: Lessons, config: WarmStartConfig, rng: random.Random) -> list[list[Example]]:
    """The warm start's batches: the attacker's share first, then refusals, then helpful answers.

    Raises TrainingError without refusals or helpful answers: one kind alone would teach that kind for everything.
    """
    if not lessons.refusals or not lessons.helpful:
        raise TrainingError(
            f"the warm start has {len(lessons.refusals)} refusals and {len(lessons.helpful)} own helpful answers that "
            "the judge passes; it needs some of both",
            hint="give it a model that can answer, more seeds, or set warm_start.steps to 0",
        )
    attack_rows = round(config.batch * config.attacker_share) if lessons.attacks else 0
    refuse_rows = round((config.batch - attack_rows) * config.refusal_share)
    sizes = (attack_rows, refuse_rows, config.batch - attack_rows - refuse_rows)
    streams = [_endless(kind, rng) for kind in (lessons.attacks, lessons.refusals, lessons.helpful)]
    return [
        [next(stream) for stream, size in zip(streams, sizes, strict=True) for _ in range(size)]
        for _ in range(config.steps)
    ]


def _endless(items: Sequence[Example], rng: random.Random) -> Any:
    while True:
        for index in rng.sample(range(len(items)), len(items)):
            yield items[index]


def collate(examples: Sequence[Example], config: Any) -> dict[str, Any]:
    """Model inputs of a batch, packed into one row without padding (`pack_rows`): logits are made for answers only.

    `input_ids`, `position_ids` (1, W), `attention_mask` (1, 1, W, W) as a model with this transformers `config` takes
    it, `logits_to_keep` (K + 1,) and `labels` (1, K + 1) for K answer tokens. A causal loss compares logits with the
    next label, hence one more of each.
    """
    packed = pack_rows([e.prompt for e in examples], [e.answer for e in examples])
    columns = [column for row in packed.columns for column in row]
    tokens = [token for e in examples for token in e.answer]
    return {
        "input_ids": packed.ids,
        "attention_mask": tree_masks(config, packed, packed.ids.device),
        "position_ids": packed.positions,
        "labels": torch.tensor([[IGNORED, *tokens]]),
        "logits_to_keep": torch.tensor([*columns, columns[-1]]),
    }
