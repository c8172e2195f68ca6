"""Rates, curves and drawings: against references, at the edges, and for inputs that no run should make."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sparring.evaluate.verdicts import SCHEMA
from sparring.gate import statistics
from sparring.report.charts import WIDE, Block, Dot, Row, dots
from sparring.report.learning import panels, parse_curves
from sparring.report.measures import measures, share
from sparring.report.numbers import change, duration, percent, points
from sparring.report.svg import Ink, inline, plain
from tests.report.world import FIRST, prompts_of_suites, verdict


def _row(kind: str, part: str, prompt: str, value: bool | float | None, **other: object) -> dict[str, object]:
    labels: dict[str, object] = dict.fromkeys(("refused", "harmful", "passed", "degenerate", "score"))
    name = {"harmful": "harmful", "benign": "refused", "capability": "score"}[kind]
    return {
        "model": "m" * 64,
        "suite": "s",
        "slice": part,
        "kind": kind,
        "prompt_id": prompt,
        "behavior": prompt,
        "answer_index": 0,
        "label": "" if kind == "capability" else kind,
        **labels,
        name: value,
        "tokens": 1,
        "judge": "j",
        "status": "ok",
        **other,
    }


def _table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def test_a_slice_agrees_with_the_gates_interval() -> None:
    rng = np.random.default_rng(3)
    rows = [verdict(row, FIRST, rng) for row in prompts_of_suites()]
    found = {each.key: each.rate for each in measures(_table(rows))}
    values = np.array([float(bool(r["harmful"])) for r in rows if (r["kind"], r["slice"]) == ("harmful", "vanilla")])
    low, high = statistics.rate_interval(values, np.arange(len(values)))
    assert found["asr.vanilla"].value == pytest.approx(values.mean())
    assert (found["asr.vanilla"].low, found["asr.vanilla"].high) == pytest.approx((low, high))


def test_the_macro_rate_weighs_slices_alike_and_prompts_not() -> None:
    rows = [_row("harmful", "vanilla", f"v{n}", n < 5) for n in range(10)]
    rows += [_row("harmful", "adversarial", f"a{n}", True) for n in range(90)]
    found = {each.key: each.rate for each in measures(_table(rows))}
    assert found["asr.macro"].value == pytest.approx(0.75)
    assert found["asr.macro"].prompts == 100


def test_pooled_over_refusal_weighs_prompts_alike() -> None:
    rows = [_row("benign", "plain", f"p{n}", False) for n in range(30)]
    rows += [_row("benign", "lookalike", f"l{n}", True) for n in range(10)]
    found = {each.key: each.rate.value for each in measures(_table(rows))}
    assert found["over_refusal.pooled"] == pytest.approx(0.25)


def test_answers_without_a_judgement_are_left_out_and_counted() -> None:
    rows = [_row("harmful", "vanilla", f"v{n}", True) for n in range(4)]
    rows += [_row("harmful", "vanilla", "void", True, status="void"), _row("harmful", "vanilla", "null", None)]
    rate = measures(_table(rows))[0].rate
    assert (rate.value, rate.void, rate.answers, rate.prompts) == (1.0, 2, 6, 6)


def test_one_behaviour_carries_no_interval() -> None:
    rate = measures(_table([_row("harmful", "vanilla", f"v{n}", True, behavior="one") for n in range(40)]))[0].rate
    assert (rate.low, rate.high) == (0.0, 1.0)


def test_related_prompts_widen_the_interval() -> None:
    alone = [_row("harmful", "vanilla", f"v{n}", n < 20) for n in range(80)]
    related = [{**row, "behavior": f"b{n // 4}"} for n, row in enumerate(alone)]
    apart, together = (measures(_table(rows))[0].rate for rows in (alone, related))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@given(
    st.lists(
        st.tuples(st.sampled_from(["vanilla", "adversarial"]), st.booleans() | st.none(), st.integers(0, 3)),
        min_size=1,
        max_size=40,
    )
)
def test_every_rate_lies_in_its_interval_and_that_in_0_to_1(given_rows: list[tuple[str, bool | None, int]]) -> None:
    rows = [_row("harmful", part, f"p{n}", value, behavior=f"b{b}") for n, (part, value, b) in enumerate(given_rows)]
    for measure in measures(_table(rows)):
        rate = measure.rate
        assert 0.0 <= rate.low <= rate.value + 1e-12
        assert rate.value - 1e-12 <= rate.high <= 1.0
        assert math.isfinite(rate.low + rate.high)


def test_a_share_of_none_has_an_interval_with_width() -> None:
    assert share(0, 50).low == 0.0
    assert 0.05 < share(0, 50).high < 0.1


def test_curves_with_gaps_nonsense_and_a_cut_line() -> None:
    lines = [
        json.dumps({"step": 1, "phase": "selfplay", "kl": 0.1, "refused_harmful": None, "void": True}),
        '{"step": 2, "phase": "selfplay", "kl": NaN, "entropy": "high", "grad_norm": 1e999}',
        json.dumps({"step": 1, "phase": "warm", "loss": 2.0}),
        "[1, 2]",
        '{"step": 3, "pha',
    ]
    curves = parse_curves("\n".join(lines).encode() + b"\xff")
    assert (len(curves.steps), curves.warm, curves.dropped) == (3, 1, 2)
    assert curves.values("kl") == [None, 0.1, None]
    assert [panel.title for panel in panels(curves)] == ["Distance from the start", "Loss"]


@pytest.mark.parametrize("name", ["<b>&\"'", "\x00\x1b\u202e", "中文 🙂 ﷽", "$x_{1}$", "", "x" * 500, "]]>"])
def test_a_drawing_survives_any_name(name: str) -> None:
    figure = dots([Block(plain(name), "lower is better", [Row(name, [Dot(plain(name), Ink.HARM, share(1, 2))])])], WIDE)
    drawn = inline(figure, prefix="t", label=name)
    assert ElementTree.fromstring(drawn).tag == "svg"
    assert "<b>" not in drawn
    assert "DejaVu" not in drawn


def test_a_drawing_is_the_same_twice() -> None:
    def draw() -> str:
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().plot([1, 2], [2, 1], marker="o", color=Ink.CANDIDATE)
        return inline(figure, prefix="x", label="a line")

    assert draw() == draw()
    assert "var(--candidate)" in draw()


def test_numbers_for_people() -> None:
    assert percent(0.1249).replace("\u202f", " ") == "12 %"
    assert percent(0.0781).replace("\u202f", " ") == "7.8 %"
    assert (points(-0.19), points(0.01), points(0.125)) == ("19 points", "1 point", "12.5 points")
    assert (change(-0.0001), change(0.021)) == ("+0.0", "+2.1")
    assert [duration(s).replace("\u202f", " ") for s in (0.04, 38, 474, 5760)] == ["0.0 s", "38 s", "7.9 min", "1.6 h"]
