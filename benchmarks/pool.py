"""Draws of 64 from 10^6 attacks: `ucb` against DuckDB's `ORDER BY … LIMIT`, same rows: `python -m benchmarks pool`.

All sizes and samplers: `pool-draw`; appends, loads and compaction: `pool-store`; near duplicates: `pool-near`.
"""

from __future__ import annotations

import argparse
import os
import time

from benchmarks._ratio import end, summary
from benchmarks.pool_draw import ARMS, K, _attach, _drawer, _duckdb, make_state
from sparring.config.run import ReplayConfig
from sparring.replay.samplers import make_sampler

SIZE = 1_000_000


def main(quick: bool) -> None:
    """Alternates both, DuckDB with all its threads, and checks that they draw the same attacks."""
    state, repeats = make_state(SIZE), 5 if quick else 11
    sampler = make_sampler(ReplayConfig.model_validate(ARMS["ucb"]))
    _attach(sampler, state)()
    draws = {"ours": _drawer(sampler), "duckdb": _duckdb(state, os.cpu_count() or 1)}
    times: dict[str, list[float]] = {name: [] for name in draws}
    for repeat in range(-1, repeats):  # the first is for warming up
        for name, draw in draws.items():
            start = time.perf_counter()
            draw(repeat + 1)
            times[name] += [time.perf_counter() - start] if repeat >= 0 else []
    same = sorted(draws["ours"](0)) == sorted(draws["duckdb"](0))
    line = summary("pool", "DuckDB ORDER BY LIMIT", times["ours"], times["duckdb"], {"same_rows": same})
    own, other = (sorted(times[name])[repeats // 2] * 1e3 for name in ("ours", "duckdb"))
    print(f"{K} of {SIZE:,} attacks: ucb {own:.2f} ms, DuckDB {other:.2f} ms, medians of {repeats}")
    end(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks pool", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five repeats")
    main(parser.parse_args().quick)
