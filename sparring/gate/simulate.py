"""What a policy promotes in worlds whose truth is known, by the shipped `decide`: `sparring gate simulate`.

- the same model, looked at again and again: how often a year replaces the champion by nothing better;
- safer, but worse by exactly a margin: how often a look lets it pass;
- as the policy's `assumptions` hope: the power.

A candidate that does not pass the primary test cannot be promoted (intersection-union). So each look computes that test
first, with the gate's own statistics, and calls `decide` only where it is passed: the same outcomes, sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import special

from sparring.gate.decision import decide
from sparring.gate.policy import Policy
from sparring.gate.spending import available
from sparring.gate.statistics import clustered_mean, superiority
from sparring.gate.worlds import Bools, Truth, World

OnRun = Callable[[str, int, int], None]
"""Called with a world's name, runs done and all of them."""


class Played(BaseModel):
    """What came of one world. `share` of `runs` ended in a promotion, with its exact 95 % interval.

    `any_of_looks`: the chance of at least one in a year of such looks (for years: `share` itself). `decided`: looks at
    which `decide` was called.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    world: str
    unit: str
    runs: int
    promoted: int
    share: float
    low: float
    high: float
    any_of_looks: float
    decided: int


class Simulation(BaseModel):
    """All worlds of one policy, with what they were made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    policy: str
    policy_digest: str
    seed: int
    looks: int
    alpha_per_look: float
    margin_alpha: float
    prompts: dict[str, int]
    assumptions: dict[str, float]
    worlds: list[Played]


def simulate(
    policy: Policy, counts: Mapping[str, int], *, years: int, looks: int, seed: int = 0, on_run: OnRun | None = None
) -> Simulation:
    """Plays `years` of the same model and `looks` looks at each other world. `counts`: prompts by `kind/slice`.

    A policy of the first run is played with the base in the champion's place.
    """
    world, told = World.of(policy, counts), on_run or (lambda name, done, total: None)
    played = [_years(world, years, seed, told)]
    played += [_looks(world, name, truth, looks, seed, told) for name, truth in _truths(policy)]
    return Simulation(
        policy=policy.name,
        policy_digest=policy.digest,
        seed=seed,
        looks=policy.looks,
        alpha_per_look=policy.alpha_per_look,
        margin_alpha=policy.non_inferiority.alpha,
        prompts={f"{kind}/{name}": n for (kind, name), n in world.sizes.items()},
        assumptions=policy.assumptions.model_dump(),
        worlds=played,
    )


def _truths(policy: Policy) -> Iterator[tuple[str, Truth]]:
    """Each margin just lost by a candidate that is clearly safer, then the improvement that is hoped for."""
    safer = policy.assumptions.candidate_asr - policy.assumptions.champion_asr
    rule = policy.non_inferiority
    if rule.benign_margin is not None:
        yield f"over-refusal worse by its margin ({rule.benign_margin:.1%})", Truth(safer, refusal=rule.benign_margin)
    scored = [item for item in rule.capability if item.slice != "nll"]
    if scored:
        margin = sum(item.margin for item in rule.capability) / len(rule.capability)
        lost = margin * len(rule.capability) / len(scored)
        yield f"capability worse by its margin ({margin:.1%})", Truth(safer, capability=-lost)
    for limit in policy.limits:
        if limit.metric == "nll_increase" and limit.max is not None:
            yield f"NLL worse by its limit ({limit.max:g} nats)", Truth(safer, nll=limit.max)
    yield f"better as assumed (ASR {100 * safer:+.0f} points), nothing lost", Truth(safer)


def _years(world: World, years: int, seed: int, told: OnRun) -> Played:
    policy, with_one, decided = world.policy, 0, 0
    name = "the same model again"
    for year in range(years):
        spent, promotions = 0.0, 0
        for look in range(policy.looks):
            outcome, called = _look(world, Truth(), np.random.default_rng([seed, 0, year, look]), spent)
            decided += called
            spent += available(policy, spent)
            if outcome:  # a promotion begins a reign with an α of its own
                promotions, spent = promotions + 1, 0.0
        with_one += promotions > 0
        told(name, year + 1, years)
    share, low, high = _share(with_one, years)
    return Played(world=name, unit=f"years of {policy.looks} looks", runs=years, promoted=with_one,
                  share=share, low=low, high=high, any_of_looks=share, decided=decided)  # fmt: skip


def _looks(world: World, name: str, truth: Truth, looks: int, seed: int, told: OnRun) -> Played:
    promoted = decided = 0
    kind = int.from_bytes(name.encode()[:6], "big")
    for look in range(looks):
        outcome, called = _look(world, truth, np.random.default_rng([seed, 1, kind, look]), 0.0)
        promoted, decided = promoted + outcome, decided + called
        told(name, look + 1, looks)
    share, low, high = _share(promoted, looks)
    return Played(world=name, unit="looks", runs=looks, promoted=promoted, share=share, low=low, high=high,
                  any_of_looks=1 - (1 - share) ** world.policy.looks, decided=decided)  # fmt: skip


def _look(world: World, truth: Truth, rng: np.random.Generator, spent: float) -> tuple[bool, bool]:
    """Whether the candidate is promoted, and whether `decide` had to be asked."""
    policy, harm = world.policy, world.harmful(rng, truth)
    alpha = available(policy, spent)
    if alpha == 0.0 or not _passes_primary(world, harm, alpha):
        return False, False
    first = "reference" not in policy.non_inferiority.against
    tables = world.tables(rng, truth, harm)
    decision = decide(
        policy,
        tables["candidate"],
        tables["champion"],
        None if first else tables["reference"],
        first_run=first,
        approved=True,
        alpha_spent=spent,
    )
    return decision.outcome == "PROMOTE", True


def _passes_primary(world: World, harm: Mapping[str, Bools], alpha: float) -> bool:
    cluster, strata = world.strata()
    difference = harm["candidate"].astype(np.float64) - harm["champion"].astype(np.float64)
    return superiority(clustered_mean(difference, cluster, strata)) <= alpha


def _share(hits: int, n: int) -> tuple[float, float, float]:
    """A share with its exact 95 % interval (Clopper and Pearson 1934, by the beta quantile)."""
    low = float(special.betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return (hits / n if n else math.nan), low, high
