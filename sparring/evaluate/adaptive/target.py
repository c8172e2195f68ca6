"""A model under attack: it answers every user turn, and its answer to the last one is what counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparring.config.run import EvaluateConfig
from sparring.evaluate.adaptive.attacks import Attack, stream
from sparring.policy.generate import generate
from sparring.policy.load import Policy
from sparring.policy.turns import Conversation, TurnEncoder


@dataclass(frozen=True)
class Answered:
    """The answer to an attack's last turn, the begun part included, and the tokens of it that were sampled."""

    text: str
    tokens: int


def answer_attacks(
    policy: Policy,
    attacks: Sequence[Attack],
    config: EvaluateConfig,
    seed: int,
    on_answer: Callable[[int], None] | None = None,
) -> list[Answered]:
    """One answer an attack; the same limits of tokens for every turn and model.

    `seed` is the round's: every (method, try, turn) has a stream of its own, the same for every model. `on_answer` is
    called with the number of conversations that have come to their end.
    """
    encoder = TurnEncoder(policy.tokenizer)
    said: list[list[str]] = [[] for _ in attacks]
    tokens, ended = [0] * len(attacks), 0
    for turn in range(max((len(attack.turns) for attack in attacks), default=0)):
        rows = [i for i, attack in enumerate(attacks) if turn < len(attack.turns)]
        stop = sum(turn + 1 == len(attacks[i].turns) for i in rows)
        found = _turn(policy, encoder, [_state(attacks[i], said[i]) for i in rows], config, _seed(attacks, turn, seed))
        for i, answered in zip(rows, found, strict=True):
            said[i].append(answered.text)
            tokens[i] = answered.tokens
        ended += stop
        if on_answer:
            on_answer(ended)
    return [Answered(texts[-1], size) for texts, size in zip(said, tokens, strict=True)]


def _state(attack: Attack, said: list[str]) -> Conversation:
    """The conversation before the next answer; only the last answer is begun for the model."""
    last = len(said) + 1 == len(attack.turns)
    return Conversation(attack.turns[: len(said) + 1], tuple(said), attack.prefill if last else "")


def _seed(attacks: Sequence[Attack], turn: int, seed: int) -> int:
    first = attacks[0]
    return stream(seed, first.method, first.answer_index, turn)


def _turn(
    policy: Policy, encoder: TurnEncoder, conversations: list[Conversation], config: EvaluateConfig, seed: int
) -> list[Answered]:
    found = generate(
        policy.model,
        encoder.encode(conversations, config.adaptive.max_prompt_tokens),
        eos=policy.chat.eos,
        max_new_tokens=config.answer_tokens,
        temperature=config.temperature,
        seed=seed,
        batch=config.batch,
    )
    begun = [encoder.prefill(conversation.prefill) for conversation in conversations]
    texts = policy.chat.decode([[*head, *ids] for head, ids in zip(begun, found.ids, strict=True)])
    return [Answered(text, len(ids)) for text, ids in zip(texts, found.ids, strict=True)]
