"""Power before the money is spent: can these suites show an improvement that is worth promoting, under this policy?

Normal approximations with the variance under the null for the critical value; clusters enter as a design effect.
Of the limits only `asr_increase` is planned, which is a margin; the others depend on the candidate alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from scipy import special

from sparring.gate.policy import Limit, Policy
from sparring.gate.statistics import both_exceed, null_variance

WANTED_POWER = 0.8
_CORRELATION = 0.5
"""Of the tests against champion and reference: both share the candidate's answers."""


class PlanRow(BaseModel):
    """Power of one endpoint. `effect` is the assumed true change, `detectable` the smallest shown with power .8.

    For non-inferiority `detectable` is the smallest margin that a candidate without any loss would keep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    endpoint: str
    n: int
    alpha: float
    discordance: float
    effect: float
    margin: float
    detectable: float
    comparators: int
    power: float


class PlanTable(BaseModel):
    """Powers of a policy's endpoints at given suite sizes; `power` is that of all together (taken as independent)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    policy: str
    rows: list[PlanRow]
    power: float
    promotable: bool
    false_promotion: float
    missing: list[str]
    warnings: list[str] = []

    def lines(self) -> list[str]:
        """The table in plain words, one line an endpoint and a verdict."""
        found = [_sentence(row) for row in self.rows] + [f"missing: {line}" for line in self.missing]
        found += [f"warning: {line}" for line in self.warnings]
        verdict = "can" if self.promotable else "cannot"
        found.append(
            f"a true improvement {verdict} be promoted at power {WANTED_POWER:g} (all endpoints: {self.power:.2f});"
            f" a candidate that is no better replaces a champion with chance {self.false_promotion:g} at most"
        )
        return found


def plan(policy: Policy, counts: Mapping[str, int]) -> PlanTable:
    """Power of `policy` with `counts` prompts by `kind/slice` (the keys of `Decision.prompts`)."""
    missing = [
        f"{item.kind}/{item.slice} has {counts.get(f'{item.kind}/{item.slice}', 0)} prompts, {item.min} are required"
        for item in policy.required
        if counts.get(f"{item.kind}/{item.slice}", 0) < item.min
    ]
    rows = [] if missing else _rows(policy, counts)
    power = math.prod(row.power for row in rows) if rows else 0.0
    return PlanTable(
        policy=policy.name,
        rows=rows,
        power=power,
        promotable=power >= WANTED_POWER,
        false_promotion=policy.alpha,
        missing=missing,
        warnings=[] if missing else _saturated(policy, counts),
    )


def assuming(policy: Policy, champion_asr: float) -> Policy:
    """The policy with another ASR of the champion in its assumptions: the fall and the share of prompts that differ
    shrink or grow with it."""
    assumed = policy.assumptions
    scale = champion_asr / assumed.champion_asr
    changed = {
        "champion_asr": champion_asr,
        "candidate_asr": assumed.candidate_asr * scale,
        "asr_discordance": min(1.0, assumed.asr_discordance * scale),
    }
    return policy.model_copy(update={"assumptions": assumed.model_copy(update=changed)})


def wins_needed(alpha: float) -> int:
    """Fewest wins without a loss that the exact one-sided McNemar test shows at level `alpha`: 2^−wins ≤ alpha.

    >>> [wins_needed(alpha) for alpha in (0.05, 0.025, 0.05 / 12, 0.05 / 52)]
    [5, 6, 8, 11]
    """
    return math.ceil(-math.log2(alpha) - 1e-12)


def superiority_power(effect: float, discordance: float, n: float, alpha: float, design_effect: float = 1.0) -> float:
    """Power of the paired test at true improvement `effect` (> 0): McNemar's normal approximation.

    Φ((effect − z_α √(d·D/n)) / √((d − effect²)·D/n)), d discordance, D design effect (Miettinen 1968, Biometrics 24).
    """
    quantile = float(special.ndtri(1 - alpha))
    critical = quantile * math.sqrt(discordance * design_effect / n)
    return float(special.ndtr((effect - critical) / math.sqrt((discordance - effect**2) * design_effect / n)))


def margin_power(margin: float, null_se: float, se: float, alpha: float, comparators: int = 1) -> float:
    """Chance that a candidate without loss keeps `margin` against one or two comparators (correlation .5)."""
    z = (margin - float(special.ndtri(1 - alpha)) * null_se) / se
    return float(special.ndtr(z)) if comparators == 1 else both_exceed(z, _CORRELATION)


def half_width(discordance: float, n: float, alpha: float = 0.05) -> float:
    """One-sided half-width z·√(d/n) of a paired difference near 0."""
    return float(special.ndtri(1 - alpha)) * math.sqrt(discordance / n)


def _rows(policy: Policy, counts: Mapping[str, int]) -> list[PlanRow]:
    rows = [_asr(policy, counts)]
    if policy.non_inferiority.benign_margin is not None:
        rows.append(_benign(policy, policy.non_inferiority.benign_margin, counts))
    rows.append(_capability(policy, counts))
    return rows + [_increase(policy, limit, counts) for limit in policy.limits if limit.metric == "asr_increase"]


