"""Verdict tables of models whose truth is known, in the slices and sizes of any policy: what `simulate` gates.

Each prompt has its own chance, the same for equally good models, so that two runs of one model differ by sampling: the
discordance of the policy's `assumptions`. Harmful prompts of the slices share behaviours (the i-th of each is one
behaviour); prompts of a behaviour share one draw with chance `alike`, which gives the assumed design effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparring.evaluate.verdicts import SCHEMA
from sparring.gate.policy import Kind, Policy
from sparring.gate.statistics import Floats, Ints

Bools = NDArray[np.bool_]
Labels = Mapping[str, Bools | Floats]
ROLES: Final = ("candidate", "champion", "reference")
DIGESTS: Final[Mapping[str, str]] = dict(zip(ROLES, (letter * 64 for letter in "abc"), strict=True))
"""Model digests by role."""

_KNOWN, _PROBABILITY = 0.55, 0.30
"""Share of questions answered rightly above chance's reach, and per-token probability of good answers."""
_CLUSTER: Final = 3
"""Benign prompts a behaviour."""


@dataclass(frozen=True)
class Truth:
    """How the candidate differs from champion and reference, which are equally good. Shares; `nll` in nats a token.

    `asr` < 0 is safer; `refusal` > 0 and `capability` < 0 are worse.
    """

    asr: float = 0.0
    refusal: float = 0.0
    capability: float = 0.0
    nll: float = 0.0


@dataclass(frozen=True)
class World:
    """A policy's slices with their numbers of prompts, by (kind, slice)."""

    policy: Policy
    sizes: Mapping[tuple[Kind, str], int]

    @classmethod
    def of(cls, policy: Policy, counts: Mapping[str, int]) -> World:
        """The required slices, each with `counts["kind/slice"]` prompts or the policy's least."""
        slices = [(item.kind, item.slice, item.min) for item in policy.required]
        return cls(policy, {(kind, name): counts.get(f"{kind}/{name}", least) for kind, name, least in slices})

    def harmful(self, rng: np.random.Generator, truth: Truth) -> dict[str, Bools]:
        """By role: which answers to the primary's slices are harmful, one slice after the other."""
        assumed, names = self.policy.assumptions, self.policy.primary.slices
        place = np.concatenate([np.arange(self.sizes["harmful", name]) for name in names])
        alike = min(1.0, max(0.0, (assumed.asr_design_effect - 1.0) / max(len(names) - 1, 1)))
        rate = _possible(assumed.champion_asr, assumed.asr_discordance)
        return runs(rng, place, rate, assumed.asr_discordance, alike, {"candidate": truth.asr})

    def strata(self) -> tuple[Ints, Ints]:
        """Behaviour and slice of each row that `harmful` gives."""
        sizes = [self.sizes["harmful", name] for name in self.policy.primary.slices]
        return np.concatenate([np.arange(n) for n in sizes]), np.repeat(np.arange(len(sizes)), sizes)

    def tables(self, rng: np.random.Generator, truth: Truth, harm: Mapping[str, Bools]) -> dict[str, pa.Table]:
        """Whole verdict tables by role around the given harmful answers."""
        parts: dict[str, list[pa.Table]] = {role: [] for role in ROLES}
        start = 0
        for name in self.policy.primary.slices:
            stop = start + self.sizes["harmful", name]
            for role in ROLES:
                hit = harm[role][start:stop]
                parts[role].append(_rows(role, "harmful", name, {"harmful": hit, "refused": ~hit}))
            start = stop
        for (kind, name), n in self.sizes.items():
            if kind == "harmful" and name in self.policy.primary.slices:
                continue
            for role, labels in self._others(rng, truth, kind, name, n).items():
                parts[role].append(_rows(role, kind, name, labels))
        return {role: pa.concat_tables(tables) for role, tables in parts.items()}

    def _others(
        self, rng: np.random.Generator, truth: Truth, kind: Kind, name: str, n: int
    ) -> dict[str, dict[str, Bools | Floats]]:
        assumed = self.policy.assumptions
        if kind == "harmful":  # beside the primary: attacks that a saturated champion withstands
            return {role: {"harmful": np.zeros(n, bool), "refused": np.ones(n, bool)} for role in ROLES}
        if kind == "benign":
            return {role: {"refused": hit, "passed": ~hit} for role, hit in self._refused(rng, truth, name, n).items()}
        if name == "nll":
            return {role: {"score": score} for role, score in _texts(rng, n, assumed.nll_spread, truth.nll).items()}
        right = runs(rng, np.arange(n), _KNOWN, assumed.choice_discordance, 0.0, {"candidate": truth.capability})
        return {role: {"score": hit.astype(np.float64)} for role, hit in right.items()}

    def _refused(self, rng: np.random.Generator, truth: Truth, name: str, n: int) -> dict[str, Bools]:
        """A slice that has a limit of its own is answered; the others carry all discordance and change."""
        limited = {part for limit in self.policy.limits if limit.metric == "over_refusal" for part in limit.slices}
        if name in limited:
            return {role: np.zeros(n, dtype=bool) for role in ROLES}
        benign = {part: count for (kind, part), count in self.sizes.items() if kind == "benign"}
        up = sum(benign.values()) / sum(count for part, count in benign.items() if part not in limited)
        discordance = min(0.45, self.policy.assumptions.benign_discordance * up)
        alike = min(1.0, (self.policy.assumptions.benign_design_effect - 1.0) / (_CLUSTER - 1))
        place = np.arange(n) // _CLUSTER
        worse = {"candidate": truth.refusal * up}
        return runs(rng, place, _possible(0.10 * up, discordance), discordance, alike, worse)


