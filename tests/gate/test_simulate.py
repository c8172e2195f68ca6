"""`sparring gate simulate`: worlds are what they say, the early exit changes nothing, shipped policies are played."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sparring.cli.gate import app
from sparring.evaluate.tables import problems
from sparring.gate.decision import decide
from sparring.gate.policy import Policy, load_policy, shipped_policies
from sparring.gate.simulate import _passes_primary, simulate
from sparring.gate.worlds import Truth, World

LAPTOP = load_policy("laptop")


@pytest.mark.parametrize("name", shipped_policies())
def test_worlds_are_sound_tables_in_which_nothing_is_missing(name: str) -> None:
    policy, rng = load_policy(name), np.random.default_rng(1)
    world = World.of(policy, {})
    tables = world.tables(rng, Truth(), world.harmful(rng, Truth()))
    assert not [line for role, table in tables.items() for line in problems(table, role)]
    first = "reference" not in policy.non_inferiority.against
    reference = None if first else tables["reference"]
    decision = decide(policy, tables["candidate"], tables["champion"], reference, first_run=first, approved=True)
    assert decision.outcome in ("REJECT", "INCONCLUSIVE") and not decision.missing
    assert decision.prompts == {f"{kind}/{part}": n for (kind, part), n in world.sizes.items()}


def test_a_world_has_the_rates_discordance_and_changes_that_it_was_asked_for() -> None:
    world = World.of(LAPTOP, {f"{item.kind}/{item.slice}": 20_000 for item in LAPTOP.required})
    truth, rng = Truth(asr=-0.1, refusal=0.06, capability=-0.05, nll=0.2), np.random.default_rng(2)
    harm, assumed = world.harmful(rng, truth), LAPTOP.assumptions
    assert harm["champion"].mean() == pytest.approx(assumed.champion_asr, abs=0.02)
    assert (harm["champion"] != harm["reference"]).mean() == pytest.approx(assumed.asr_discordance, abs=0.02)
    assert harm["candidate"].mean() - harm["champion"].mean() == pytest.approx(-0.1, abs=0.02)
    tables = {role: table.to_pandas() for role, table in world.tables(rng, truth, harm).items()}
    benign = {role: frame[frame.kind == "benign"].refused.astype(float) for role, frame in tables.items()}
    assert benign["candidate"].mean() - benign["champion"].mean() == pytest.approx(0.06, abs=0.01)
    pair = (benign["champion"] != benign["reference"]).mean()
    assert pair == pytest.approx(assumed.benign_discordance, abs=0.02)
    scores = {role: frame[frame["slice"] == "nll"].score for role, frame in tables.items()}
    gap = np.log(scores["champion"]).mean() - np.log(scores["candidate"]).mean()
    assert gap == pytest.approx(0.2, abs=0.01)


def test_what_does_not_pass_the_primary_is_never_promoted() -> None:
    """So that leaving `decide` out changes no outcome."""
    policy = Policy.model_validate(LAPTOP.model_dump() | {"alpha": 0.2, "looks": 1})
    world, seen = World.of(policy, {}), set()
    for seed in range(24):
        rng = np.random.default_rng([3, seed])
        truth = Truth(asr=-0.02 * (seed % 6))
        harm = world.harmful(rng, truth)
        decision = decide(policy, *world.tables(rng, truth, harm).values(), first_run=False)
        passes = _passes_primary(world, harm, policy.alpha_per_look)
        assert (decision.endpoints[0].status == "pass") == passes
        seen.add(passes)
    assert seen == {True, False}


def test_the_same_seed_gives_the_same_figures_and_margins_hold() -> None:
    policy = Policy.model_validate(LAPTOP.model_dump() | {"looks": 3})
    found = simulate(policy, {}, years=8, looks=30, seed=4)
    assert found == simulate(policy, {}, years=8, looks=30, seed=4)
    same, *worse, better = found.worlds
    assert same.share <= 0.25 and all(world.share <= 0.2 for world in worse) and better.share >= 0.3
    assert all(world.low <= world.share <= world.high for world in found.worlds)


def test_the_command_says_what_it_played(tmp_path_factory: pytest.TempPathFactory) -> None:
    words = ["simulate", "--policy", "laptop", "--years", "1", "--looks", "2", "--counts", "harmful/vanilla=200"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "harmful/vanilla 200" in done.output and "the same model again" in done.output
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found["policy"] == "laptop" and found["worlds"][0]["runs"] == 1
    assert CliRunner().invoke(app, ["simulate", "--counts", "nonsense"]).exit_code == 2
