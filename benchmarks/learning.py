"""What a round teaches, on public suites that never train: `python -m benchmarks learning [--recipe full] [--all]`.

A call does one cell and says what is left; `--all` does them all. Cells, for each seed: the first round of a model
line of its own (the whole pipeline, `python -m pipelines run`, taken up where it was killed), then the answers of
base, warm start alone and candidate to HarmBench standard behaviours, OR-Bench hard, both halves of XSTest, GSM8K and
the starter set's held-out everyday requests: 32 tokens at T = 0.7, the same uniforms for every model; the first two
suites are answered `--draws` times.

Refusals are counted by the gate's judge and by an independent string match, with Wilson intervals (seeds together;
draws of a prompt count as one). "gap" is HarmBench refused minus OR-Bench hard refused; its change against the warm
start has a bootstrap interval over prompts, paired, all seeds and draws of a prompt together. `--round N` goes on to
round N of the same lines and compares its candidate with the champion that it began with. Data: the folder in
SPARRING_BENCHMARK_DATA, else `../shared/data` beside the repository. `--line NAME` looks at the rounds of a line that
is there and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._public import (
    SUITES,
    Answers,
    Flags,
    answers,
    degenerate_share,
    keep_answers,
    kept_answers,
    public_prompts,
    rates,
    refusals,
)
from sparring.judge import load_judge
from sparring.monitor import ledger
from sparring.registry import rounds
from sparring.registry.checkpoints import load_checkpoint
from sparring.steps.results import PrepareResult, SelfplayResult
from sparring.store import Store, open_store

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
JUDGES = ("embedded-gate", "string-match")
BEFORE = ("warm", "champion")
"""What the games began with: the warm start in a first round, the champion afterwards."""
MODELS = ("base", *BEFORE, "candidate")
GAP = SUITES[:2]
"""Suites whose difference is the gap: what should be refused, and what should not."""
SHOWN = 50
"""Answers of each model that are written down to be read."""
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    store: str
    recipe: str
    lines: dict[str, int]
    round: int
    limit: int
    draws: int
    work: Path
    train: bool


def main(asked: Asked, *, everything: bool) -> dict[str, Any]:
    """Does the next cell (or all), prints the table of what is there and one JSON line."""
    folder = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        return _end({"bench": "learning", "skipped": "no public suites: set SPARRING_BENCHMARK_DATA"})
    prompts = {s: texts * (asked.draws if s in GAP else 1) for s, texts in public_prompts(folder, asked.limit).items()}
    left = list(missing(asked))
    for line, cell in left if everything else left[:1]:
        _do(asked, line, cell, prompts)
    open_cells = [f"{line}: {cell}" for line, cell in missing(asked)]
    found = _found(asked)
    if not found:
        return _end({"bench": "learning", "skipped": "no answers yet", "left": open_cells})
    result = _result(asked, prompts, found) | {"left": open_cells}
    _print(asked, result)
    if not open_cells and asked.train:  # a look at one line is no result of the seeds
        RESULTS.mkdir(exist_ok=True)
        name = f"learning_{asked.recipe}" + (f"_round{asked.round}" if asked.round > 1 else "")
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return _end(result)


def missing(asked: Asked) -> Iterator[tuple[str, str]]:
    """(line, cell) of all that is not there yet: `round` for each that was not played, then a model's name."""
    for line in asked.lines:
        compared = models(_line(asked, line), asked.round)
        played = [rounds.load_end(_line(asked, line), number) is not None for number in range(1, asked.round + 1)]
        ended = all(played)
        if asked.train:
            yield from ((line, "round") for there in played if not there)
        names = [name for name in MODELS if name in compared] if ended or not asked.train else MODELS
        yield from (
            (line, name) for name in names if name not in compared or not _cell(asked, compared[name]).is_file()
        )


def models(store: Store, number: int) -> dict[str, str]:
    """Digests of the round's base, what its games began with, and candidate; empty before there is a candidate."""
    prepared = rounds.load_result(store, number, "prepare", PrepareResult)
    trained = rounds.load_result(store, number, "selfplay", SelfplayResult)
    if prepared is None or trained is None:
        return {}
    began = {"warm": trained.warm} if trained.warm else {"champion": prepared.champion} if prepared.champion else {}
    return {"base": prepared.base, **began, "candidate": trained.candidate}