def _possible(rate: float, discordance: float) -> float:
    """The rate, or the nearest one at which two runs can differ that much: 2r(1 − r) > discordance."""
    edge = 0.5 - 0.5 * float(np.sqrt(max(0.0, 1.0 - 2.2 * discordance)))
    return float(np.clip(rate, edge, 1.0 - edge))


def runs(
    rng: np.random.Generator, place: Ints, rate: float, discordance: float, alike: float, changes: Mapping[str, float]
) -> dict[str, Bools]:
    """One run of each model, by role: which prompts were hit. `place` (n,) holds each prompt's behaviour.

    Chances are Beta, the same for all models but for their `changes` of the mean. Two draws of a chance p differ with
    2p(1 − p); for Beta with mean m and size s its mean is 2m(1 − m)·s/(s + 1), which gives s for the wanted
    discordance. A change turns each outcome that can still turn with the chance that gives the mean; models that
    changed alike turn on the same prompts.
    """
    behaviours = int(place.max()) + 1
    size = discordance / max(1e-9, 2.0 * rate * (1.0 - rate) - discordance)
    chance = rng.beta(rate * size, (1.0 - rate) * size, behaviours)[place]
    shared = (rng.random(behaviours) < alike)[place]

    def draw() -> Floats:
        return np.where(shared, rng.random(behaviours)[place], rng.random(len(place)))

    turn, found = draw(), {}
    for role in ROLES:
        change, hit = changes.get(role, 0.0), draw() < chance
        found[role] = hit & (turn >= -change / rate) if change < 0 else hit | (turn < change / (1.0 - rate))
    return found


def _texts(rng: np.random.Generator, n: int, spread: float, loss: float) -> dict[str, Floats]:
    """Per-token probabilities of good answers; `spread` is that of a prompt's difference."""
    level = _PROBABILITY * (1.0 + 0.1 * np.sin(np.arange(n)))
    noise = {role: rng.normal(0.0, spread / _PROBABILITY / np.sqrt(2.0), n) for role in ROLES}
    worse = {role: loss if role == "candidate" else 0.0 for role in ROLES}
    return {role: np.clip(level * np.exp(noise[role] - worse[role]), 0.0, 1.0) for role in ROLES}


def _rows(role: str, kind: Kind, name: str, labels: Labels) -> pa.Table:
    n = len(next(iter(labels.values())))
    clusters = {"harmful": np.arange(n), "benign": np.arange(n) // _CLUSTER, "capability": np.arange(n)}[kind]
    owner = kind if kind == "harmful" else f"{kind}-{name}"
    given: dict[str, object] = {
        "model": [DIGESTS[role]] * n,
        "suite": [f"simulated-{kind}"] * n,
        "slice": [name] * n,
        "kind": [kind] * n,
        "prompt_id": [f"{name}-{i}" for i in range(n)],
        "behavior": [f"{owner}-{i}" for i in clusters.tolist()],
        "answer_index": [0] * n,
        "label": ["" if kind == "capability" else kind] * n,
        "tokens": [1] * n,
        "judge": ["truth" if kind != "capability" else "log-likelihood"] * n,
        "status": ["ok"] * n,
        **({} if kind == "capability" else {"degenerate": np.zeros(n, dtype=bool)}),
        **labels,
    }
    columns = [
        pa.array(given[field.name], field.type) if field.name in given else pa.nulls(n, field.type) for field in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)
