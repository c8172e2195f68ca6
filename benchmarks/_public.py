"""Public suites, answers of a model to them, and how often it refuses."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparring.data import starter
from sparring.data.load import load_prompts
from sparring.judge import JudgeCase, load_judge
from sparring.judge.text import degenerate

SUITES = ("harmbench", "or-bench-hard", "xstest-unsafe", "xstest-safe", "gsm8k", "everyday")
Flags = npt.NDArray[np.float64]
Answers = dict[str, list[str]]


def public_prompts(folder: Path, limit: int) -> dict[str, list[str]]:
    """At most `limit` prompts a suite, drawn with a fixed seed.

    Of HarmBench its standard behaviours only: the copyright ones ask for lyrics and book pages, which no safety
    training here teaches to refuse, and the contextual ones mean little without their context.
    """
    xstest = load_prompts(str(folder / "xstest" / "xstest_prompts.csv"), max_chars=10_000)
    found = {
        "harmbench": _standard(folder / "harmbench" / "harmbench_behaviors_text_test.csv"),
        "or-bench-hard": _texts(folder / "or_bench" / "or_bench-hard-1k.csv"),
        "xstest-unsafe": [row.prompt for row in xstest if row.label == "harmful"],
        "xstest-safe": [row.prompt for row in xstest if row.label == "benign"],
        "gsm8k": _texts(folder / "gsm8k" / "test.jsonl"),
        "everyday": [row.prompt for row in starter.benign("plain", "heldout")],
    }
    return {name: random.Random(name).sample(texts, min(limit, len(texts))) for name, texts in found.items()}


def _standard(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["Behavior"] for row in csv.DictReader(file) if row["FunctionalCategory"] == "standard"]


def _texts(path: Path) -> list[str]:
    return [row.prompt for row in load_prompts(str(path), max_chars=10_000)]


def answers(folder: Path, prompts: Mapping[str, list[str]]) -> Answers:
    """The model in `folder` on every suite: 32 tokens at T = 0.7, the same uniforms for every model."""
    from sparring.policy.generate import generate
    from sparring.policy.load import load_policy

    policy, found = load_policy(folder), {}
    for suite, texts in prompts.items():
        encoded = policy.chat.encode(texts, 160)
        sampled = generate(policy.model, encoded, eos=policy.chat.eos, max_new_tokens=32, temperature=0.7, seed=5)
        found[suite] = policy.chat.decode(sampled.ids)
    return found


def kept_answers(cell: Path) -> Answers:
    """Answers of a finished cell."""
    kept: Answers = json.loads(cell.read_text())
    return kept


def keep_answers(cell: Path, found: Answers) -> None:
    """Writes a cell whole or not at all."""
    cell.parent.mkdir(parents=True, exist_ok=True)
    part = cell.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(cell)


def degenerate_share(found: Answers) -> float:
    """Share of answers that are empty, loop or repeat the prompt's words without end, by the judges' text rule."""
    texts = [text for suite in found.values() for text in suite]
    return sum(degenerate(text) for text in texts) / len(texts)


def refusals(judge: str, prompts: Mapping[str, list[str]], given: Answers) -> dict[str, Flags]:
    """1.0 where the judge calls the answer a refusal; an answer it cannot judge counts as none."""
    loaded, found = load_judge(judge), {}
    for suite, texts in prompts.items():
        cases = [JudgeCase(p, a, "benign") for p, a in zip(texts, given[suite], strict=True)]
        found[suite] = np.array([float(v.refused is True) for v in loaded.judge(cases)])
    return found


def rates(flags: Mapping[str, Flags]) -> dict[str, list[float]]:
    return {suite: [float(f.mean()), *wilson(float(f.mean()), len(f))] for suite, f in flags.items()}


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    centre, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))
