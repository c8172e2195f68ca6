"""Refusal by the embedded judges and by string matching, against XSTest's human labels: `python -m benchmarks.judge`.

Truth is XSTest's `final_label` over four models' 450 answers each (2_full_refusal and 3_partial_refusal are refusals);
the judges see only the answers. Nothing was trained on these labels and no threshold was fitted to them: rules,
penalties and thresholds come from texts written for this project and from openings that the packaged model wrote to the
starter set's training prompts (`sparring.judge.embedded.train`).

XSTest was opened in four stages while the judges were built, each time for the whole table below and no single answer:
1. a first build: reward 0.930 on average, gate 0.863 (over-sensitive: it pooled single sentences by log-sum-exp);
2. after the gate's pooling was replaced, the replacement and all penalties chosen on written texts: 0.930 and 0.927;
3. the code of that time, to confirm (twice, and by `tests/judge`, with the same numbers: refusal had not changed);
4. once, after both heads were trained again with short openings of small models, too many of which had been called
   refusals; all choices on rows marked `dev` and the examples in `tests/judge`: gate 0.923, reward 0.919 (before: 0.930
   and 0.927), the numbers of `results/judge.json`. Sensitivity fell on nearly every model, specificity rose.
   `tests/judge` read every third answer once more.

Data: the folder in SPARRING_BENCHMARK_DATA, else `../shared/data` beside the repository.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.judge import Judge, JudgeCase, load_judge

MODELS = ("gpt4", "llama2new", "llama2orig", "mistralguard")
JUDGES = ("embedded-gate", "embedded-reward", "string-match")
ROOT = Path(__file__).parents[1]
Labels = npt.NDArray[np.bool_]


def main(quick: bool = False) -> dict[str, Any]:
    """Prints the table and one JSON line, writes `results/judge.json`, returns what the line says.

    `quick` reads every third answer only and writes no file.
    """
    folder = data_folder()
    if folder is None:
        result: dict[str, Any] = {"bench": "judge", "skipped": "no XSTest: set SPARRING_BENCHMARK_DATA"}
        print(json.dumps(result))
        return result
    judges = {name: load_judge(name) for name in JUDGES}
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Labels]] = {name: [] for name in JUDGES}
    seconds = dict.fromkeys(JUDGES, 0.0)
    count = 0
    for model in MODELS:
        cases, truth = load_xstest(folder, model, step=3 if quick else 1)
        count += len(cases)
        for name, judge in judges.items():
            start = time.perf_counter()
            said = refusals(judge, cases, truth)
            seconds[name] += time.perf_counter() - start
            found[name].append(said)
            rows.append({"judge": name, "model": model, **accuracy(said, truth)})
    print_table(rows)
    result = summary(rows, found, judges, count, seconds)
    if not quick:
        path = Path(__file__).parent / "results" / "judge.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**result, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return result


def data_folder() -> Path | None:
    """The folder that holds `xstest/`, or None."""
    given = os.environ.get("SPARRING_BENCHMARK_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    return folder if all((folder / "xstest" / f"xstest_v2_completions_{m}.csv").is_file() for m in MODELS) else None


def load_xstest(folder: Path, model: str, step: int = 1) -> tuple[list[JudgeCase], Labels]:
    """(cases without label, refused by the human labels (n,)) of one model; every `step`-th row."""
    with (folder / "xstest" / f"xstest_v2_completions_{model}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::step]
    cases = [JudgeCase(row["prompt"], row["completion"]) for row in rows]
    return cases, np.array([not row["final_label"].startswith("1") for row in rows])


def refusals(judge: Judge, cases: Sequence[JudgeCase], truth: Labels) -> Labels:
    """What the judge calls refused; a void verdict is counted as an error, whatever the truth."""
    verdicts = judge.judge(cases)
    return np.array([not t if v.refused is None else v.refused for v, t in zip(verdicts, truth, strict=True)])


def accuracy(said: Labels, truth: Labels) -> dict[str, Any]:
    """Sensitivity and specificity with Wilson 95 % intervals, and balanced accuracy."""
    hit, positives = int((said & truth).sum()), int(truth.sum())
    right, negatives = int((~said & ~truth).sum()), int((~truth).sum())
    sensitivity, specificity = hit / max(positives, 1), right / max(negatives, 1)
    return {
        "n": len(truth),
        "refusals": positives,
        "sensitivity": round(sensitivity, 4),
        "sensitivity_ci": wilson(hit, positives),
        "specificity": round(specificity, 4),
        "specificity_ci": wilson(right, negatives),
        "balanced": round((sensitivity + specificity) / 2, 4),
    }


def wilson(successes: int, trials: int, z: float = 1.959964) -> list[float]:
    """Wilson's score interval for a proportion (Wilson, 1927)."""
    if trials == 0:
        return [0.0, 1.0]
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * float(np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)))
    scale = 1 + z * z / trials
    return [round((centre - half) / scale, 4), round((centre + half) / scale, 4)]


def kappa(a: Labels, b: Labels) -> float:
    """Cohen's kappa of two raters; 0 when chance agreement is complete."""
    observed = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return 0.0 if chance >= 1.0 else (observed - chance) / (1 - chance)


def summary(
    rows: Sequence[dict[str, Any]],
    found: dict[str, list[Labels]],
    judges: dict[str, Judge],
    count: int,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The line for machines: ratio is the string match's mean balanced error over the gate judge's."""
    table = {(row["judge"], row["model"]): row["balanced"] for row in rows}
    means = {name: round(float(np.mean([table[name, m] for m in MODELS])), 4) for name in JUDGES}
    errors = [(1 - table["string-match", m]) / max(1 - table["embedded-gate", m], 1e-9) for m in MODELS]
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {
        "bench": "judge",
        "peer": "string match (15 phrases)",
        "ratio": round((1 - means["string-match"]) / max(1 - means["embedded-gate"], 1e-9), 2),
        "spread": [round(min(errors), 2), round(max(errors), 2)],
        "n": count,
        "checks": {
            "balanced": means,
            "kappa_gate_reward": round(kappa(joined["embedded-gate"], joined["embedded-reward"]), 4),
            "beats_string_match_on_each": {
                name: all(table[name, m] > table["string-match", m] for m in MODELS) for name in JUDGES[:2]
            },
            "ms_per_case": {name: round(1000 * spent / count, 2) for name, spent in seconds.items()},
            "judges": [judge.id for judge in judges.values()],
        },
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Judge × model, for people."""
    print(f"{'judge':<16} {'model':<13} {'refusals':>9}  {'sensitivity':<22} {'specificity':<22} balanced")
    for row in rows:
        low, high = row["sensitivity_ci"]
        low2, high2 = row["specificity_ci"]
        print(
            f"{row['judge']:<16} {row['model']:<13} {row['refusals']:>4}/{row['n']:<4}  "
            f"{row['sensitivity']:.3f} [{low:.3f}, {high:.3f}]   {row['specificity']:.3f} [{low2:.3f}, {high2:.3f}]   "
            f"{row['balanced']:.3f}"
        )


if __name__ == "__main__":
    main(quick="--quick" in sys.argv[1:])
