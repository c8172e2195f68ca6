"""What the shipped `standard` policy promotes, and what it does not: `python -m benchmarks gate [--quick]`.

Verdict tables with the policy's real endpoints are drawn from known truths (`benchmarks/_gate_worlds.py`), and the
shipped `decide` says what becomes of them, at every look:

- weekly: the same model, 52 looks a year, the α of `sparring.gate.spending` (a promotion begins a reign with a fresh α,
  the champion is evaluated anew each week). Naive rules see the same answers.
- margin: safer, but worse by exactly a margin in over-refusal, capability or NLL.
- creep: every candidate is clearly safer and refuses 0.4 points more than the champion of its day. The rule without a
  pinned reference, which is not shipped, stands beside it: its benign test only.
- power: a true improvement and nothing else changed.
- cost: 2 models × 20,000 verdicts × 12 slices with 10,000 resamples, and the start of the commands.

Cells are kept under `--work`; a killed run goes on where it was. The whole takes about half an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from benchmarks._gate_cost import LARGE, cost
from benchmarks._gate_show import show
from benchmarks._gate_worlds import (
    BENIGN_CLUSTER,
    MODELS,
    Bools,
    Floats,
    Truth,
    harmful,
    labelled,
    refused,
    rest,
    tables,
)
from sparring.gate.decision import decide
from sparring.gate.outcome import Decision
from sparring.gate.policy import load_policy
from sparring.gate.statistics import clustered_mean, extra_variance, mcnemar, t_tail

SEED = 5
WEEKS = 52
STANDARD = load_policy("standard")
SAME = Truth()
SAFER = Truth(asr_change=-0.12)
"""Safer by so much that superiority never stands in the way."""
MARGINS = {
    "over-refusal": (replace(SAFER, refusal_change=0.03), "benign compliance 3 points lower, margin 3"),
    "capability": (
        replace(SAFER, knowledge_change=-0.06),
        "choice 6 points lower, so that the pooled endpoint is 3 lower, margin 3",
    ),
    "NLL": (replace(SAFER, nll_change=0.10), "NLL 0.10 nats a token higher, ceiling 0.10"),
}
CREEP = Truth(asr_change=-0.12, benign_discordance=0.05, refusal_change=0.004, benign_alike=0.0, benign=(800, 200, 319))
TWO_POINTS = STANDARD.model_copy(
    update={"non_inferiority": STANDARD.non_inferiority.model_copy(update={"benign_margin": 0.02})}
)
POWER = {
    "power": Truth(asr_change=-0.08),
    "power, benign design effect 1.6": Truth(asr_change=-0.08, benign_alike=0.3),
}
RESULTS = Path(__file__).parent / "results" / "gate.json"


def main(asked: argparse.Namespace) -> dict[str, Any]:
    """Plays what is not kept yet, prints the tables and one JSON line; writes `results/gate.json` unless quick."""
    cells = _cells(asked.quick)
    asked.work.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if not _path(asked.work, cell).is_file()]
    if missing and not asked.only_kept:
        with multiprocessing.get_context("fork").Pool(asked.processes) as pool:
            for done in pool.imap_unordered(_play_and_keep, [(asked.work, cell) for cell in missing]):
                Console(stderr=True).print(f"kept {done}")
    kept: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if _path(asked.work, cell).is_file():
            kept.setdefault(cell[0], []).extend(json.loads(_path(asked.work, cell).read_text()))
    result = _header(asked.quick) | summary(kept)
    if not asked.no_cost:
        result["cost"] = cost()
        result |= _against_the_limit(result["cost"][LARGE])
    show(result)
    if not asked.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return result


def _against_the_limit(decision: dict[str, Any]) -> dict[str, Any]:
    """What every benchmark ends with: the stated 3 s a decision over the least time of three."""
    ratio = round(3.0 / decision["seconds"], 2)
    checks = {"most_mb": decision["most MB"], "torch_imported": decision["torch imported"]}
    return {"peer": "limit of 3 s a decision", "ratio": ratio, "spread": [ratio, ratio], "n": 3, "checks": checks}


Cell = tuple[str, int, int]
"""Kind, first number and end of the runs in it. A run depends on its kind and number alone."""


def _cells(quick: bool) -> list[Cell]:
    counts = {"power": 4000, "power, benign design effect 1.6": 1000, **{f"margin {name}": 1000 for name in MARGINS}}
    counts |= {"creep, champion alone": 200, "creep": 200, "weekly": 1000}
    steps = {"weekly": 10, "creep": 10}
    if quick:
        counts = dict.fromkeys(counts, 20) | {"weekly": 1, "creep": 2}
    return [
        (name, start, min(start + steps.get(name, 40), count))
        for name, count in counts.items()
        for start in range(0, count, steps.get(name, 40))
    ]


def _path(work: Path, cell: Cell) -> Path:
    return work / f"{cell[0].replace(' ', '_')}-{cell[1]}-{cell[2]}-{STANDARD.digest[:8]}.json"


def _play_and_keep(asked: tuple[Path, Cell]) -> str:
    work, cell = asked
    played = [_play(cell[0], number) for number in range(cell[1], cell[2])]
    aside = _path(work, cell).with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(played))
    aside.replace(_path(work, cell))
    return f"{cell[0]} {cell[1]}-{cell[2]}"


def year(number: int) -> dict[str, Any]:
    """A year of weekly looks at the same model: promotions, and what naive rules did with the same answers."""
    spent, promoted, alphas = 0.0, 0, set()
    naive, stored = dict.fromkeys(_NAIVE, 0), math.nan
    for week in range(WEEKS):
        harm = harmful(np.random.default_rng([SEED, number, week, 0]), SAME)
        decision = _decided(np.random.default_rng([SEED, number, week, 1]), harm, spent)
        spent += decision.alpha
        alphas.add(decision.alpha)
        if decision.outcome == "PROMOTE":
            promoted, spent = promoted + 1, 0.0
        mine, theirs = harm["candidate"], harm["champion"]
        stored = float(theirs.mean()) if week == 0 else stored
        naive["lower wins, stored baseline"] += bool(mine.mean() < stored)
        stored = min(stored, float(mine.mean()))
        p = mcnemar(int((theirs & ~mine).sum()), int((mine & ~theirs).sum()))
        naive["lower wins, re-evaluated"] += bool(mine.mean() < theirs.mean())
        naive["McNemar α = .05, re-evaluated"] += p <= 0.05
        naive["McNemar α = .05/52, re-evaluated"] += p <= 0.05 / WEEKS
    return {"promoted": promoted, "calls": WEEKS, "alphas": sorted(alphas), "naive": naive}


_NAIVE = (
    "lower wins, stored baseline",
    "lower wins, re-evaluated",
    "McNemar α = .05, re-evaluated",
    "McNemar α = .05/52, re-evaluated",
)


def _decided(rng: np.random.Generator, harm: Mapping[str, Bools], spent: float) -> Decision:
    more = rest(rng, SAME)
    sides = [labelled(MODELS[role], harm[role], *more[role]) for role in MODELS]
    return decide(STANDARD, *sides, first_run=False, alpha_spent=spent)


def look(kind: str, number: int, truth: Truth) -> dict[str, Any]:
    """One look: its outcome, which tests were not passed, and the discordances."""
    drawn = tables(np.random.default_rng([SEED, number, *kind.encode()]), truth)
    decision = decide(STANDARD, drawn["candidate"], drawn["champion"], drawn["reference"], first_run=False)
    return {
        "outcome": decision.outcome,
        "not passed": [f"{e.name}/{e.against}" for e in decision.endpoints if e.status != "pass"],
        "discordance": {f"{e.name}/{e.against}": e.discordance for e in decision.endpoints if e.discordance},
    }


def creep(number: int, *, champion_alone: bool) -> dict[str, Any]:
    """A year of candidates that each refuse 0.4 points more: the final drift against the reference, in points."""
    drift, promoted = 0.0, 0
    for week in range(WEEKS):
        rng, truth = np.random.default_rng([SEED, number, week, 7]), replace(CREEP, champion_drift=drift)
        if champion_alone:
            benign = refused(rng, truth)
            kept = _benign_kept(benign["champion"].astype(np.float64) - benign["candidate"])
        else:
            drawn = tables(rng, truth)
            sides = drawn["candidate"], drawn["champion"], drawn["reference"]
            kept = decide(TWO_POINTS, *sides, first_run=False).outcome == "PROMOTE"
        if kept:
            drift, promoted = drift + CREEP.refusal_change, promoted + 1
    return {"drift": 100 * drift, "promoted": promoted, "calls": 0 if champion_alone else WEEKS}


def _benign_kept(difference: Floats) -> bool:
    """The gate's non-inferiority test of benign compliance at two points; clusters as in `_gate_worlds`."""
    hard = CREEP.benign[0] + CREEP.benign[1]
    rows = np.arange(len(difference))
    last = (hard - 1) // BENIGN_CLUSTER + 1
    cluster = np.where(rows < hard, rows // BENIGN_CLUSTER, last + (rows - hard) // BENIGN_CLUSTER)
    mean = clustered_mean(difference, cluster)
    spread = math.sqrt(mean.se**2 + extra_variance(difference, cluster, 0.02))
    return t_tail((mean.value + 0.02) / spread, mean.df) < TWO_POINTS.non_inferiority.alpha


_LOOKS = POWER | {f"margin {name}": truth for name, (truth, _) in MARGINS.items()}
"""Worlds that are looked at once a run."""


def _play(kind: str, number: int) -> dict[str, Any]:
    if kind in _LOOKS:
        return look(kind, number, _LOOKS[kind])
    return year(number) if kind == "weekly" else creep(number, champion_alone=kind == "creep, champion alone")


def summary(kept: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The figures of every kind of run that is there."""
    found: dict[str, Any] = {}
    if years := kept.get("weekly"):
        found["weekly"] = _yearly(years)
    for name in _LOOKS:
        if looks := kept.get(name):
            found[name] = _looked(looks)
    for name in ("creep", "creep, champion alone"):
        if years := kept.get(name):
            drifts = [run["drift"] for run in years]
            found[name] = {
                "years": len(years),
                "drift mean": round(float(np.mean(drifts)), 2),
                "drift 95th percentile": round(float(np.quantile(drifts, 0.95)), 2),
                "promotions a year": round(float(np.mean([run["promoted"] for run in years])), 1),
                "decide calls": sum(run["calls"] for run in years),
            }
    return found


def _yearly(years: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    any_promotion = sum(run["promoted"] > 0 for run in years)
    return {
        "years": len(years),
        "P(any promotion)": _share(any_promotion, len(years)),
        "promotions a year": round(float(np.mean([run["promoted"] for run in years])), 3),
        "decide calls": sum(run["calls"] for run in years),
        "alphas": sorted({alpha for run in years for alpha in run["alphas"]}),
        "naive P(any)": {n: _share(sum(r["naive"][n] > 0 for r in years), len(years))[0] for n in _NAIVE},
        "naive a year": {n: round(float(np.mean([r["naive"][n] for r in years])), 2) for n in _NAIVE},
    }


def _looked(looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    share = _share(sum(run["outcome"] == "PROMOTE" for run in looks), len(looks))
    open_tests: dict[str, int] = {}
    for run in looks:
        for name in run["not passed"]:
            open_tests[name] = open_tests.get(name, 0) + 1
    names = sorted({name for run in looks for name in run["discordance"]})
    return {
        "looks": len(looks),
        "P(PROMOTE)": share,
        "P(any in 52 looks)": round(1 - (1 - share[0]) ** WEEKS, 3),
        "not passed": {name: round(count / len(looks), 4) for name, count in sorted(open_tests.items())},
        "discordance": {n: round(float(np.mean([r["discordance"].get(n, 0.0) for r in looks])), 3) for n in names},
    }


def _share(hits: int, n: int) -> list[float]:
    """Share with its exact 95 % interval (Clopper and Pearson)."""
    low = stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    return [round(hits / n, 4), round(float(low), 4), round(float(high), 4)]


def _header(quick: bool) -> dict[str, Any]:
    return {
        "bench": "gate",
        "quick": quick,
        "seed": SEED,
        "policy": {"name": STANDARD.name, "digest": STANDARD.digest},
        "alpha": {
            "superiority, a year": STANDARD.alpha,
            "superiority, a look": STANDARD.alpha_per_look,
            "non-inferiority, each test": STANDARD.non_inferiority.alpha,
        },
        "worlds": {
            "harmful": "1,000 prompts of 500 behaviours",
            "benign": "1,800 prompts, 3 a behaviour; creep: 1,319, each its own",
            "capability": "2,350 choices and 500 texts, each its own",
            "design effects": SAME.design_effects,
            "same": vars(SAME),
            "power": vars(POWER["power"]),
            "creep": vars(CREEP),
            **{f"margin {name}": what for name, (_, what) in MARGINS.items()},
        },
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("numpy", "scipy", "pyarrow")}},
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gate", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs of each kind, no file")
    parser.add_argument("--work", type=Path, default=Path("sparring-store/work/gate"), help="kept cells")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only-kept", action="store_true", help="play nothing: the figures of the kept cells")
    parser.add_argument("--no-cost", action="store_true", help="leave out the cost")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    from benchmarks import gate  # by its name, under which the pool's processes find it

    gate.main(_parse())
