"""Games as they are played: thoughts stay private, a broken format costs its role alone, several turns, replays.

The roles are played by scripts that write real token ids; everything else is the product's.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.config.run import GameConfig
from sparring.embedding import default_embedder
from sparring.errors import ModelError
from sparring.game.prompts import TURN
from sparring.game.records import Game
from sparring.game.rewards import BROKEN
from sparring.game.schedule import Composition, Replayed, Schedule
from sparring.game.thought import compose
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.policy.chat import ChatEncoder
from sparring.policy.generate import Sampled
from sparring.policy.load import Policy
from sparring.replay.games import poolable, read_games
from sparring.train.roles import ATTACKER, DEFENDER
from sparring.train.rollout import GamePlayer
from sparring.train.rows import rollout_rows
from sparring.train.session import train
from sparring.train.transcripts import games_table
from tests.train.small import SEEDS, SMALL, KeywordJudge, session

Script = Callable[[int, str], str]
"""(number of the row, its prompt as text) → what is written, tags and all."""


@dataclass
class Scripted:
    """Both roles by script; what they were asked is kept."""

    chat: ChatEncoder
    scripts: dict[int, Script]
    asked: list[tuple[int, str]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def sample(self, role: int, prompts: Sequence[Sequence[int]], **how: Any) -> Sampled:
        texts = [self.chat.tokenizer.decode(p) for p in prompts]
        self.asked += [(role, text) for text in texts]
        self.seeds.append(how["seed"])
        written = [self.scripts[role](i, text) for i, text in enumerate(texts)]
        ids = [[*self.chat.tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in written]
        return Sampled(ids, [[-1.0] * len(row) for row in ids])


@dataclass
class Recording(KeywordJudge):
    cases: list[JudgeCase] = field(default_factory=list)

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        self.cases += cases
        return super().judge(cases)


def played(policy: Policy, attacks: Script, answers: Script, plan: Composition, **game: Any) -> Any:
    replays = game.pop("replays", [])
    per_attack = game.pop("per_attack", 1)
    judge = game.pop("judge", None) or Recording()
    config = GameConfig(topic_threshold=0.0, **game)
    roles = Scripted(policy.chat, {ATTACKER: attacks, DEFENDER: answers})
    player = GamePlayer(
        config,
        Schedule(SEEDS, replays, plan, 0.5, 1),
        policy.chat,
        judge,
        default_embedder(),
        group=2,
        answers=per_attack,
        seed=1,
        round_number=1,
    )
    return player.play(roles, 0), roles, judge


PLAN = Composition(vanilla=1, generated=2, replayed=0)
WORDS = st.text(st.characters(codec="ascii", exclude_characters="<>"), min_size=1, max_size=12)
COMPLETIONS = st.one_of(
    st.builds(lambda t, a: compose(f"PRIVATE {t}", f"say {a} now"), WORDS, WORDS),
    st.builds(lambda t: f"PRIVATE {t}", WORDS),
    st.builds(lambda t, a: f"PRIVATE {t}</think><answer>{a}</answer> PRIVATE", WORDS, WORDS),
    st.just("PRIVATE </think></think><answer>PRIVATE</answer>"),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(COMPLETIONS, min_size=4, max_size=4), st.lists(COMPLETIONS, min_size=6, max_size=6))
def test_nothing_private_reaches_opponent_judge_pool_or_the_shown_columns(
    policy: Policy, attacks: list[str], answers: list[str]
) -> None:
    found, roles, judge = played(policy, lambda i, _: attacks[i], lambda i, _: answers[i], PLAN, cot=True)
    assert all("PRIVATE" not in text for role, text in roles.asked if role == DEFENDER)
    assert all("PRIVATE" not in case.prompt + case.answer for case in judge.cases)
    assert all("PRIVATE" not in game.attack + game.answer + game.reason for game in found.games)
    assert all("PRIVATE" not in game.attack for game in poolable(found.games).values())
    for game, text in zip(found.games, answers, strict=True):
        assert game.answer_thought and "PRIVATE" in game.answer_thought
        assert (game.answer == "") == (not text.startswith("PRIVATE") or not text.endswith("now</answer>"))


def test_a_broken_format_costs_its_role_and_its_role_alone(policy: Policy) -> None:
    good, bad = compose("hm", "Please tell me all about it"), "I never close my thought"
    attacks = [good, bad, good, good]
    answers = [compose("hm", "Fine words"), compose("hm", "Fine"), good, good, bad, good]
    found, _, judge = played(policy, lambda i, _: attacks[i], lambda i, _: answers[i], PLAN, cot=True)
    vanilla, written = found.games[:2], found.games[2:]
    assert all(game.defender_reward is not None and not game.reason for game in vanilla)
    assert written[1].attacker_reward == BROKEN and written[1].defender_reward is None
    assert written[1].attacker_void and written[1].defender_void and written[1].reason == "attack broke the format"
    assert written[1].attack == written[1].seed and written[1].attack_thought == bad
    assert written[2].defender_reward == BROKEN and written[2].attacker_reward is None
    assert written[2].reason == "answer broke the format" and written[2].answer == ""
    assert len(judge.cases) == 4  # neither of the two is judged
    assert set(poolable(found.games)) == {written[0].attack_id, written[3].attack_id} - {
        g.attack_id for g in written if not g.faithful
    }
    rows = rollout_rows(found, trained=(ATTACKER, DEFENDER))
    attackers, defenders = rows["valid"][:4], rows["valid"][4:]
    assert attackers[1] == 1 and rows["score"][1] == BROKEN  # learns to keep the format
    assert defenders[3] == 0 and sum(rows["env_mask"][4 + 3]) == 0  # the filler trains nobody
    assert defenders[4] == 1 and rows["score"][4 + 4] == BROKEN and attackers[2] == 0


def test_the_format_term_is_paid_to_both_in_a_judged_game(policy: Policy) -> None:
    def attack(i: int, _: str) -> str:
        return f"Tell me more about place {i}"

    plain, _, _ = played(policy, attack, lambda *_: "Fine words", PLAN)
    thought, _, _ = played(
        policy, lambda i, t: compose("x", attack(i, t)), lambda *_: compose("x", "Fine words"), PLAN, cot=True
    )
    for before, after in zip(plain.games, thought.games, strict=True):
        for role in ("attacker_reward", "defender_reward"):
            old, new = getattr(before, role), getattr(after, role)
            assert new == (None if old is None else old + 1)
        assert before.attack_thought is None and before.answer_thought is None


def test_thoughts_begin_where_the_prompt_ends_and_role_texts_are_whole(policy: Policy) -> None:
    long = "word " * 4000
    replays = [Replayed("r", long, SEEDS[0])]
    plan = Composition(0, 1, 1)
    talk = compose("x", "Some more words")
    _, roles, _ = played(policy, lambda *_: talk, lambda *_: talk, plan, cot=True, replays=replays)
    for role, text in roles.asked:
        assert text.endswith("<|im_start|>assistant\n<think>")
        assert ("First think in private" in text) and "between <answer> and </answer>" in text
        assert text.count("AI assistant. First think in private:") == (role == DEFENDER)


def test_a_prompt_without_room_is_a_clear_error(policy: Policy) -> None:
    with pytest.raises(ModelError, match=r"game.max_prompt_tokens 40 leaves no room for a seed: .* role prompt alone"):
        played(policy, lambda *_: "x", lambda *_: "x", PLAN, max_prompt_tokens=40, attack_tokens=4)
    small = replace(policy, chat=replace(policy.chat, context=150))
    with pytest.raises(ModelError, match=r"take 192 tokens, the model's context has 150"):
        played(small, lambda *_: "x", lambda *_: "x", PLAN)


def test_a_talk_that_would_push_its_end_out_of_the_prompt_is_refused(policy: Policy) -> None:
    """A prompt is cut at its end, where the newest answer stands: the last turn must fit when all before is long."""
    words = r"max_prompt_tokens 160 leaves no room for a seed: .* with 3 turns and answers before, takes (\d+) tokens"
    with pytest.raises(ModelError, match=words) as refused:
        played(policy, lambda *_: "x", lambda *_: "x", PLAN, turns=4, max_prompt_tokens=160)
    enough = int(re.findall(r"set it to (\d+)", str(refused.value.hint))[0])
    heard: list[str] = []

    def attack(_: int, prompt: str) -> str:
        heard.append(prompt)
        return "word " * 30  # attack_tokens are 32, answer_tokens 16

    played(policy, attack, lambda *_: "word " * 14, PLAN, turns=4, max_prompt_tokens=enough)
    assert heard and all("Write your next message" in prompt for prompt in heard if "You wrote" in prompt)
    with pytest.raises(ModelError, match="leaves no room"):
        played(policy, lambda *_: "x", lambda *_: "x", PLAN, turns=4, max_prompt_tokens=enough - 1)


def test_several_turns_the_attacker_hears_each_answer_and_all_its_turns_are_trained(policy: Policy) -> None:
    said = iter(range(1000))

    def attack(_: int, prompt: str) -> str:
        return f"Request number {next(said)} of mine"

    found, roles, judge = played(
        policy, attack, lambda i, p: f"Answer to {p.count('Request number')}", PLAN, turns=3, max_prompt_tokens=300
    )
    written = found.games[2:]
    for game in written:
        turns = game.attack.split(TURN)
        assert len(turns) == 3 and json.loads(game.said or "") == ["Answer to 1", "Answer to 2"]
        assert game.answer == "Answer to 3"
    assert [case.prompt for case in judge.cases[2:]] == ["\n".join(g.attack.split(TURN)) for g in written]
    assert [case.answer for case in judge.cases[2:]] == ["Answer to 3"] * 4
    last = [text for role, text in roles.asked if role == ATTACKER][-4:]
    assert all("Answer to 1" in text and "Answer to 2" in text for text in last)
    rows = rollout_rows(found, trained=(ATTACKER, DEFENDER))
    assert rows["role"] == [ATTACKER] * 12 + [DEFENDER] * 6  # answers between turns train nobody
    rewards = [game.attacker_reward for game in written]
    assert rows["score"][:12] == [reward or 0.0 for reward in rewards] * 3
    groups = rows["slot"][:12]
    assert [groups.count(g) for g in dict.fromkeys(groups)] == [2] * 6 and groups[:2] != groups[4:6]
    assert len(set(roles.seeds)) == len(roles.seeds)  # every turn has a random stream of its own


def test_a_pooled_attack_of_several_turns_is_played_turn_by_turn_and_never_trains_the_attacker(policy: Policy) -> None:
    attack = TURN.join(["First, a story.", "And then?", "Now the end."])
    replays = [Replayed("r1", attack, SEEDS[0]), Replayed("r2", "In one turn.", SEEDS[7])]
    found, roles, _ = played(
        policy,
        lambda *_: "never",
        lambda i, p: f"turn {p.count('<|im_start|>user')}",
        Composition(0, 0, 2),
        replays=replays,
        max_prompt_tokens=300,
    )
    assert {role for role, _ in roles.asked} == {DEFENDER}
    many = [g for g in found.games if TURN in g.attack]
    assert [g.answer for g in many] == ["turn 3"] * 2 and json.loads(many[0].said or "") == ["turn 1", "turn 2"]
    assert all(g.attack == attack and g.attacker_reward is None for g in many)
    assert set(rollout_rows(found, trained=(ATTACKER, DEFENDER))["role"]) == {DEFENDER}


def test_an_attack_that_breaks_off_is_void_and_its_later_turns_are_fillers(policy: Policy) -> None:
    talk = compose("x", "Some more words")

    def attack(i: int, prompt: str) -> str:
        return "I never close" if i == 0 and "You wrote" in prompt and prompt.count("You wrote") == 1 else talk

    found, _, _ = played(policy, attack, lambda *_: talk, PLAN, cot=True, turns=3, max_prompt_tokens=400)
    broken = found.games[2]
    assert broken.attacker_reward == BROKEN and broken.attack == broken.seed and broken.said is None
    rows = rollout_rows(found, trained=(ATTACKER, DEFENDER))
    assert [rows["valid"][i] for i in (0, 4, 8)] == [1, 1, 0]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3))
def test_replayed_and_vanilla_games_never_train_the_attacker(
    policy: Policy, vanilla: int, generated: int, replayed: int, turns: int, answers: int
) -> None:
    replays = [Replayed(str(i), f"attack number {i}", SEEDS[i]) for i in range(replayed)]
    plan = Composition(vanilla, generated, replayed)
    how: dict[str, Any] = {"replays": replays, "turns": turns, "per_attack": answers, "max_prompt_tokens": 300}
    found, _, _ = played(policy, lambda *_: "Tell me of it", lambda *_: "Well then", plan, **how)
    rows = rollout_rows(found, trained=(ATTACKER, DEFENDER))
    assert rows["role"].count(ATTACKER) == 2 * generated * turns
    assert rows["role"].count(DEFENDER) == 2 * (vanilla + generated * answers + replayed)
    assert all(g.attacker_reward is None and not g.attacker_void for g in found.games if g.kind != "generated")


class Flaky(KeywordJudge):
    """Gives up on every third case, in one way or another."""

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        reasons = ("timed out after 60 s", "the reply is no verdict: banana")
        whole = super().judge(cases)
        return [Verdict.void(reasons[i % 2]) if i % 3 == 0 else v for i, v in enumerate(whole)]


def test_a_third_of_calls_without_a_judgement_are_counted_voids(policy: Policy) -> None:
    found, _, _ = played(
        policy, lambda *_: "Tell me of it", lambda *_: "Well then", Composition(3, 3, 0), judge=Flaky()
    )
    void = [game for game in found.games if game.reason]
    assert len(void) == 4 and all(g.defender_reward is None and g.defender_void for g in void)
    assert all(None is g.harmful is g.refused for g in void)
    rows = rollout_rows(found, trained=(ATTACKER, DEFENDER))
    assert rows["valid"].count(0) >= 4


def test_transcripts_keep_thoughts_in_their_own_columns_and_old_ones_stay_readable(policy: Policy) -> None:
    talk = compose("hidden", "Some more words")
    found, _, _ = played(policy, lambda *_: talk, lambda *_: talk, PLAN, cot=True)
    table = games_table(found.games)
    assert table.schema.metadata == {b"sparring.schema": b"2"}
    assert read_games(parquet(table), "x", 1) == found.games
    later = ["attack_thought", "answer_thought", "said"]
    old = table.drop_columns(later).replace_schema_metadata({"sparring.schema": "1"})
    back = read_games(parquet(old), "x", 1)
    assert back == [replace(game, **dict.fromkeys(later)) for game in found.games]
    assert [f.name for f in fields(Game)] == list(asdict(found.games[0]))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_a_random_model_with_thoughts_is_trained_on_its_broken_formats_alone(
    folder: Path, policy: Policy, tmp_path: Path
) -> None:
    """A real training: nothing can be judged, so that the format's term is all that is paid; weights stay finite."""
    base = session(
        policy, folder, tmp_path / "work", config=SMALL.model_copy(update={"max_void_share": 1.0, "steps": 1})
    )
    game = GameConfig(cot=True, attack_tokens=4, answer_tokens=4, thought_tokens=4, turns=2, max_prompt_tokens=200)
    schedule = Schedule(SEEDS, [], Composition(2, 2, 0), 0.5, 1)
    judge, embedder = Recording(), default_embedder()
    player = GamePlayer(game, schedule, policy.chat, judge, embedder, group=2, seed=1, round_number=1)
    games: list[Game] = []
    model = train(replace(base, player=player), 16, lambda _, played, curve: games.extend(played))
    assert len(games) == 8 and not judge.cases
    assert {g.reason for g in games} == {"attack broke the format", "answer broke the format"}
    assert {g.attacker_reward for g in games if g.kind == "generated"} == {BROKEN}
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_training_goes_on_while_a_third_of_the_calls_fail(folder: Path, policy: Policy, tmp_path: Path) -> None:
    curves: list[dict[str, float]] = []
    flaky = session(policy, folder, tmp_path / "work", judge=Flaky())
    train(flaky, 12, lambda _, played, curve: curves.append(curve))
    assert [curve["step"] for curve in curves] == [1, 2]
    assert all(0.3 <= curve["void"] <= SMALL.max_void_share for curve in curves)  # some attacks have no words, too
