"""Reward forms: what each promises, the format term, and forms of other packages, found as really installed ones."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparring.config.load import load_run
from sparring.errors import ConfigError
from sparring.game.rewards import BROKEN, FORMS, Outcome, Rewards, graded, load_form, outcomes, with_format
from sparring.train.advantages import role_normalised


def consistent(outcome: Outcome) -> bool:
    """Labels that one judge can give together: no refusal does harm, and only a harmful prompt can be obeyed in it."""
    faithful = not outcome.faithful or outcome.prompt_harmful == (outcome.label == "harmful")
    return faithful and not (outcome.harmful and (outcome.refused or not outcome.prompt_harmful))


OUTCOMES = [o for o in outcomes() if consistent(o)]


def normalised(rewards: list[float | None]) -> list[float]:
    """Advantages of one role's rows as the update makes them; 0 for rows without a reward."""
    returns = torch.tensor([[0.0 if r is None else r] for r in rewards])
    valid = torch.tensor([r is not None for r in rewards])
    ones = torch.ones_like(returns)
    return role_normalised(returns, ones, torch.zeros(len(rewards), dtype=torch.long), valid).flatten().tolist()


@given(st.lists(st.sampled_from(OUTCOMES), min_size=2, max_size=40), st.booleans())
def test_guarded_after_normalisation_no_drifted_row_outranks_a_faithful_one(games: list[Outcome], cot: bool) -> None:
    paid = [FORMS["general_sum_guarded"](game) for game in games]
    paid = [with_format(rewards) for rewards in paid] if cot else paid
    found = normalised([rewards.attacker for rewards in paid])
    drifted = [a for a, game in zip(found, games, strict=True) if not game.faithful]
    faithful = [a for a, game in zip(found, games, strict=True) if game.faithful]
    if drifted and faithful:
        assert max(drifted) < min(faithful)
    assert all(rewards.defender is None for rewards, game in zip(paid, games, strict=True) if not game.faithful)


@given(st.lists(st.sampled_from(OUTCOMES), min_size=2, max_size=20), st.data())
def test_void_rows_move_nothing(games: list[Outcome], data: st.DataObject) -> None:
    rewards = [FORMS["general_sum"](game).attacker for game in games]
    where = data.draw(st.integers(0, len(rewards)))
    with_void = normalised([*rewards[:where], None, *rewards[where:]])
    assert with_void.pop(where) == 0.0
    assert with_void == pytest.approx(normalised(list(rewards)), abs=1e-5)


@given(st.sampled_from(OUTCOMES), st.sampled_from(sorted(set(FORMS) - {"zero_sum"})))
def test_breaking_the_format_never_pays_more_than_keeping_it(outcome: Outcome, form: str) -> None:
    kept = with_format(FORMS[form](outcome))
    assert all(reward is None or reward >= BROKEN for reward in (kept.attacker, kept.defender))


@given(st.sampled_from(OUTCOMES))
def test_the_format_term_is_one_sided(outcome: Outcome) -> None:
    plain, kept = FORMS["zero_sum"](outcome), with_format(FORMS["zero_sum"](outcome))
    assert plain.attacker is not None and kept.attacker == plain.attacker + 1
    assert plain.defender is not None and kept.defender == plain.defender + 1


@given(st.sampled_from(OUTCOMES))
def test_graded_shares_one_point_and_blanket_refusal_does_not_win(outcome: Outcome) -> None:
    paid = graded(outcome)
    if outcome.prompt_harmful and outcome.score is not None:
        assert paid.attacker is not None and paid.defender is not None
        assert 0 <= paid.attacker <= 1 and paid.attacker + paid.defender == 1
    refusing = graded(replace(outcome, label="benign", prompt_harmful=False, refused=True, harmful=False, score=1))
    assert refusing == Rewards(1.0, 0.0)
    assert graded(replace(outcome, prompt_harmful=True, score=None)) == Rewards(None, None)


def install(site: Path, name: str, source: str, entry: str) -> None:
    """A package as pip leaves it: its module, and metadata with an entry point."""
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sparring.rewards]\n{entry}\n")


KIND = """
from sparring.game.rewards import Rewards

def kind(outcome):
    return Rewards(0.25 if outcome.faithful else -0.25, -1.0 if outcome.harmful else 1.0)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    load_form.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_form_of_an_installed_package_is_found_and_paid(site: Path) -> None:
    install(site, "kind_rewards", KIND, "kindly = kind_rewards:kind")
    assert load_run(None, ["game.reward=kindly"]).game.reward == "kindly"
    paid = load_form("kindly")(Outcome("harmful", prompt_harmful=True, refused=False, harmful=True))
    assert paid == Rewards(0.25, -1.0)


def test_checking_a_run_file_imports_neither_the_package_nor_torch(site: Path) -> None:
    install(site, "loud_rewards", "raise SystemExit('imported')", "loud = loud_rewards:form")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); from sparring.config.load import load_run\n"
        "load_run(None, ['game.reward=loud']); print([n for n in ('torch', 'loud_rewards') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_form_names_the_nearest_one(site: Path) -> None:
    install(site, "kind_rewards", KIND, "kindly = kind_rewards:kind")
    for wrong, near in (("zero-sum", "zero_sum"), ("kindley", "kindly")):
        with pytest.raises(ConfigError, match=f'game.reward = "{wrong}": no known form; did you mean `{near}`'):
            load_run(None, [f"game.reward={wrong}"])
    with pytest.raises(ConfigError, match=r"known are general_sum_guarded, .*, kindly"):
        load_run(None, ["game.reward=xyz"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere_at_all", "cannot be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("form = 3", "is no function but int"),
        ("def form(outcome):\n    return 1.0", "gives 1.0 for Outcome"),
        ("def form(outcome):\n    raise KeyError('x')", "fails at Outcome.*KeyError: 'x'"),
        (
            "from sparring.game.rewards import Rewards\ndef form(outcome):\n    return Rewards(float('nan'), 1.0)",
            "gives Rewards.*nan",
        ),
    ],
    ids=["import", "no function", "no rewards", "raises", "not finite"],
)
def test_a_broken_form_is_one_clear_line(site: Path, source: str, message: str) -> None:
    name = f"broken_{abs(hash(source))}"
    install(site, name, source, f"mine = {name}:form")
    with pytest.raises(ConfigError, match=message) as caught:
        load_form("mine")
    assert "reward form 'mine'" in str(caught.value) and "\n" not in str(caught.value)


def test_graded_needs_a_judge_that_scores() -> None:
    guard = "judge.endpoints={g: {format: wildguard, base_url: 'http://h:1/v1', model: m}}"
    with pytest.raises(ConfigError, match=r"game.reward = graded needs harm scores .*format wildguard"):
        load_run(None, [guard, "judge.reward=g", "game.reward=graded"])
    assert load_run(None, ["game.reward=graded"]).game.reward == "graded"
