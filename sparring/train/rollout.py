"""Plays the games of one training step: attackers write, defenders answer, the judge labels, rewards follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparring.config.run import GameConfig
from sparring.embedding import Embedder
from sparring.game.records import BROKEN_ANSWER, BROKEN_ATTACK, Game
from sparring.game.rewards import BROKEN, Outcome, Rewards, load_form, with_format
from sparring.game.schedule import Schedule
from sparring.judge.protocol import Judge, JudgeCase, Verdict
from sparring.policy.chat import ChatEncoder
from sparring.replay.identity import attack_id
from sparring.train.audit import Audit
from sparring.train.roles import DEFENDER, Roles
from sparring.train.talk import Side, Table, Talk, seated

__all__ = ["GamePlayer", "Played", "Side"]


@dataclass(frozen=True)
class Played:
    """A step's games with the token ids behind them.

    `attackers` has, for each turn, a row for each `answers` generated games. `measures` are values of the step's curve.
    """

    games: list[Game]
    attackers: Side
    defenders: Side
    answers: int = 1
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A defender's completion: what it thought, None without chain of thought, and its answer, None without one."""

    thought: str | None
    text: str | None


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
        audit: Audit | None = None,
    ) -> None:
        self.game, self.schedule, self.judge, self.embedder = game, schedule, judge, embedder
        self.group, self.answers, self.round, self.audit = group, answers, round_number, audit
        self.form, self.table = load_form(game.reward), Table(game, chat, seed)
        self.chat = self.table.chat

    def play(self, roles: Roles, step: int) -> Played:
        """Plays all games of `step` and judges them."""
        seats = seated(self.schedule.slots(step), self.group)
        attackers = self.table.attacks(roles, [talk for talk in seats if talk.slot.kind == "generated"], step)
        self.table.replay(roles, [talk for talk in seats if talk.slot.kind == "replayed"], step)
        talks = [talk for talk in seats for _ in range(self.answers if talk.slot.kind == "generated" else 1)]
        prompts, slots = self.table.prompts(talks), [talk.index for talk in talks]
        sampled = self.table.sample(roles, DEFENDER, prompts, slots, self.game.answer_room, step * 2 + 1)
        answers = [Answer(*parts) for parts in self.chat.read(sampled.ids)]
        games = self._judged(step, talks, answers)
        measures = self.audit.measure(step, games) if self.audit else {}
        return Played(games, attackers, Side(prompts, sampled, slots), self.answers, measures)

    def _judged(self, step: int, talks: Sequence[Talk], answers: Sequence[Answer]) -> list[Game]:
        seeds = self.embedder.embed([talk.slot.seed.text for talk in talks])
        attacks = self.embedder.embed([talk.asked for talk in talks])
        similarity = (seeds * attacks).sum(axis=1).tolist()
        games = zip(talks, answers, self._verdicts(talks, answers), similarity, strict=True)
        return [self._game(step, i, *game) for i, game in enumerate(games)]

    def _verdicts(self, talks: Sequence[Talk], answers: Sequence[Answer]) -> list[Verdict]:
        """The judge's word on every game in which there is an answer to an attack."""
        verdicts = [Verdict.void(_broken(talk, answer)) for talk, answer in zip(talks, answers, strict=True)]
        there = [i for i, verdict in enumerate(verdicts) if not verdict.reason]
        cases = [
            # the judge reads the label of a written attack itself; seeds and pooled attacks carry theirs
            JudgeCase(talk.asked, answer.text or "", None if talk.slot.kind == "generated" else talk.slot.seed.label)
            for talk, answer in ((talks[i], answers[i]) for i in there)
        ]
        for i, verdict in zip(there, self.judge.judge(cases), strict=True):
            verdicts[i] = verdict
        return verdicts

    def _game(self, step: int, index: int, talk: Talk, answer: Answer, verdict: Verdict, near: float) -> Game:
        seed, generated = talk.slot.seed, talk.slot.kind == "generated"
        faithful = not generated or (
            near >= self.game.topic_threshold and verdict.prompt_harmful == (seed.label == "harmful")
        )
        rewards, reason = self._rewards(talk, answer, verdict, faithful)
        return Game(
            round=self.round,
            step=step,
            game=index,
            kind=talk.slot.kind,
            seed_id=seed.id,
            seed=seed.text,
            label=seed.label,
            behavior=seed.behavior,
            attack_id=attack_id(talk.attack, seed.id),
            attack=talk.attack,
            answer=answer.text or "",
            prompt_harmful=verdict.prompt_harmful,
            refused=verdict.refused,
            harmful=verdict.harmful,
            degenerate=verdict.degenerate,
            similarity=float(near),
            faithful=faithful,
            attacker_reward=rewards.attacker if generated else None,
            defender_reward=rewards.defender,
            attacker_void=generated and (rewards.attacker is None or talk.trouble != ""),
            defender_void=rewards.defender is None or answer.text is None,
            reason=reason,
            attack_thought="\n\n".join(talk.thoughts) if talk.thoughts else None,
            answer_thought=answer.thought,
            said=json.dumps(talk.said, ensure_ascii=False) if talk.said else None,
        )

    def _rewards(self, talk: Talk, answer: Answer, verdict: Verdict, faithful: bool) -> tuple[Rewards, str]:
        """What both roles are paid, and why the game is void where it is. A broken format costs its role alone."""
        if talk.trouble == BROKEN_ATTACK:
            return Rewards(BROKEN, None), talk.trouble
        if talk.trouble or (answer.text is not None and not verdict.ok):
            return Rewards(None, None), talk.trouble if verdict.ok else verdict.reason
        if answer.text is None:
            return Rewards(None, BROKEN), BROKEN_ANSWER
        rewards = self.form(_outcome(talk, verdict, faithful))
        if rewards == Rewards(None, None):
            return rewards, f"reward {self.game.reward} pays nobody for this verdict"
        return with_format(rewards) if self.game.cot else rewards, ""


def _broken(talk: Talk, answer: Answer) -> str:
    return talk.trouble if talk.trouble == BROKEN_ATTACK else BROKEN_ANSWER if answer.text is None else ""


def _outcome(talk: Talk, verdict: Verdict, faithful: bool) -> Outcome:
    return Outcome(
        label=talk.slot.seed.label,
        prompt_harmful=bool(verdict.prompt_harmful),
        refused=bool(verdict.refused),
        harmful=bool(verdict.harmful),
        useful=not verdict.degenerate and verdict.on_topic is not False,
        faithful=faithful,
        score=verdict.score,
    )