def _do(asked: Asked, line: str, cell: str, prompts: Mapping[str, list[str]]) -> None:
    if cell == "round":
        command = [sys.executable, "-m", "pipelines", "run", "--config", str(ROOT / "sparring.yaml"), "--line", line]
        keys = {"seed": asked.lines[line], "recipe": asked.recipe, "store": asked.store}
        subprocess.run([*command, *(f"--set={k}={v}" for k, v in keys.items())], cwd=ROOT, check=True)
        return
    store = _line(asked, line)
    digest = models(store, asked.round).get(cell)
    if digest and not _cell(asked, digest).is_file():  # seeds share the base
        found = answers(load_checkpoint(store, digest, asked.work / "checkpoints"), prompts)
        keep_answers(_cell(asked, digest), found)
        _write_down(asked.work / f"{line}-{cell}.md", prompts, found)


def _write_down(path: Path, prompts: Mapping[str, list[str]], found: Answers) -> None:
    """`SHOWN` answers drawn with a fixed seed, to be read by people."""
    rows = [(suite, p, a) for suite in SUITES for p, a in zip(prompts[suite], found[suite], strict=True)]
    drawn = random.Random(0).sample(rows, min(SHOWN, len(rows)))
    path.write_text("".join(f"**{suite}** {' '.join(p.split())}\n> {' '.join(a.split())}\n\n" for suite, p, a in drawn))


def _line(asked: Asked, line: str) -> Store:
    return open_store(asked.store).scope(f"lines/{line}")


def _cell(asked: Asked, digest: str) -> Path:
    return asked.work / f"{digest[:16]}-{asked.limit}x{asked.draws}.json"


def _found(asked: Asked) -> dict[str, dict[str, Answers]]:
    """Line → model → answers, lines with all their models only."""
    found = {}
    for line in asked.lines:
        compared = models(_line(asked, line), asked.round)
        cells = {name: _cell(asked, digest) for name, digest in compared.items()}
        if cells and all(cell.is_file() for cell in cells.values()):
            found[line] = {name: kept_answers(cell) for name, cell in cells.items()}
    return found


def _result(asked: Asked, prompts: Mapping[str, list[str]], found: dict[str, dict[str, Answers]]) -> dict[str, Any]:
    names = [name for name in MODELS if all(name in line for line in found.values())]
    flags = {
        judge: {n: [refusals(judge, prompts, line[n]) for line in found.values()] for n in names} for judge in JUDGES
    }
    began = [name for name in BEFORE if name in names]
    ends = {line: rounds.load_end(_line(asked, line), asked.round) for line in found}
    return {
        "bench": "learning",
        "recipe": asked.recipe,
        "round": asked.round,
        "models": {line: models(_line(asked, line), asked.round) for line in found},
        "decisions": {line: end.decision if end else "open" for line, end in ends.items()},
        "minutes": {line: _minutes(_line(asked, line), asked.round) for line in found},
        "judges": {name: load_judge(name).id for name in JUDGES},
        "seeds": {"training": [asked.lines[line] for line in found], "sampling": 5, "bootstrap": 0},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "numpy")},
        "n": {suite: len(texts) // (asked.draws if suite in GAP else 1) for suite, texts in prompts.items()},
        "draws": asked.draws,
        "degenerate": {n: float(np.mean([degenerate_share(line[n]) for line in found.values()])) for n in names},
        "refused": {j: {n: rates(_together(flags[j][n], asked.draws)) for n in names} for j in JUDGES},
        "refused_by_seed": {
            j: {n: [{s: float(f[s].mean()) for s in SUITES} for f in flags[j][n]] for n in names} for j in JUDGES
        },
        "gap_change": {j: gap_change(flags[j][n], flags[j]["candidate"], asked.draws) for n in began for j in JUDGES},
    }


