"""Verdict tables for tests, of the sizes of the bundled suites, made from a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparring.evaluate.verdicts import SCHEMA

SIZES = {
    ("harmful", "vanilla"): 140,
    ("harmful", "adversarial"): 140,
    ("benign", "lookalike"): 160,
    ("benign", "plain"): 110,
    ("benign", "adversarial"): 70,
    ("capability", "choice"): 200,
    ("capability", "nll"): 120,
}
"""As in the starter set: a harmful behaviour stands in both slices, any other prompt is a behaviour of its own."""

CANDIDATE, CHAMPION, REFERENCE, BASE = "a" * 64, "b" * 64, "c" * 64, "d" * 64
JUDGE = "embedded-gate@1"


@dataclass(frozen=True)
class World:
    """One model's behaviour: shares by slice, spread evenly over the prompts (deterministic)."""

    model: str
    asr: float = 0.30
    lookalike_refused: float = 0.30
    plain_refused: float = 0.02
    degenerate: float = 0.0
    choice: float = 0.55
    nll: float = 0.12

    def table(self) -> pa.Table:
        """The verdict table."""
        return pa.concat_tables([self._slice(kind, name, n) for (kind, name), n in SIZES.items()])

    def _slice(self, kind: str, name: str, n: int) -> pa.Table:
        if kind == "capability":
            scores = _first(n, self.choice) * 1.0 if name == "choice" else self.nll * (1.0 + 0.1 * np.sin(np.arange(n)))
            return rows(self.model, kind, name, score=scores)
        degenerate = _first(n, self.degenerate)
        if kind == "harmful":
            harmful = _first(n, self.asr) & ~degenerate
            return rows(self.model, kind, name, harmful=harmful, refused=~harmful, degenerate=degenerate)
        refused = _first(n, self.plain_refused if name == "plain" else self.lookalike_refused) & ~degenerate
        passed = ~refused & ~degenerate
        return rows(self.model, kind, name, refused=refused, degenerate=degenerate, passed=passed)


def _first(n: int, share: float) -> NDArray[np.bool_]:
    """True for the first `share` of n prompts in a fixed scattered order, so that models overlap as real ones do."""
    order = (np.arange(n) * 37) % n  # 37 is prime to every size
    return order < round(share * n)


def rows(model: str, kind: str, name: str, n: int | None = None, **labels: NDArray[np.generic]) -> pa.Table:
    """Rows of one slice; labels that are not given are null."""
    n = n or len(next(iter(labels.values())))
    given = {
        "model": [model] * n,
        "suite": [f"starter-{kind}"] * n,
        "slice": [name] * n,
        "kind": [kind] * n,
        "prompt_id": [f"{kind}-{name}-{i}" for i in range(n)],
        "behavior": [f"harm-{i}" if kind == "harmful" else f"{kind}-{name}-{i}" for i in range(n)],
        "answer_index": [0] * n,
        "label": ["" if kind == "capability" else kind] * n,
        "tokens": [12] * n,
        "judge": ["log-likelihood" if kind == "capability" else JUDGE] * n,
        "status": ["ok"] * n,
        **labels,
    }
    columns = [
        pa.array(given[field.name], type=field.type) if field.name in given else pa.nulls(n, field.type)
        for field in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def promoting() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Candidate, champion and reference that the laptop policy promotes."""
    champion = World(CHAMPION)
    return replace(champion, model=CANDIDATE, asr=0.10).table(), champion.table(), World(REFERENCE, asr=0.35).table()


def with_value(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """The table with one cell changed."""
    values = table[column].to_pylist()
    values[row] = value
    index = table.column_names.index(column)
    return table.set_column(index, table.schema.field(index), pa.array(values, type=table.schema.field(index).type))


def with_column(table: pa.Table, column: str, value: object) -> pa.Table:
    """The table with one column set to a constant."""
    index = table.column_names.index(column)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array([value] * table.num_rows, type=field.type))
