"""Presets of sizes. `recipe:` in the run file names one; keys given in the file win over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Preset = Mapping[str, Mapping[str, object]]
"""Section → key → value; the keys are those of `RunConfig`."""

RECIPES: Final[Mapping[str, Preset]] = {
    "default": {},
    "full": {
        # as measured (docs/measured.md): so many steps settle by themselves at the higher rate
        "warm_start": {"examples": 330, "helpful_examples": 700},
        "selfplay": {"steps": 60, "learning_rate": 5e-3, "warmup": 0.1},
    },
    # Self-RedTeam (arXiv 2506.07468) at 8B: what the paper prints. Token limits and `group` are ours (docs/recipes.md).
    "selfredteam-8b": {
        "model": {"source": "mlabonne/Meta-Llama-3.1-8B-Instruct-abliterated", "precision": "bf16"},
        "game": {
            "cot": True,
            "thought_tokens": 1024,
            "generated_share": 0.5,
            "harmful_share": 0.5,
            "attack_tokens": 512,
            "answer_tokens": 1024,
            "max_prompt_tokens": 2048,
            "temperature": 1.0,
            "reward": "general_sum",
        },
        "warm_start": {"steps": 0},
        "selfplay": {
            "steps": 200,
            "games": 128,
            "group": 2,
            "trained_share": 1.0,
            "answer_decay": 1.0,
            "adapters": "none",
            "learning_rate": 5e-7,
            "warmup": 0.03,
            "average_share": 0.0,
            "kl": 0.01,
            "estimator": "reinforce_pp",
            "baseline": "batch",
            "clip": 0.2,
            "micro_batch": 32,
            "sft_coef": 1.0,
            "sft_batch": 32,
            "sft_examples": 512,
            "save_steps": 10,
        },
        "replay": {"sampler": "none"},
        "evaluate": {"answer_tokens": 1024, "thought_tokens": 1024, "max_prompt_tokens": 2048},
    },
}