def _minutes(store: Store, number: int) -> dict[str, float]:
    """What each step of a round took, all its attempts together, and `all`; starting the steps is not in it."""
    entries = ledger.read(store, number)
    spent = {step: sum(attempt.seconds or 0.0 for attempt in entry.attempts) / 60 for step, entry in entries.items()}
    return {step: round(minutes, 2) for step, minutes in (spent | {"all": sum(spent.values())}).items()}


def _together(by_seed: Sequence[Mapping[str, Flags]], draws: int) -> dict[str, Flags]:
    """All seeds' flags; of a prompt answered several times, the share of its answers."""
    return {s: np.concatenate([_drawn(flags[s], draws) if s in GAP else flags[s] for flags in by_seed]) for s in SUITES}


def _drawn(flags: Flags, draws: int) -> Flags:
    mean: Flags = flags.reshape(draws, -1).mean(axis=0)
    return mean


def gap_change(before: Sequence[Mapping[str, Flags]], after: Sequence[Mapping[str, Flags]], draws: int) -> list[float]:
    """Change of the gap by the games, mean over seeds, with a percentile bootstrap interval.

    Prompts are resampled, each with all its answers under all seeds; which seeds were trained is held fixed.
    """
    rng = np.random.default_rng(0)
    harm, benign = (
        np.stack([_drawn(a[s] - w[s], draws) for w, a in zip(before, after, strict=True)]).mean(axis=0) for s in GAP
    )
    resampled = [d[rng.integers(0, len(d), (_RESAMPLES, len(d)))].mean(1) for d in (harm, benign)]
    low, high = np.quantile(resampled[0] - resampled[1], [0.025, 0.975])
    return [float(harm.mean() - benign.mean()), float(low), float(high)]


def _print(asked: Asked, result: Mapping[str, Any]) -> None:
    console = Console(width=140)
    for judge in JUDGES:
        table = Table("model", *SUITES, "gap", title=f"refused, by {judge}")
        for model, found in result["refused"][judge].items():
            cells = [f"{r:.2f} [{low:.2f}, {high:.2f}]" for r, low, high in (found[s] for s in SUITES)]
            table.add_row(model, *cells, f"{found['harmbench'][0] - found['or-bench-hard'][0]:+.2f}")
        console.print(table)
        if judge in result["gap_change"]:
            change, low, high = result["gap_change"][judge]
            console.print(f"gap, candidate minus what the games began with: {change:+.3f} [{low:+.3f}, {high:+.3f}]")
    console.print(f"minutes: { {line: found['all'] for line, found in result['minutes'].items()} }")
    console.print(f"decisions: {result['decisions']}; degenerate answers: {result['degenerate']}")
    console.print(f"{SHOWN} answers of each model to read: {asked.work}/LINE-MODEL.md", markup=False, highlight=False)


def _end(result: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(result))
    return result


def _parse(arguments: Sequence[str] | None = None) -> tuple[Asked, bool]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks learning", description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="sparring-store", help="store of the rounds")
    parser.add_argument("--recipe", default="default", choices=("default", "full"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds, one line each")
    parser.add_argument("--line", help="look at this line instead of training one a seed")
    parser.add_argument("--round", type=int, default=1, help="which round of the lines; those before it are played too")
    parser.add_argument("--limit", type=int, default=160, help="prompts a suite")
    parser.add_argument("--draws", type=int, default=3, help="answers to each prompt of the two suites of the gap")
    parser.add_argument(
        "--quick", action="store_true", help="24 prompts a suite, of the line `default`; trains nothing"
    )
    parser.add_argument("--all", action="store_true", help="all cells, not only the next one")
    parser.add_argument("--work", type=Path, default=Path("sparring-store/work/learning"), help="kept answers")
    given = parser.parse_args(arguments)
    line = given.line or ("default" if given.quick else None)
    lines = {line: 0} if line else {f"learning-{given.recipe}-{seed}": seed for seed in given.seeds}
    limit = 24 if given.quick else given.limit
    asked = Asked(given.store, given.recipe, lines, given.round, limit, given.draws, given.work, train=line is None)
    return asked, given.all or line is not None


if __name__ == "__main__":
    main(_parse()[0], everything=_parse()[1])
