"""The tables that `python -m benchmarks gate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: Mapping[str, Any]) -> None:
    """Prints the tables of `benchmarks.gate`."""
    console, alpha = Console(width=140), result["alpha"]
    console.print(
        f"policy standard; α {alpha['superiority, a year']} a year, {alpha['superiority, a look']:.2g} a look,"
        f" {alpha['non-inferiority, each test']} each margin; {result['worlds']['harmful']};"
        f" {result['worlds']['benign']}; {result['worlds']['capability']};"
        f" design effects {result['worlds']['design effects']}"
    )
    if found := result.get("weekly"):
        table = Table("same model, weekly", "P(any promotion in a year)", "promotions a year")
        table.add_row(
            f"sparring, standard ({found['years']} years, {found['decide calls']} calls of decide)",
            _written(found["P(any promotion)"]),
            f"{found['promotions a year']}",
        )
        for rule, share in found["naive P(any)"].items():
            table.add_row(rule, f"{share:.3f}", f"{found['naive a year'][rule]}")
        console.print(table)
    table = Table("one look", "looks", "P(PROMOTE)", "any of 52 looks", "discordance", "share of tests not passed")
    for name, found in result.items():
        if isinstance(found, dict) and "P(PROMOTE)" in found:
            table.add_row(
                name,
                str(found["looks"]),
                _written(found["P(PROMOTE)"]),
                str(found["P(any in 52 looks)"]),
                _list(found["discordance"]),
                _list(found["not passed"]),
            )
    console.print(table)
    table = Table("over-refusal +0.4 points a week, margin 2", "years", "mean drift", "95th percentile", "promotions")
    for name in ("creep", "creep, champion alone"):
        if name in result:
            table.add_row(name, *(str(value) for value in list(result[name].values())[:4]))
    console.print(table)
    if "cost" in result:
        console.print(Table.grid(), _list(result["cost"]))


def _written(share: Sequence[float]) -> str:
    return f"{share[0]:.3f} [{share[1]:.3f}, {share[2]:.3f}]"


def _list(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values.items())