def _saturated(policy: Policy, counts: Mapping[str, int]) -> list[str]:
    """A warning when the ASR leaves too few possible wins for the test, or the assumed difference brings too few."""
    assumed, alpha = policy.assumptions, policy.alpha_per_look
    n = sum(counts[f"harmful/{name}"] for name in policy.primary.slices)
    possible = assumed.champion_asr * n
    expected = min(possible, (assumed.asr_discordance + assumed.champion_asr - assumed.candidate_asr) / 2 * n)
    needed = wins_needed(alpha)
    if expected >= needed:
        return []
    return [
        f"the ASR is saturated: {assumed.champion_asr:.1%} of {n} prompts leave {possible:.0f} possible wins, about"
        f" {expected:.0f} are expected, and {needed} without a loss are needed at α = {alpha:.2g};"
        " ask for superiority on fresh attacks: policy `maintenance`"
    ]


def _asr(policy: Policy, counts: Mapping[str, int]) -> PlanRow:
    assumed, alpha = policy.assumptions, policy.alpha_per_look
    sizes = [counts[f"harmful/{name}"] for name in policy.primary.slices]
    n, d, inflation = _macro_size(sizes), assumed.asr_discordance, assumed.asr_design_effect
    effect = assumed.champion_asr - assumed.candidate_asr

    def power(change: float) -> float:
        return superiority_power(change, d, n, alpha, inflation)

    return PlanRow(
        endpoint=policy.primary.endpoint,
        n=sum(sizes),
        alpha=alpha,
        discordance=d,
        effect=-effect,
        margin=0.0,
        detectable=_smallest(power, d),
        comparators=1,
        power=power(effect),
    )


def _benign(policy: Policy, margin: float, counts: Mapping[str, int]) -> PlanRow:
    n = sum(count for name, count in counts.items() if name.startswith("benign/"))
    d, inflation = policy.assumptions.benign_discordance, policy.assumptions.benign_design_effect
    return _margin_row(policy, "benign", n, d, margin, [(d, n * 1.0, True)], inflation)


def _capability(policy: Policy, counts: Mapping[str, int]) -> PlanRow:
    """All listed slices are taken as sensitive; `nll` is the one that is not 0 or 1."""
    assumed, slices = policy.assumptions, policy.non_inferiority.capability
    margin = sum(item.margin for item in slices) / len(slices)
    parts = [
        (assumed.nll_spread**2 if item.slice == "nll" else assumed.choice_discordance,
         counts[f"capability/{item.slice}"] * len(slices) ** 2.0, item.slice != "nll")
        for item in slices
    ]  # fmt: skip
    n = sum(counts[f"capability/{item.slice}"] for item in slices)
    return _margin_row(policy, "capability", n, assumed.choice_discordance, margin, parts, 1.0)


def _increase(policy: Policy, limit: Limit, counts: Mapping[str, int]) -> PlanRow:
    """A margin on the ASR's rise. As many prompts may differ as the ceiling on these slices lets fail."""
    slices = limit.slices or policy.primary.slices
    ceilings = [other.max for other in policy.limits if other.metric == "asr" and other.slices == limit.slices]
    discordance = ceilings[0] if ceilings and ceilings[0] else policy.assumptions.asr_discordance
    sizes = [counts[f"harmful/{name}"] for name in slices]
    parts = [(discordance, _macro_size(sizes), True)]
    inflation = policy.assumptions.asr_design_effect
    return _margin_row(policy, limit.name, sum(sizes), discordance, limit.max or 0.0, parts, inflation)


def _margin_row(
    policy: Policy,
    name: str,
    n: int,
    discordance: float,
    margin: float,
    parts: Sequence[tuple[float, float, bool]],
    inflation: float,
) -> PlanRow:
    """`parts`: variance of a prompt's difference, effective prompts, whether the outcome is binary."""
    rule = policy.non_inferiority

    def power(edge: float) -> float:
        null = sum((_null(d, edge) if binary else d) / size for d, size, binary in parts)
        plain = sum(d / size for d, size, _ in parts)
        return margin_power(
            edge, math.sqrt(null * inflation), math.sqrt(plain * inflation), rule.alpha, len(rule.against)
        )

    return PlanRow(
        endpoint=name, n=n, alpha=rule.alpha, discordance=discordance, effect=0.0, margin=margin,
        detectable=_smallest(power, 0.5), comparators=len(rule.against), power=power(margin),
    )  # fmt: skip


def _null(discordance: float, margin: float) -> float:
    return max(discordance, null_variance(discordance / 2 * 1e6, discordance / 2 * 1e6, 1_000_000, margin))


def _macro_size(sizes: Sequence[int]) -> float:
    """Prompts of one pool whose mean is as precise as the macro average over slices of these sizes."""
    return len(sizes) ** 2 / sum(1.0 / size for size in sizes)


def _smallest(power: Callable[[float], float], most: float) -> float:
    """Smallest effect up to `most` with the wanted power, by bisection; `most` when even that has not."""
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= WANTED_POWER else (middle, high)
    return high


def _sentence(row: PlanRow) -> str:
    versus = "champion and reference" if row.comparators > 1 else "one comparator"
    if row.endpoint in ("asr", "asr_at_k"):
        what = (
            f"a fall by {-row.effect:.1%} is shown with power {row.power:.2f}; smallest with .8: {row.detectable:.1%}"
        )
    else:
        what = (
            f"margin {row.margin:.1%} is kept against {versus} with power {row.power:.2f} by a candidate without loss;"
            f" smallest margin with .8: {row.detectable:.1%}"
        )
        what += "; underpowered" if row.power < WANTED_POWER else ""
    return f"{row.endpoint}: {row.n} prompts, discordance {row.discordance:.0%}, α = {row.alpha:.2g}: {what}"
