"""Plays the games of one training step: attackers write, defenders answer, the judge labels, rewards follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparring.config.run import GameConfig
from sparring.embedding import Embedder
from sparring.game.prompts import attacker_prompt, clean_attack, playable
from sparring.game.records import Game
from sparring.game.rewards import Outcome, Rewards, load_form
from sparring.game.schedule import Schedule, Slot
from sparring.judge.protocol import Judge, JudgeCase, Verdict
from sparring.policy.chat import ChatEncoder
from sparring.policy.generate import Sampled
from sparring.replay.identity import attack_id
from sparring.train.roles import ATTACKER, DEFENDER, Roles


@dataclass(frozen=True)
class Side:
    """One role's rows of a step: prompts and sampled completions, as token ids, in the same order.

    `slots` has the number of each row's slot in the step's schedule.
    """

    prompts: list[list[int]]
    sampled: Sampled
    slots: list[int]


@dataclass(frozen=True)
class Played:
    """A step's games with the token ids behind them. `attackers` has a row for each `answers` generated games."""

    games: list[Game]
    attackers: Side
    defenders: Side
    answers: int = 1


@dataclass(frozen=True)
class Board:
    """One game before its answer: the attack that the defender will see."""

    slot: Slot
    attack: str
    playable: bool


class GamePlayer:
    """Plays steps with the policy as it is at the moment. Randomness depends on (seed, step) alone."""

    def __init__(
        self,
        game: GameConfig,
        schedule: Schedule,
        chat: ChatEncoder,
        judge: Judge,
        embedder: Embedder,
        *,
        group: int,
        answers: int = 1,
        seed: int,
        round_number: int,
    ) -> None:
        self.game, self.schedule, self.chat, self.judge, self.embedder = game, schedule, chat, judge, embedder
        self.group, self.answers, self.seed, self.round = group, answers, seed, round_number
        self.form = load_form(game.reward)

    def play(self, roles: Roles, step: int) -> Played:
        """Plays all games of `step` and judges them."""
        slots = self.schedule.slots(step)
        attackers, attacks = self._attack(roles, slots, step)
        boards = self._boards(slots, attacks)
        prompts = self.chat.encode([b.attack for b in boards], self.game.max_prompt_tokens)
        rows = [i for i, slot in enumerate(slots) for _ in range(self.group * self._answers(slot))]
        sampled = self._sample(roles, DEFENDER, prompts, rows, self.game.answer_tokens, step * 2 + 1)
        answers = self.chat.decode(sampled.ids)
        return Played(self._judged(step, boards, answers), attackers, Side(prompts, sampled, rows), self.answers)

    def _answers(self, slot: Slot) -> int:
        """Answers to one prompt text of the slot: written attacks may get several, each row of others is one."""
        return self.answers if slot.kind == "generated" else 1

    def _attack(self, roles: Roles, slots: list[Slot], step: int) -> tuple[Side, list[str]]:
        rows = [i for i, slot in enumerate(slots) if slot.kind == "generated" for _ in range(self.group)]
        asked = [attacker_prompt(slots[i].seed.text, slots[i].seed.label) for i in rows]
        if not asked:
            return Side([], Sampled([], []), []), []
        prompts = self.chat.encode(asked, self.game.max_prompt_tokens)
        sampled = self._sample(roles, ATTACKER, prompts, rows, self.game.attack_tokens, step * 2)
        return Side(prompts, sampled, rows), [clean_attack(text) for text in self.chat.decode(sampled.ids)]

    def _sample(
        self, roles: Roles, role: int, prompts: list[list[int]], slots: list[int], tokens: int, stream: int
    ) -> Sampled:
        return roles.sample(
            role,
            prompts,
            slots=slots,
            max_new_tokens=tokens,
            temperature=self.game.temperature,
            seed=(self.seed * 1_000_003 + stream) % 2**63,
        )

    def _boards(self, slots: Sequence[Slot], attacks: list[str]) -> list[Board]:
        boards, written = [], iter(attacks)
        for slot in slots:
            for _ in range(self.group):
                if slot.kind == "generated":
                    attack = next(written)
                    good = playable(attack)
                    boards += [Board(slot, attack if good else slot.seed.text, good)] * self.answers
                else:
                    text = slot.replayed.attack if slot.replayed else slot.seed.text
                    boards.append(Board(slot, text, True))
        return boards

    def _judged(self, step: int, boards: list[Board], answers: list[str]) -> list[Game]:
        seeds = self.embedder.embed([b.slot.seed.text for b in boards])
        attacks = self.embedder.embed([b.attack for b in boards])
        cases = [
            # the judge reads the label of a written attack itself; seeds and pooled attacks carry theirs
            JudgeCase(b.attack, answer, None if b.slot.kind == "generated" else b.slot.seed.label)
            for b, answer in zip(boards, answers, strict=True)
        ]
        verdicts = self.judge.judge(cases)
        similarity = (seeds * attacks).sum(axis=1).tolist()
        return [
            self._game(step, i, board, answer, verdict, near)
            for i, (board, answer, verdict, near) in enumerate(zip(boards, answers, verdicts, similarity, strict=True))
        ]

    def _game(self, step: int, index: int, board: Board, answer: str, verdict: Verdict, near: float) -> Game:
        seed, generated = board.slot.seed, board.slot.kind == "generated"
        faithful = not generated or (
            near >= self.game.topic_threshold and verdict.prompt_harmful == (seed.label == "harmful")
        )
        reason = verdict.reason if not verdict.ok else ("" if board.playable else "attack without words")
        void = not verdict.ok or not board.playable
        rewards = Rewards(None, None) if void else self.form(_outcome(board, verdict, faithful))
        if not void and rewards == Rewards(None, None):
            reason = f"reward {self.game.reward} pays nobody for this verdict"
        return Game(
            round=self.round,
            step=step,
            game=index,
            kind=board.slot.kind,
            seed_id=seed.id,
            seed=seed.text,
            label=seed.label,
            behavior=seed.behavior,
            attack_id=attack_id(board.attack, seed.id),
            attack=board.attack,
            answer=answer,
            prompt_harmful=verdict.prompt_harmful,
            refused=verdict.refused,
            harmful=verdict.harmful,
            degenerate=verdict.degenerate,
            similarity=float(near),
            faithful=faithful,
            attacker_reward=rewards.attacker if generated else None,
            defender_reward=rewards.defender,
            attacker_void=generated and rewards.attacker is None,
            defender_void=rewards.defender is None,
            reason=reason,
        )


def _outcome(board: Board, verdict: Verdict, faithful: bool) -> Outcome:
    return Outcome(
        label=board.slot.seed.label,
        prompt_harmful=bool(verdict.prompt_harmful),
        refused=bool(verdict.refused),
        harmful=bool(verdict.harmful),
        useful=not verdict.degenerate and verdict.on_topic is not False,
        faithful=faithful,
        score=verdict.score,
    )
