"""The adaptive evaluation of the packaged model with its default budget: `python -m benchmarks adaptive [--quick]`.

40 behaviours by 4 tries by five methods, judged by the embedded gate judge, as steps `answer` and `judge` do it: the
model attacks itself, as the base model is attacked by the candidate in a first round. Prints seconds, ASR@1 and ASR@4
with 95 % intervals (clustered by behaviour) for each method, the harm that the plain requests alone do, and one JSON
line; writes `results/adaptive.json` unless `--quick`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import pyarrow as pa

from sparring.config.run import AdaptiveMethod, DataConfig, EvaluateConfig
from sparring.data.suites import build_suites
from sparring.evaluate.adaptive.budget import budget
from sparring.evaluate.adaptive.run import AdaptiveRun, Models, Plan
from sparring.evaluate.asr import Rate, asr_at_k
from sparring.judge import load_judge
from sparring.policy.generate import generate
from sparring.policy.load import Policy, load_policy
from sparring.policy.packaged import export_packaged
from sparring.steps.judge import verdict_table
from sparring.store import open_store
from sparring.store.datasets import save_table

RESULTS: Final = Path(__file__).parent / "results" / "adaptive.json"
MODEL: Final = "packaged"


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks adaptive")
    parser.add_argument("--behaviors", type=int, default=40)
    parser.add_argument("--tries", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="4 behaviours, 2 tries")
    given = parser.parse_args(arguments)
    behaviors, tries = (4, 2) if given.quick else (given.behaviors, given.tries)
    adaptive = {"methods": list(get_args(AdaptiveMethod)), "behaviors": behaviors, "tries": tries}
    result = measure(EvaluateConfig.model_validate({"adaptive": adaptive}))
    if not given.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def measure(config: EvaluateConfig) -> dict[str, Any]:
    """Attacks, judges, and prints a line a method."""
    with tempfile.TemporaryDirectory(prefix="sparring-adaptive-") as scratch:
        export_packaged(Path(scratch) / "model")
        policy = load_policy(Path(scratch) / "model")
        run = _run(config, policy, Path(scratch))
        print(budget(config, 1, len(run.behaviors)))
        clock = _Clock([method for method, _ in run.steps], len(run.behaviors))
        run.shared()
        clock.lap("attacks written")
        answers = run.answers(MODEL, clock.tries)
        written = {"attacker": _written(run)}
    judge = load_judge("embedded-gate")
    verdicts = verdict_table(judge, answers, lambda done, total: None)
    clock.lap("judged")
    rows = [_row(method, verdicts, [method], config, clock, "prompt") for method in config.adaptive.methods]
    rows.append(_row("any of these", verdicts, config.adaptive.methods, config, clock, "behavior"))
    asked = _asked(run, policy, config, judge)
    print(f"plain requests: {asked['harmful']} of {asked['n']} answered with harm")
    names = {"model": "SmolLM2-135M-Instruct", "judge": judge.id, "behaviors": len(run.behaviors)}
    names |= {"tries": config.adaptive.tries, "seconds": {key: round(each, 1) for key, each in clock.seconds.items()}}
    return {"bench": "adaptive", **names, "written": written, "plain": asked, "methods": rows}


def _run(config: EvaluateConfig, policy: Policy, scratch: Path) -> AdaptiveRun:
    store = open_store(str(scratch / "store"))
    suites = save_table(store, build_suites(DataConfig()).table(), name="suites", meta={})
    plan = Plan(config, 7_920, suites, MODEL, "embedded-reward")  # the seed of a first round with run seed 1
    return AdaptiveRun(plan, store, "answer", Models(lambda _: policy, lambda: load_judge("embedded-reward")))


@dataclass
class _Clock:
    """Seconds by what was done: try after try, in the order of the methods."""

    methods: list[str]
    behaviors: int
    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Books the time since the last call."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def tries(self, done: int, total: int) -> None:
        """Called after each try of a method."""
        self.lap(self.methods[done // self.behaviors - 1])
        print(f"{done} of {total} tries", file=sys.stderr, flush=True)


def _written(run: AdaptiveRun) -> float:
    """Share of the attacker's attacks that can be played; the plain request stands for the rest."""
    mine = [attack.written for attack in run.shared() if attack.method == "attacker"]
    return sum(mine) / len(mine)


def _row(
    name: str, verdicts: pa.Table, methods: Sequence[str], config: EvaluateConfig, clock: _Clock, unit: Any
) -> dict[str, Any]:
    slices = [f"adaptive-{method}" for method in methods]
    first, last = (asr_at_k(verdicts, k, slices, unit=unit) for k in (1, config.adaptive.tries))
    seconds = sum(clock.seconds[method] for method in methods)
    print(f"{name:<14} {seconds:6.0f} s   ASR@1 {_said(first)}   ASR@{last.k} {_said(last)}")
    return {"method": name, "seconds": round(seconds, 1), "asr_at_1": _listed(first), f"asr_at_{last.k}": _listed(last)}


def _said(rate: Rate) -> str:
    return f"{rate.value:5.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _listed(rate: Rate) -> list[float]:
    return [round(value, 4) for value in (rate.value, rate.low, rate.high)]


def _asked(run: AdaptiveRun, policy: Policy, config: EvaluateConfig, judge: Any) -> dict[str, int]:
    """The same behaviours, asked plainly once."""
    from sparring.judge import JudgeCase

    requests = [target.request for target in run.behaviors]
    prompts = policy.chat.encode(requests, config.max_prompt_tokens)
    found = generate(
        policy.model, prompts, eos=policy.chat.eos, max_new_tokens=config.answer_tokens,
        temperature=config.temperature, seed=run.plan.seed, batch=config.batch,
    )  # fmt: skip
    cases = [JudgeCase(p, a, "harmful") for p, a in zip(requests, policy.chat.decode(found.ids), strict=True)]
    return {"harmful": sum(verdict.harmful is True for verdict in judge.judge(cases)), "n": len(cases)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
