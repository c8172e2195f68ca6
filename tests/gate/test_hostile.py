"""Every case starts from tables that promote and changes one thing: none is promoted, each with its own reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.gate.decision import decide
from sparring.gate.outcome import Decision
from sparring.gate.policy import load_policy
from tests.gate.worlds import CANDIDATE, CHAMPION, REFERENCE, World, promoting, with_column, with_value

LAPTOP = load_policy("laptop")
TABLES = promoting()


def later(candidate: pa.Table, champion: pa.Table, reference: pa.Table) -> Decision:
    return decide(LAPTOP, candidate, champion, reference, first_run=False)


def _cell(column: str, value: object) -> Callable[[pa.Table, int], pa.Table]:
    return lambda table, row: with_value(table, column, row, value)


def _score(value: float) -> Callable[[pa.Table, int], pa.Table]:
    return lambda table, row: with_value(table, "score", table.num_rows - 1 - row % 320, value)


def _drop(table: pa.Table, row: int) -> pa.Table:
    return pa.concat_tables([table.slice(0, row), table.slice(row + 1)])


def _twice(table: pa.Table, row: int) -> pa.Table:
    return pa.concat_tables([table, table.slice(row, 1)])


def _without_slice(table: pa.Table, row: int) -> pa.Table:
    kind, name = table["kind"][row].as_py(), table["slice"][row].as_py()
    kept = [k != kind or s != name for k, s in zip(table["kind"].to_pylist(), table["slice"].to_pylist(), strict=True)]
    return table.filter(pa.array(kept))


def _without_column(table: pa.Table, row: int) -> pa.Table:
    return table.drop_columns([table.column_names[row % table.num_columns]])


CORRUPTIONS: dict[str, Callable[[pa.Table, int], pa.Table]] = {
    "NaN": _score(math.nan),
    "infinite": _score(math.inf),
    "minus infinite": _score(-math.inf),
    "above 1": _score(1.5),
    "below 0": _score(-0.1),
    "row dropped": _drop,
    "row twice": _twice,
    "slice missing": _without_slice,
    "column missing": _without_column,
    "one prompt": lambda table, row: table.slice(row, 1),
    "no rows": lambda table, row: table.slice(0, 0),
    "half of the rows": lambda table, row: table.slice(0, table.num_rows // 2),
    "other prompt id": _cell("prompt_id", "other"),
    "empty prompt id": _cell("prompt_id", ""),
    "other behaviour": _cell("behavior", "other"),
    "other suite": _cell("suite", "other"),
    "other kind": _cell("kind", "harmless"),
    "other slice": _cell("slice", "other"),
    "other status": _cell("status", "maybe"),
    "other label": _cell("label", "unsafe"),
    "other answer index": _cell("answer_index", 7),
    "negative answer index": _cell("answer_index", -1),
    "negative length": _cell("tokens", -1),
    "another model in one row": _cell("model", "e" * 64),
    "another judge in one row": _cell("judge", "lenient@2"),
    "another judge": lambda table, row: with_column(table, "judge", "lenient@2"),
    "one behaviour": lambda table, row: with_column(table, "behavior", "all"),
    "all unjudged": lambda table, row: with_column(table, "status", "void"),
    "text for a number": lambda table, row: table.set_column(
        table.column_names.index("score"), "score", pa.array(["1.0"] * table.num_rows)
    ),
    "numbers for labels": lambda table, row: table.set_column(
        table.column_names.index("harmful"), "harmful", pa.array([0.0] * table.num_rows)
    ),
}


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(CORRUPTIONS)), role=st.integers(0, 2), row=st.integers(0, 939))
def test_no_single_corruption_promotes(name: str, role: int, row: int) -> None:
    tables = list(TABLES)
    tables[role] = CORRUPTIONS[name](tables[role], row)
    decision = later(*tables)
    assert decision.outcome == "INVALID", decision.reason
    assert decision.missing and decision.reason


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_every_corruption_of_the_candidate_has_its_reason(name: str) -> None:
    decision = later(CORRUPTIONS[name](TABLES[0], 17), *TABLES[1:])
    assert decision.outcome == "INVALID"
    assert "\n" not in decision.reason
    assert len(decision.missing) >= 1


def test_swapped_models_are_not_promoted() -> None:
    candidate, champion, reference = TABLES
    assert later(champion, candidate, reference).outcome == "REJECT"
    wanted = {"candidate": CANDIDATE, "champion": CHAMPION, "reference": REFERENCE}
    right = decide(LAPTOP, *TABLES, first_run=False, expected=wanted)
    swapped = decide(LAPTOP, champion, candidate, reference, first_run=False, expected=wanted)
    assert right.outcome == "PROMOTE"
    assert swapped.outcome == "INVALID"
    assert CHAMPION in swapped.missing[0]


def test_swapped_rows_of_equal_shape_are_named() -> None:
    other = with_value(TABLES[0], "prompt_id", 0, "harmful-vanilla-new")
    decision = later(other, *TABLES[1:])
    assert "prompt harmful-vanilla-0" in " ".join(decision.missing)


def test_a_model_without_capability_to_lose_is_invalid() -> None:
    """At chance no damage can be seen."""
    tables = [replace(World(model), choice=0.27, nll=0.01).table() for model in (CANDIDATE, CHAMPION, REFERENCE)]
    decision = later(*tables)
    assert decision.outcome == "INVALID"
    assert "sensitive" in decision.reason


def test_an_insensitive_slice_is_not_counted_and_said() -> None:
    tables = [World(m, asr=a, choice=0.27).table() for m, a in ((CANDIDATE, 0.1), (CHAMPION, 0.3), (REFERENCE, 0.3))]
    decision = later(*tables)
    assert decision.outcome == "PROMOTE"
    capability = next(e for e in decision.endpoints if e.name == "capability")
    assert capability.slices == ["nll"]
    assert len(decision.insensitive) == 1 and "choice" in decision.insensitive[0]
