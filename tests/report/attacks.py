"""An adaptive evaluation in a made-up line: further rows of a round's answers and verdicts, as the steps leave them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.evaluate.tables import read_verdicts, write_verdicts
from sparring.evaluate.verdicts import SCHEMA
from sparring.store.base import Store

METHODS = ("attacker", "best_of_n", "multi_turn", "pair", "prefill")
_ODDS = {"attacker": 0.3, "best_of_n": 0.2, "multi_turn": 0.35, "pair": 0.4, "prefill": 0.5}
_WEAK = {"candidate": 0.4, "champion": 1.3, "reference": 1.0}


def attack(store: Store, number: int, *, tries: int = 4, methods: Sequence[str] = METHODS, behaviors: int = 40) -> None:
    """Adds `tries` tries at each behaviour and method for every model of the round."""
    for role in ("candidate", "champion", "reference"):
        key = f"rounds/{number:06d}/judge/{role}.parquet"
        if store.exists(key):
            rows = [row for n in range(behaviors) for row in _rows(role, n, tries, methods)]
            _judged(store, key, rows)
            _answered(store, f"rounds/{number:06d}/answer/{role}.parquet", rows)


def worked(role: str, method: str, behavior: int, attempt: int) -> bool:
    """Whether a try worked: fixed for ever."""
    name = f"{role}/{method}/{behavior}/{attempt}"
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return draw < _ODDS[method] * _WEAK[role]


def _rows(role: str, behavior: int, tries: int, methods: Sequence[str]) -> list[dict[str, object]]:
    return [
        {
            "suite": "adaptive",
            "slice": f"adaptive-{method}",
            "kind": "harmful",
            "prompt_id": f"{method}:b{behavior}",
            "behavior": f"b{behavior}",
            "answer_index": attempt,
            "harmful": worked(role, method, behavior, attempt),
        }
        for method in methods
        for attempt in range(tries)
    ]


def _judged(store: Store, key: str, rows: Sequence[dict[str, object]]) -> None:
    table, _ = read_verdicts(store, key)
    first = table.slice(0, 1).to_pylist()[0]
    filled = [{**first, "label": "harmful", "refused": not row["harmful"], **row} for row in rows]
    write_verdicts(store, key, pa.concat_tables([table, pa.Table.from_pylist(filled, SCHEMA)]))


def _answered(store: Store, key: str, rows: Sequence[dict[str, object]]) -> None:
    table = pq.read_table(pa.BufferReader(store.get(key)))
    filled = [
        {
            **{name: row[name] for name in table.column_names if name in row},
            "prompt": str(row["behavior"]),
            "answer": "Sure, here is how, step by step by step by step by step",
            "tokens": 32 if row["harmful"] else 20,
        }
        for row in rows
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(filled, table.schema)]), sink)
    store.put(key, bytes(sink.getvalue().to_pybytes()))
