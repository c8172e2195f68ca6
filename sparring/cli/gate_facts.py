"""What `sparring gate plan` and `simulate` count, compute and print."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparring.errors import DataError, UsageError
from sparring.gate.plan import PlanTable, assuming, plan
from sparring.gate.policy import Policy, load_policy

if TYPE_CHECKING:
    from sparring.gate.simulate import Simulation
    from sparring.store.base import Store

_KEYS = ["kind", "slice", "suite", "prompt_id"]
_WRITTEN = "harmful/adaptive-"
"""Attacks are written in the round: no suite holds these slices."""


def planned(
    policy: str, counts: Sequence[str], tables: Sequence[Path], asr: float | None, suites: pa.Table | None = None
) -> PlanTable:
    """The power table; slices that nobody counts have the policy's least. Raises ConfigError, UsageError, DataError."""
    chosen = load_policy(policy)
    if asr is not None:
        chosen = assuming(chosen, max(asr, 1e-6))
    return plan(chosen, _prompts(chosen, counts, tables, suites))


def prepared(name: str, line: Callable[[], Store]) -> pa.Table:
    """The suites of a digest in a line's store, or of a folder `…/datasets/<digest>`, verified.

    Raises UsageError for what is neither, NotFoundError, and CorruptError for other data than suites.
    """
    from sparring.data.suites import read_suites
    from sparring.store.datasets import load_table
    from sparring.store.local import LocalStore

    digest = Path(name).name
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(
            f"--suites {name!r} is neither a dataset's digest nor its folder",
            hint="`suites` in rounds/<n>/prepare/result.json is one",
        )
    folder = Path(name).resolve().parent
    if digest != name and folder.name != "datasets":
        raise UsageError(f"--suites {name!r} is no folder of the form datasets/<digest>")
    return read_suites(load_table(line() if digest == name else LocalStore(folder.parent), digest))


def simulated(
    policy: str, counts: Sequence[str], tables: Sequence[Path], years: int, looks: int, seed: int
) -> Simulation:
    """Plays the policy, with a line of progress on standard error. Raises ConfigError, UsageError, DataError."""
    from sparring.gate.simulate import simulate

    chosen = load_policy(policy)
    begun = time.monotonic()

    def told(world: str, done: int, total: int) -> None:
        if sys.stderr.isatty() or done == total:
            end = "\n" if done == total else "\r"
            print(f"{world}: {done}/{total}, {time.monotonic() - begun:.0f} s", end=end, file=sys.stderr, flush=True)

    return simulate(chosen, _prompts(chosen, counts, tables), years=years, looks=looks, seed=seed, on_run=told)


def print_simulation(found: Simulation) -> None:
    """The table, below what it is made of."""
    print(
        f"policy {found.policy}: α {found.alpha_per_look:.2g} a look, {found.margin_alpha:g} each margin;"
        f" {found.looks} looks a year; seed {found.seed}"
    )
    print("prompts: " + ", ".join(f"{name} {count}" for name, count in found.prompts.items()))
    print("assumed: " + ", ".join(f"{name} {value:g}" for name, value in found.assumptions.items()))
    width = max(len(world.world) for world in found.worlds)
    for world in found.worlds:
        share = f"{world.share:.1%} [{world.low:.1%}, {world.high:.1%}]"
        year = "" if world.unit != "looks" else f"; any of {found.looks}: {world.any_of_looks:.1%}"
        print(f"{world.world:<{width}}  promoted in {share} of {world.runs} {world.unit}{year}")


def _prompts(
    policy: Policy, counts: Sequence[str], tables: Sequence[Path], suites: pa.Table | None = None
) -> dict[str, int]:
    """Prompts by `kind/slice`: the policy's least, else those of tables, else those that are given.

    With `suites` a slice that they lack has none.
    """
    found = {f"{item.kind}/{item.slice}": item.min for item in policy.required}
    if suites is not None:
        found.update({name: 0 for name in found if not name.startswith(_WRITTEN)} | dict(_by_slice(suites)))
    for path in tables:
        found.update(_counted(path))
    found.update(_given(policy, counts))
    return found


def _given(policy: Policy, counts: Sequence[str]) -> dict[str, int]:
    known = sorted({f"{item.kind}/{item.slice}" for item in policy.required})
    found: dict[str, int] = {}
    for text in counts:
        name, _, number = text.partition("=")
        if name.partition("/")[0] not in ("harmful", "benign", "capability") or not number.isdecimal():
            raise UsageError(f"--counts {text!r} is not kind/slice=number", hint=f"the policy names {', '.join(known)}")
        found[name] = int(number)
    return found


def _counted(path: Path) -> Mapping[str, int]:
    """Prompts by `kind/slice` of a verdict or answer table."""
    try:
        table = pq.read_table(path, columns=_KEYS)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: no table with prompts: {str(error).splitlines()[0]}") from error
    return _by_slice(table)


def _by_slice(table: pa.Table) -> Mapping[str, int]:
    prompts = table.select(_KEYS).group_by(_KEYS).aggregate([])
    names = pc.binary_join_element_wise(prompts["kind"], prompts["slice"], "/")
    return {item["values"]: item["counts"] for item in names.value_counts().to_pylist()}
