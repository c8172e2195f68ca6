"""How torch's threads should wait: `python -m benchmarks threads`.

Samples short answers from the packaged model, alone and twice at once on the same cores, with OpenMP's default (waiting
threads spin for milliseconds), as `make` and the local runner set it (`GOMP_SPINCOUNT`: they soon sleep), and sleeping
at once. Fresh processes, taking turns; the seconds are of the sampling alone. The ratio is that of the medians beside
another process; what sleeping costs a process that has the machine to itself is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median

from benchmarks._ratio import end, summary

POLICIES = {"default": {}, "ours": {"GOMP_SPINCOUNT": "10000"}, "sleep": {"OMP_WAIT_POLICY": "PASSIVE"}}
PROMPTS = 8
TOKENS = 4


def main(quick: bool) -> None:
    """Alternates the policies and prints the medians."""
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(1 if quick else 5):
        for at_once in (1, 2):
            for policy in POLICIES:
                seconds.setdefault((policy, at_once), []).append(_slowest(policy, at_once))
    alone = {policy: median(seconds[policy, 1]) for policy in POLICIES}
    beside = {policy: median(seconds[policy, 2]) for policy in POLICIES}
    for policy in POLICIES:
        print(f"{policy:7}  alone {alone[policy]:.2f} s, two at once {beside[policy]:.2f} s")
    checks = {
        "threads": os.cpu_count(),
        "alone_ratio": round(alone["default"] / alone["ours"], 3),
        "alone_s": {policy: round(alone[policy], 3) for policy in POLICIES},
        "two_at_once_s": {policy: round(beside[policy], 3) for policy in POLICIES},
    }
    end(summary("threads", "OpenMP's default waiting", seconds["ours", 2], seconds["default", 2], checks))


def _slowest(policy: str, at_once: int) -> float:
    """Seconds of the slower of so many processes that begin to sample at the same time."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", "benchmarks.threads", "--sample"]
    processes = [
        subprocess.Popen(
            command, env=inherited | POLICIES[policy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(at_once)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(process.communicate(timeout=600)[0]) for process in processes)


def _sample() -> None:
    """One process: loads, warms up, waits for the word, samples, says the seconds."""
    from benchmarks._engine import SEED, load, model_folder
    from sparring.policy.generate import generate

    model = load(model_folder(quick=False))
    prompts = [[1 + (row * 31 + place * 7) % 4000 for place in range(24)] for row in range(PROMPTS)]

    def sample(tokens: int) -> None:
        generate(model, prompts, eos=frozenset(), max_new_tokens=tokens, temperature=1.0, seed=SEED)

    sample(2)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    sample(TOKENS)
    print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks threads", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one run each")
    parser.add_argument("--sample", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sample:
        _sample()
    else:
        main(given.quick)
