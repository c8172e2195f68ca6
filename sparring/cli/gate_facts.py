"""What `sparring gate plan` counts and computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparring.errors import DataError, UsageError
from sparring.gate.plan import PlanTable, assuming, plan
from sparring.gate.policy import Policy, load_policy


def planned(policy: str, counts: Sequence[str], tables: Sequence[Path], asr: float | None) -> PlanTable:
    """The power table; slices that nobody counts have the policy's least. Raises ConfigError, UsageError, DataError."""
    chosen = load_policy(policy)
    if asr is not None:
        chosen = assuming(chosen, max(asr, 1e-6))
    found = {f"{item.kind}/{item.slice}": item.min for item in chosen.required}
    for path in tables:
        found.update(_counted(path))
    found.update(_given(chosen, counts))
    return plan(chosen, found)


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
        table = pq.read_table(path, columns=["kind", "slice", "suite", "prompt_id"])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: no table with prompts: {str(error).splitlines()[0]}") from error
    prompts = table.group_by(table.column_names).aggregate([])
    names = pc.binary_join_element_wise(prompts["kind"], prompts["slice"], "/")
    return {item["values"]: item["counts"] for item in names.value_counts().to_pylist()}
