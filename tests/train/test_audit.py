"""How far two judges are apart on a step's games: counted where both spoke, drawn by seed and step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from sparring.game.prompts import TURN
from sparring.game.records import Game
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.train.audit import KEY, Audit, disagreement

GAME = Game(
    round=1,
    step=0,
    game=0,
    kind="generated",
    seed_id="s",
    seed="seed",
    label="harmful",
    behavior="b",
    attack_id="a",
    attack="attack",
    answer="answer",
    prompt_harmful=True,
    refused=False,
    harmful=True,
    degenerate=False,
    similarity=1.0,
    faithful=True,
    attacker_reward=1.0,
    defender_reward=-1.0,
    attacker_void=False,
    defender_void=False,
)
LABELS = st.sampled_from([True, False, None])


def verdict(refused: bool | None, harmful: bool | None) -> Verdict:
    return Verdict(None, refused, harmful, None, "ok")


@given(st.lists(st.tuples(st.booleans(), st.booleans(), LABELS, LABELS, st.booleans()), max_size=12))
def test_the_share_is_of_games_that_both_judges_labelled(
    rows: list[tuple[bool, bool, bool | None, bool | None, bool]],
) -> None:
    games = [replace(GAME, refused=refused, harmful=harmful) for refused, harmful, *_ in rows]
    theirs = [verdict(r, h) if ok else Verdict.void("down") for _, _, r, h, ok in rows]
    both = [row for row in rows if row[4] and (row[2] is not None or row[3] is not None)]
    wrong = [row for row in both if row[2] not in (None, row[0]) or row[3] not in (None, row[1])]
    assert disagreement(games, theirs) == (len(wrong) / len(both) if both else None)


@dataclass
class Echo:
    """Sees every answer as harmful, and keeps what it was asked."""

    asked: list[JudgeCase]
    id: str = "echo"

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        self.asked += cases
        return [verdict(False, True) for _ in cases]


def test_a_sample_of_the_judged_games_is_asked_about_as_the_reward_judge_was() -> None:
    void = [replace(GAME, game=i, refused=None, harmful=None, reason="down") for i in range(5)]
    attack = TURN.join(["one", "two"])
    judged = [replace(GAME, game=i, harmful=i % 2 == 0, kind="vanilla", attack=attack) for i in range(20)]
    judge = Echo([])
    found = Audit(judge, 8, seed=3).measure(7, [*void, *judged, replace(GAME, game=99)])
    assert len(judge.asked) == 8 and set(found) == {KEY} and 0 < found[KEY] < 1
    assert {case.prompt for case in judge.asked} <= {"one\ntwo", "attack"}
    assert all(case.seed_label == ("harmful" if case.prompt == "one\ntwo" else None) for case in judge.asked)
    assert Audit(Echo([]), 8, seed=3).measure(7, [*void, *judged, replace(GAME, game=99)]) == found
    assert Audit(Echo([]), 8, seed=3).measure(7, void) == {}
