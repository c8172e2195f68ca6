"""What is said in a step's games before the last answer: attacks in one turn or several, and the answers between them.

Every turn that the attacker writes is a row of the attacker; the answers between turns are played by the defender but
train nobody: nothing judges them. A game whose attack cannot be played (no words, or the format of the chain of thought
broken) becomes a filler: the defender is asked the plain seed, and the row does not train it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sparring.config.run import GameConfig
from sparring.errors import ModelError
from sparring.game.prompts import (
    TURN,
    attacker_prompt,
    clean_attack,
    next_turn_prompt,
    playable,
    split_turns,
)
from sparring.game.records import BROKEN_ATTACK, LABELS
from sparring.game.schedule import Slot
from sparring.policy.chat import ChatEncoder, fits
from sparring.policy.generate import Sampled
from sparring.policy.turns import Conversation, TurnEncoder
from sparring.train.roles import ATTACKER, DEFENDER, Roles

WORDLESS: Final = "attack without words"
_TURN_STREAM: Final = 1_000_000_007
"""Between the random streams of two turns: more than there are steps."""
_FEWEST: Final = 8
"""Tokens of a seed that must survive behind the attacker's role prompt."""


@dataclass(frozen=True)
class Side:
    """One role's rows of a step: prompts and sampled completions, as token ids, in the same order.

    `slots` has the number of each row's slot in the step's schedule. `turns` has the turn that an attacker's row wrote,
    from 0, and `fillers` the rows that were played only because a step has a fixed number of them.
    """

    prompts: list[list[int]]
    sampled: Sampled
    slots: list[int]
    turns: list[int] = field(default_factory=list)
    fillers: frozenset[int] = frozenset()


@dataclass
class Talk:
    """One game before its last answer. `index` is its slot's number; `trouble` says why it cannot be played."""

    slot: Slot
    index: int
    turns: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def attack(self) -> str:
        """The whole attack, as the pool keeps it."""
        return TURN.join(self.turns)

    @property
    def asked(self) -> str:
        """The whole attack as the judge reads it."""
        return "\n".join(self.turns)

    @property
    def conversation(self) -> Conversation:
        """What the defender sees before its next answer."""
        return Conversation(tuple(self.turns[: len(self.said) + 1]), tuple(self.said))


