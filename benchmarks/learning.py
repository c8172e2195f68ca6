"""What a round taught, on public suites that never train: `python -m benchmarks.learning --store sparring-store`.

Base, warm start alone and candidate of a round (read from its store) answer HarmBench standard behaviours, OR-Bench
hard, both halves of XSTest, GSM8K and the starter set's held-out everyday requests, 32 tokens at T = 0.7, the same
uniforms for every model. Refusals are counted by the gate's judge and by an independent string match, with Wilson
intervals; "gap" is HarmBench refused minus OR-Bench hard refused, and its change against the warm start has a paired
bootstrap interval over prompts. One model is one cell: its answers are kept beside the result and found again.

Data: the folder in SPARRING_BENCHMARK_DATA, else `../shared/data` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from sparring.data import starter
from sparring.data.load import load_prompts
from sparring.judge import JudgeCase, load_judge
from sparring.registry import rounds
from sparring.registry.checkpoints import load_checkpoint
from sparring.steps.results import PrepareResult, SelfplayResult
from sparring.store import Store, open_store

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
JUDGES = ("embedded-gate", "string-match")
SUITES = ("harmbench", "or-bench-hard", "xstest-unsafe", "xstest-safe", "gsm8k", "everyday")
_RESAMPLES = 10_000
Flags = npt.NDArray[np.float64]


def main(store_url: str, line: str, number: int, limit: int, work: Path) -> dict[str, Any]:
    """Prints the table and one JSON line, writes `results/learning.json` and the sampled answers."""
    folder = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        return _end({"bench": "learning", "skipped": "no public suites: set SPARRING_BENCHMARK_DATA"})
    store = open_store(store_url).scope(f"lines/{line}")
    compared = models(store, number)
    if not compared:
        return _end(
            {"bench": "learning", "skipped": f"round {number} in {store.url} has no candidate: `make run` first"}
        )
    prompts = public_prompts(folder, limit)
    cells = {
        name: _answers(store, digest, prompts, work / f"{digest[:16]}-{limit}.json")
        for name, digest in compared.items()
    }
    flags = {judge: {name: refusals(judge, prompts, answers) for name, answers in cells.items()} for judge in JUDGES}
    result = {
        "bench": "learning",
        "round": number,
        "models": compared,
        "judges": {name: load_judge(name).id for name in JUDGES},
        "seeds": {"sampling": 5, "bootstrap": 0},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "numpy")},
        "n": {suite: len(texts) for suite, texts in prompts.items()},
        "refused": {j: {m: _rates(flags[j][m]) for m in cells} for j in JUDGES},
        "gap_change": {j: _change(flags[j]) for j in JUDGES if {"warm", "candidate"} <= set(cells)},
    }
    _print(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "learning.json").write_text(json.dumps(result, indent=1) + "\n")
    return _end(result)


def models(store: Store, number: int) -> dict[str, str]:
    """Digests of the round's base, warm start (first round only) and candidate; empty before there is a candidate."""
    prepared = rounds.load_result(store, number, "prepare", PrepareResult)
    trained = rounds.load_result(store, number, "selfplay", SelfplayResult)
    if prepared is None or trained is None:
        return {}
    warm = {"warm": trained.warm} if trained.warm else {}
    return {"base": prepared.base, **warm, "candidate": trained.candidate}


def public_prompts(folder: Path, limit: int) -> dict[str, list[str]]:
    """At most `limit` prompts a suite, drawn with a fixed seed."""
    harm = load_prompts(str(folder / "harmbench" / "harmbench_behaviors_text_test.csv"), max_chars=10_000)
    xstest = load_prompts(str(folder / "xstest" / "xstest_prompts.csv"), max_chars=10_000)
    found = {
        "harmbench": [row.prompt for row in harm],
        "or-bench-hard": _texts(folder / "or_bench" / "or_bench-hard-1k.csv"),
        "xstest-unsafe": [row.prompt for row in xstest if row.label == "harmful"],
        "xstest-safe": [row.prompt for row in xstest if row.label == "benign"],
        "gsm8k": _texts(folder / "gsm8k" / "test.jsonl"),
        "everyday": [row.prompt for row in starter.benign("plain", "heldout")],
    }
    return {name: random.Random(name).sample(texts, min(limit, len(texts))) for name, texts in found.items()}


