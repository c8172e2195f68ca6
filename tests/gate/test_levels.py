"""Simulated gates: how often `decide` promotes what is no better, and what deserves it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sparring.gate.decision import decide
from sparring.gate.plan import plan
from sparring.gate.policy import Policy, load_policy
from tests.gate.worlds import CANDIDATE, CHAMPION, REFERENCE, SIZES, rows

LAPTOP = load_policy("laptop")
Labels = dict[tuple[str, str], NDArray[Any]]


def _sampled(rng: np.random.Generator, model: str, chances: Labels) -> pa.Table:
    """One draw of a model whose prompts have those chances (slice nll: that score)."""
    drawn = {
        place: chance if place[1] == "nll" else rng.random(len(chance)) < chance for place, chance in chances.items()
    }
    return _labelled(model, drawn)


def _labelled(model: str, labels: Labels) -> pa.Table:
    """A table from what is harmful, refused, right or the score, by slice."""
    parts = []
    for (kind, name), hit in labels.items():
        no = np.zeros(len(hit), dtype=bool)
        if kind == "capability":
            parts.append(rows(model, kind, name, score=hit * 1.0))
        elif kind == "harmful":
            parts.append(rows(model, kind, name, harmful=hit, refused=~hit, degenerate=no))
        else:
            parts.append(rows(model, kind, name, refused=hit, passed=~hit, degenerate=no))
    return pa.concat_tables(parts)


def test_the_same_model_is_promoted_no_more_often_than_alpha() -> None:
    """Clustered behaviours, α = .25 at one look so that 150 gates can show an excess."""
    policy = Policy.model_validate(LAPTOP.model_dump() | {"alpha": 0.25, "looks": 1})
    rng, promoted, better = np.random.default_rng(3), 0, 0
    for _ in range(150):
        harm = rng.beta(0.4, 0.8, 140)
        traits = {
            ("harmful", "vanilla"): harm,
            ("harmful", "adversarial"): harm,
            ("benign", "lookalike"): rng.beta(0.5, 1.0, 160),
            ("benign", "plain"): np.full(110, 0.01),
            ("benign", "adversarial"): rng.beta(0.5, 1.0, 70),
            ("capability", "choice"): rng.beta(5.0, 4.0, 200).round(),
            ("capability", "nll"): np.full(120, 0.12),
        }
        decision = decide(
            policy, *(_sampled(rng, m, traits) for m in (CANDIDATE, CHAMPION, REFERENCE)), first_run=False
        )
        promoted += decision.outcome == "PROMOTE"
        better += decision.endpoints[0].status == "pass"
    assert promoted <= better <= 150 * 0.25 + 3 * math.sqrt(150 * 0.25 * 0.75)


def test_the_planned_power_is_the_power_of_decide() -> None:
    """Laptop policy, its own assumptions, 150 simulated gates."""
    assumed, rng = LAPTOP.assumptions, np.random.default_rng(4)
    promoted = 0
    for _ in range(150):
        labels: dict[str, Labels] = {CANDIDATE: {}, CHAMPION: {}, REFERENCE: {}}
        alike = rng.random(140) < assumed.asr_design_effect - 1.0  # behaviours whose two prompts go the same way
        place = rng.random(140)
        drop = assumed.champion_asr - assumed.candidate_asr
        gained = (assumed.asr_discordance + drop) / 2
        for name in ("vanilla", "adversarial"):
            u = np.where(alike, place, rng.random(140))
            labels[CHAMPION]["harmful", name] = u < assumed.champion_asr
            lost = u > 1.0 - (assumed.asr_discordance - gained)
            labels[CANDIDATE]["harmful", name] = ((u >= gained) & (u < assumed.champion_asr)) | lost
            labels[REFERENCE]["harmful", name] = u < assumed.champion_asr
        for name, n in (("lookalike", 160), ("plain", 110), ("adversarial", 70)):
            level, share = (0.02, 0.02) if name == "plain" else (0.3, assumed.benign_discordance * 340 / 230)
            for model in labels:
                u = np.arange(n) / n
                labels[model]["benign", name] = (u < level) ^ (rng.random(n) < share / 2)
        for model in labels:
            knows = np.arange(200) < 110
            labels[model]["capability", "choice"] = knows ^ (rng.random(200) < assumed.choice_discordance / 2)
            labels[model]["capability", "nll"] = np.abs(rng.normal(0.12, assumed.nll_spread / math.sqrt(2), 120))
        decision = decide(LAPTOP, *(_labelled(model, found) for model, found in labels.items()), first_run=False)
        promoted += decision.outcome == "PROMOTE"
    planned = plan(LAPTOP, {f"{kind}/{name}": n for (kind, name), n in SIZES.items()}).power
    assert promoted / 150 == pytest.approx(planned, abs=0.10)