class Table:
    """Where a game is talked: encodes for both roles and samples from them. Randomness depends on (seed, step) alone.

    Raises ModelError when role prompts, a thought and an answer cannot fit.
    """

    def __init__(self, game: GameConfig, chat: ChatEncoder, seed: int) -> None:
        self.game, self.chat, self.seed = game, chat.mode(game.cot), seed
        self._attacker, self._turns = self.chat.roleless, TurnEncoder(chat.tokenizer, self.chat.template)
        self.room = game.max_prompt_tokens + self.chat.overhead
        self._check()

    def _check(self) -> None:
        fits(
            self.room + max(self.game.attack_room, self.game.answer_room),
            self.chat.context,
            f"prompts of {self.room} tokens (game.max_prompt_tokens and, with thoughts, the role text) and what is "
            "written behind them",
        )
        if (most := self._longest_role()) + _FEWEST > self.room:
            so_far = f", with {self.game.turns - 1} turns and answers before," if self.game.turns > 1 else ""
            raise ModelError(
                f"game.max_prompt_tokens {self.game.max_prompt_tokens} leaves no room for a seed: the attacker's role "
                f"prompt alone{so_far} takes {most} tokens",
                hint=f"set it to {self.game.max_prompt_tokens + most + _FEWEST - self.room} or more",
            )

    def _longest_role(self) -> int:
        """Tokens of the attacker's last prompt without a seed, when every turn and answer before is as long as may be.

        A prompt is cut at its end, where the newest answer and what is asked stand.
        """
        before, cot = self.game.turns - 1, self.game.cot
        prompts = [
            next_turn_prompt("", label, [""] * before, [""] * before, cot)
            if before
            else attacker_prompt("", label, cot)
            for label in LABELS
        ]
        alone = max(map(len, self._attacker.encode(prompts, 9**9)))
        return alone + before * (self.game.attack_tokens + self.game.answer_tokens)

    def attacks(self, roles: Roles, talks: Sequence[Talk], step: int) -> Side:
        """The attackers write every turn of `talks`, and hear the answer to each but the last."""
        rows = Side([], Sampled([], []), [])
        fillers: set[int] = set()
        for turn in range(self.game.turns if talks else 0):
            if turn:
                self._between(roles, talks, step * 2 + 1 + turn * _TURN_STREAM)
            prompts = self._attacker.encode([self._role(talk) for talk in talks], self.room)
            slots = [talk.index for talk in talks]
            stream = step * 2 + turn * _TURN_STREAM
            sampled = self.sample(roles, ATTACKER, prompts, slots, self.game.attack_room, stream)
            fillers |= {len(rows.prompts) + i for i, talk in enumerate(talks) if talk.trouble}
            for talk, (thought, text) in zip(talks, self._attacker.read(sampled.ids), strict=True):
                _write(talk, thought, text)
            rows.prompts.extend(prompts)
            rows.sampled.ids.extend(sampled.ids)
            rows.sampled.logprobs.extend(sampled.logprobs)
            rows.slots.extend(slots)
            rows.turns.extend([turn] * len(talks))
        for talk in talks:
            if talk.trouble:
                talk.turns, talk.said = [talk.slot.seed.text], []
        return Side(rows.prompts, rows.sampled, rows.slots, rows.turns, frozenset(fillers))

    def replay(self, roles: Roles, talks: Sequence[Talk], step: int) -> None:
        """The defender answers all turns but the last of pooled attacks that were told in several."""
        for turn in range(max((len(talk.turns) for talk in talks), default=1) - 1):
            going = [talk for talk in talks if turn + 1 < len(talk.turns)]
            self._between(roles, going, step * 2 + 1 + (turn + 1) * _TURN_STREAM + _TURN_STREAM // 2)

    def prompts(self, talks: Sequence[Talk]) -> list[list[int]]:
        """What the defender reads, as token ids."""
        many = iter(self._turns.encode([t.conversation for t in talks if t.said], self.room))
        one = iter(self.chat.encode([t.turns[0] for t in talks if not t.said], self.room))
        return [next(many if talk.said else one) for talk in talks]

    def sample(
        self, roles: Roles, role: int, prompts: list[list[int]], slots: list[int], tokens: int, stream: int
    ) -> Sampled:
        """A completion for each prompt, of a random stream of its own."""
        return roles.sample(
            role,
            prompts,
            slots=slots,
            max_new_tokens=tokens,
            temperature=self.game.temperature,
            seed=(self.seed * 1_000_003 + stream) % 2**63,
        )

    def _between(self, roles: Roles, talks: Sequence[Talk], stream: int) -> None:
        """An answer in each talk. One that broke the format is empty: nothing private is passed on."""
        prompts, slots = self.prompts(talks), [talk.index for talk in talks]
        sampled = self.sample(roles, DEFENDER, prompts, slots, self.game.answer_room, stream)
        for talk, answer in zip(talks, self.chat.decode(sampled.ids), strict=True):
            talk.said.append(answer)

    def _role(self, talk: Talk) -> str:
        seed = talk.slot.seed
        if not talk.turns:
            return attacker_prompt(seed.text, seed.label, self.game.cot)
        return next_turn_prompt(seed.text, seed.label, talk.turns, talk.said, self.game.cot)


def seated(slots: Sequence[Slot], group: int) -> list[Talk]:
    """A talk for each row of a slot's group; those of fresh and replayed prompts know their turns."""
    talks = []
    for index, slot in enumerate(slots):
        for _ in range(group):
            text = slot.replayed.attack if slot.replayed else slot.seed.text
            turns = split_turns(text) if slot.replayed else [text]
            talks.append(Talk(slot, index, [] if slot.kind == "generated" else turns))
    return talks


def _write(talk: Talk, thought: str | None, text: str | None) -> None:
    """The attacker's next turn; the seed stands in where there is none."""
    attack = clean_attack(text or "")
    if thought is not None:
        talk.thoughts.append(thought)
    if not talk.trouble:
        talk.trouble = BROKEN_ATTACK if text is None else "" if playable(attack) else WORDLESS
    talk.turns.append(talk.slot.seed.text if talk.trouble else attack)