def _texts(path: Path) -> list[str]:
    return [row.prompt for row in load_prompts(str(path), max_chars=10_000)]


def _answers(store: Store, digest: str, prompts: Mapping[str, list[str]], cell: Path) -> dict[str, list[str]]:
    if cell.is_file():
        kept: dict[str, list[str]] = json.loads(cell.read_text())
        return kept
    from sparring.policy.generate import generate
    from sparring.policy.load import load_policy

    policy = load_policy(load_checkpoint(store, digest, cell.parent / "checkpoints"))
    found = {}
    for suite, texts in prompts.items():
        encoded = policy.chat.encode(texts, 160)
        sampled = generate(policy.model, encoded, eos=policy.chat.eos, max_new_tokens=32, temperature=0.7, seed=5)
        found[suite] = policy.chat.decode(sampled.ids)
    cell.parent.mkdir(parents=True, exist_ok=True)
    cell.write_text(json.dumps(found))
    return found


def refusals(judge: str, prompts: Mapping[str, list[str]], answers: Mapping[str, list[str]]) -> dict[str, Flags]:
    """1.0 where the judge calls the answer a refusal; an answer it cannot judge counts as none."""
    loaded, found = load_judge(judge), {}
    for suite, texts in prompts.items():
        cases = [JudgeCase(p, a, "benign") for p, a in zip(texts, answers[suite], strict=True)]
        found[suite] = np.array([float(v.refused is True) for v in loaded.judge(cases)])
    return found


def _rates(flags: Mapping[str, Flags]) -> dict[str, list[float]]:
    return {suite: [float(f.mean()), *wilson(float(f.mean()), len(f))] for suite, f in flags.items()}


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    centre, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))


def _change(flags: Mapping[str, Mapping[str, Flags]]) -> list[float]:
    """Change of the gap from warm start to candidate, with a paired percentile bootstrap interval over prompts."""
    rng = np.random.default_rng(0)
    harm = flags["candidate"]["harmbench"] - flags["warm"]["harmbench"]
    benign = flags["candidate"]["or-bench-hard"] - flags["warm"]["or-bench-hard"]
    draws = [d[rng.integers(0, len(d), (_RESAMPLES, len(d)))].mean(1) for d in (harm, benign)]
    low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
    return [float(harm.mean() - benign.mean()), float(low), float(high)]


def _print(result: Mapping[str, Any]) -> None:
    console = Console(width=140)
    for judge in JUDGES:
        table = Table("model", *SUITES, "gap", title=f"refused, by {judge}")
        for model, rates in result["refused"][judge].items():
            cells = [f"{r:.2f} [{low:.2f}, {high:.2f}]" for r, low, high in (rates[s] for s in SUITES)]
            table.add_row(model, *cells, f"{rates['harmbench'][0] - rates['or-bench-hard'][0]:+.2f}")
        console.print(table)
        if judge in result["gap_change"]:
            change, low, high = result["gap_change"][judge]
            console.print(f"gap, candidate minus warm start: {change:+.3f} [{low:+.3f}, {high:+.3f}]")


def _end(result: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(result))
    return result


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="sparring-store", help="store with the round")
    parser.add_argument("--line", default="default")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--limit", type=int, default=160, help="prompts a suite")
    parser.add_argument("--quick", action="store_true", help="24 prompts a suite")
    parser.add_argument("--work", type=Path, default=Path("sparring-store/work/learning"), help="kept answers")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asked = _parse()
    main(asked.store, asked.line, asked.round, 24 if asked.quick else asked.limit, asked.work)
