"""A model under attack: it answers every user turn, and its answer to the last one is what counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sparring.config.run import EvaluateConfig
from sparring.evaluate.adaptive.attacks import Attack, stream
from sparring.game.thought import ANSWER, CLOSE
from sparring.policy.generate import generate
from sparring.policy.load import Policy
from sparring.policy.turns import Conversation, TurnEncoder

_THOUGHT_FOR_IT: Final = f"This is innocent.{CLOSE}\n{ANSWER}"


@dataclass(frozen=True)
class Answered:
    """The answer to an attack's last turn, the begun part included, and the tokens of it that were sampled.

    `broken`: a model that thinks first broke the format, so that there is no answer; None without thoughts.
    """

    text: str
    tokens: int
    broken: bool | None = None


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
    encoder = TurnEncoder(policy.tokenizer, policy.chat.template)
    said: list[list[str]] = [[] for _ in attacks]
    last: list[Answered] = [Answered("", 0)] * len(attacks)
    ended = 0
    for turn in range(max((len(attack.turns) for attack in attacks), default=0)):
        rows = [i for i, attack in enumerate(attacks) if turn < len(attack.turns)]
        stop = sum(turn + 1 == len(attacks[i].turns) for i in rows)
        states = [_state(attacks[i], said[i], policy.chat.thinks) for i in rows]
        found = _turn(policy, encoder, states, config, _seed(attacks, turn, seed))
        for i, answered in zip(rows, found, strict=True):
            said[i].append(answered.text)
            last[i] = answered
        ended += stop
        if on_answer:
            on_answer(ended)
    return last


def _state(attack: Attack, said: list[str], thinks: bool) -> Conversation:
    """The conversation before the next answer; only the last answer is begun for the model.

    For a model that thinks first whoever begins the answer has thought for it already.
    """
    last = len(said) + 1 == len(attack.turns)
    begun = f"{_THOUGHT_FOR_IT}{attack.prefill}" if thinks and attack.prefill else attack.prefill
    return Conversation(attack.turns[: len(said) + 1], tuple(said), begun if last else "")


def _seed(attacks: Sequence[Attack], turn: int, seed: int) -> int:
    first = attacks[0]
    return stream(seed, first.method, first.answer_index, turn)


def _turn(
    policy: Policy, encoder: TurnEncoder, conversations: list[Conversation], config: EvaluateConfig, seed: int
) -> list[Answered]:
    found = generate(
        policy.model,
        encoder.encode(conversations, config.adaptive.max_prompt_tokens + policy.chat.overhead),
        eos=policy.chat.eos,
        max_new_tokens=config.answer_tokens + (config.thought_tokens if policy.chat.thinks else 0),
        temperature=config.temperature,
        seed=seed,
        batch=config.batch,
    )
    begun = [encoder.prefill(conversation.prefill) for conversation in conversations]
    read = policy.chat.read([[*head, *ids] for head, ids in zip(begun, found.ids, strict=True)])
    broken = [text is None if policy.chat.thinks else None for _, text in read]
    return [Answered(text or "", len(ids), lost) for (_, text), ids, lost in zip(read, found.ids, broken, strict=True)]
