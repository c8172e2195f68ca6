"""Worlds of the gate's benchmark: three models' verdict tables of the `standard` sizes, drawn from known truths.

1,000 harmful prompts are 500 behaviours, each once plain and once as a jailbreak; 1,800 benign prompts are 600
behaviours of three; 2,350 questions and 500 held-out answers stand alone. Each prompt has its own chance, the same for
equally good models, so that two runs of one model differ by sampling (the discordance). With chance `alike` (benign:
`benign_alike`) the prompts of a behaviour share one draw, which is what clusters the differences: a pair's correlation
is `alike`, the design effect 1 + (m - 1) · alike for m prompts a behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparring.evaluate.verdicts import SCHEMA
from sparring.gate.worlds import runs

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

HARMFUL, CHOICE, NLL = 1000, 2350, 500
BENIGN = (1200, 250, 350)
"""Benign prompts: lookalike, adversarial, plain."""
BENIGN_CLUSTER = 3
MODELS = {"candidate": "a" * 64, "champion": "b" * 64, "reference": "c" * 64}


@dataclass(frozen=True)
class Truth:
    """What is true of a candidate against the champion. Changes are in shares (points / 100), of the mean rate.

    `asr`, `refusal`, `knowledge`: rates of the champion. `*_discordance`: share of prompts on which two runs of one
    model differ. `asr_change` < 0 is safer; `refusal_change` > 0 and `knowledge_change` < 0 are worse; `nll_change` is
    how many nats per token the held-out answers become less likely,
    `champion_drift` the champion's over-refusal above the reference's.
    """

    asr: float = 0.20
    asr_discordance: float = 0.20
    refusal: float = 0.10
    benign_discordance: float = 0.10
    knowledge: float = 0.55
    choice_discordance: float = 0.10
    probability: float = 0.30
    nll_spread: float = 0.05
    alike: float = 0.3
    benign_alike: float = 0.15
    benign: tuple[int, int, int] = BENIGN
    asr_change: float = 0.0
    refusal_change: float = 0.0
    champion_drift: float = 0.0
    knowledge_change: float = 0.0
    nll_change: float = 0.0

    @property
    def design_effects(self) -> dict[str, float]:
        """Variance inflation of harmful and benign differences."""
        return {"harmful": 1 + self.alike, "benign": round(1 + (BENIGN_CLUSTER - 1) * self.benign_alike, 2)}


def tables(rng: np.random.Generator, truth: Truth) -> dict[str, pa.Table]:
    """Verdict tables of candidate, champion and reference; champion and reference are equally good."""
    harm, more = harmful(rng, truth), rest(rng, truth)
    return {role: labelled(MODELS[role], harm[role], *more[role], truth.benign) for role in MODELS}


def harmful(rng: np.random.Generator, truth: Truth) -> dict[str, Bools]:
    """Harmful answers by role: 500 plain, then the same behaviours as jailbreaks."""
    behaviours = HARMFUL // 2
    place = np.tile(np.arange(behaviours), 2)
    changes = {"candidate": truth.asr_change}
    return runs(rng, place, truth.asr, truth.asr_discordance, truth.alike, changes)


def rest(rng: np.random.Generator, truth: Truth) -> dict[str, tuple[Bools, Floats]]:
    """Refused benign prompts and capability scores by role."""
    benign, scores = refused(rng, truth), capability(rng, truth)
    return {role: (benign[role], scores[role]) for role in MODELS}


def refused(rng: np.random.Generator, truth: Truth) -> dict[str, Bools]:
    """Refused benign prompts by role. Everyday requests are answered: the others carry rate, discordance and change."""
    hard, up = benign_rates(truth)
    place = np.arange(hard) // BENIGN_CLUSTER
    drift = up * truth.champion_drift
    changes = {"champion": drift, "candidate": drift + up * truth.refusal_change}
    found = runs(rng, place, up * truth.refusal, up * truth.benign_discordance, truth.benign_alike, changes)
    plain = np.zeros(truth.benign[2], dtype=bool)
    return {role: np.concatenate([hits, plain]) for role, hits in found.items()}


def benign_rates(truth: Truth) -> tuple[int, float]:
    """Benign prompts that are not everyday requests, and by how much their rates are larger than the pooled ones."""
    hard = truth.benign[0] + truth.benign[1]
    return hard, sum(truth.benign) / hard


def capability(rng: np.random.Generator, truth: Truth) -> dict[str, Floats]:
    """Scores by role: 2,350 questions (0 or 1), then 500 per-token probabilities."""
    changes = {"candidate": truth.knowledge_change}
    knows = runs(rng, np.arange(CHOICE), truth.knowledge, truth.choice_discordance, 0.0, changes)
    level = truth.probability * (1.0 + 0.1 * np.sin(np.arange(NLL)))
    found: dict[str, Floats] = {}
    for role in MODELS:
        loss = truth.nll_change if role == "candidate" else 0.0
        spread = rng.normal(0.0, truth.nll_spread / truth.probability / np.sqrt(2.0), NLL)
        text = level * np.exp(-loss + spread)
        found[role] = np.concatenate([knows[role].astype(np.float64), np.minimum(text, 1.0)])
    return found


def labelled(model: str, harm: Bools, benign: Bools, score: Floats, sizes: tuple[int, int, int] = BENIGN) -> pa.Table:
    """A verdict table from what is harmful, refused and scored."""
    rows = HARMFUL + len(benign) + len(score)
    is_harmful = np.arange(rows) < HARMFUL
    is_capability = np.arange(rows) >= HARMFUL + len(benign)
    blank = {n: np.zeros(n, dtype=bool) for n in (HARMFUL, len(benign), len(score))}
    no_score, no_harm, no_benign = blank[len(score)], blank[HARMFUL], blank[len(benign)]
    labels: dict[str, tuple[NDArray[Any], Bools]] = {
        "refused": (np.concatenate([~harm, benign, no_score]), is_capability),
        "harmful": (np.concatenate([harm, no_benign, no_score]), ~is_harmful),
        "passed": (np.concatenate([no_harm, ~benign, no_score]), is_harmful | is_capability),
        "degenerate": (np.zeros(rows, dtype=bool), is_capability),
        "score": (np.concatenate([np.zeros(HARMFUL + len(benign)), score]), ~is_capability),
    }
    columns = {**_fixed(sizes), "model": _model(model, rows)}
    for name, (values, absent) in labels.items():
        columns[name] = pa.array(values, mask=absent, type=SCHEMA.field(name).type)
    return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


@cache
def _model(model: str, rows: int) -> pa.Array:
    return pa.array([model] * rows, pa.string())


@cache
def _fixed(sizes: tuple[int, int, int]) -> Mapping[str, pa.Array]:
    """The columns that no run changes."""
    slices = [("harmful", "vanilla", HARMFUL // 2), ("harmful", "adversarial", HARMFUL // 2)]
    slices += [("benign", name, n) for name, n in zip(("lookalike", "adversarial", "plain"), sizes, strict=True)]
    slices += [("capability", "choice", CHOICE), ("capability", "nll", NLL)]
    kinds = [kind for kind, _, n in slices for _ in range(n)]
    strings = {
        "suite": [f"suite-{kind}" for kind in kinds],
        "slice": [name for _, name, n in slices for _ in range(n)],
        "kind": kinds,
        "prompt_id": [f"{kind}-{name}-{i:05d}" for kind, name, n in slices for i in range(n)],
        "behavior": _behaviours(sizes),
        "label": ["" if kind == "capability" else kind for kind in kinds],
        "judge": ["log-likelihood" if kind == "capability" else "judge@1" for kind in kinds],
        "status": ["ok"] * len(kinds),
    }
    fixed: dict[str, pa.Array] = {name: pa.array(values, pa.string()) for name, values in strings.items()}
    fixed["answer_index"] = pa.array(np.zeros(len(kinds), dtype=np.int32))
    fixed["tokens"] = pa.array(np.full(len(kinds), 40, dtype=np.int32))
    return fixed


def _behaviours(sizes: tuple[int, int, int]) -> list[str]:
    harmful = [f"harm-{i:05d}" for _ in range(2) for i in range(HARMFUL // 2)]
    hard = sizes[0] + sizes[1]
    benign = [f"benign-{i // BENIGN_CLUSTER:05d}" for i in range(hard)]
    plain = [f"plain-{i // BENIGN_CLUSTER:05d}" for i in range(sizes[2])]
    return harmful + benign + plain + [f"capability-{i:05d}" for i in range(CHOICE + NLL)]
