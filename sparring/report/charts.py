"""The drawings of the page, each for a wide and a narrow column. One colour a model, names beside the data.

A figure of w/72 inches has a viewBox of w units, and the page shows one unit as about one pixel: all sizes below are
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sparring.report.learning import Line, Panel
from sparring.report.measures import Rate
from sparring.report.numbers import duration, percent
from sparring.report.svg import Ink, inline, plain

WIDE, NARROW = 720.0, 350.0
_SMALL, _TEXT = 11.0, 12.5
_MARKS = {Ink.CANDIDATE: "o", Ink.CHAMPION: "s", Ink.REFERENCE: "D"}
_OUTCOMES: Mapping[str, tuple[str, Literal["full", "left", "none"]]] = {
    "PROMOTE": ("o", "full"),
    "INCONCLUSIVE": ("o", "left"),
    "REJECT": ("o", "none"),
    "INVALID": ("X", "full"),
}
"""Marker and filling of the candidate in the history."""


@dataclass(frozen=True)
class Chart:
    """One drawing twice: the page's style sheet shows the one that fits. `label` says in words what is drawn."""

    wide: str
    narrow: str
    label: str


@dataclass(frozen=True)
class Dot:
    """One model's rate in one row of the dot chart."""

    model: str
    color: str
    rate: Rate


@dataclass(frozen=True)
class Row:
    """A row of a dot chart; `strong` marks the one that the gate decides on."""

    name: str
    dots: Sequence[Dot]
    strong: bool = False


@dataclass(frozen=True)
class Block:
    """Rows on one scale under one heading, e.g. attack success; `hint` says which way is better."""

    title: str
    hint: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Bar:
    """One step's time in seconds, one part an attempt; `failed` when the last attempt did not end well."""

    name: str
    parts: Sequence[float]
    failed: bool = False


@dataclass(frozen=True)
class Point:
    """One round of the history: what the candidate measured, what the champion of that round measured, the outcome."""

    round: int
    outcome: str
    candidate: Rate | None
    champion: Rate | None


def chart(draw: Callable[[float], Figure], name: str, label: str) -> Chart:
    """Draws for both widths; `name` keeps the ids of several drawings apart."""
    wide = inline(draw(WIDE), prefix=f"{name}-w", label=label)
    return Chart(wide, inline(draw(NARROW), prefix=f"{name}-n", label=label), label)


def dots(blocks: Sequence[Block], width: float) -> Figure:
    """Rates with intervals: a block a quantity with its own scale from 0, a row a slice, a line a model."""
    wide = width >= WIDE
    line, gap = 17.0, (12.0 if wide else 30.0)
    heights = [sum(len(row.dots) * line + gap for row in block.rows) for block in blocks]
    top, foot = 34.0, 30.0
    figure = _canvas(width, sum(heights) + (top + foot) * len(blocks))
    y = 0.0
    for index, (block, height) in enumerate(zip(blocks, heights, strict=True)):
        axes = _axes(figure, 150 if wide else 2, y + top, width - (150 if wide else 2) - 112, height, rows=True)
        _heading(axes, block.title, block.hint, -150 if wide else 0)
        _block(axes, block, height, line, gap, wide=wide, names=index == 0)
        y += top + height + foot
    return figure


def _block(axes: Axes, block: Block, height: float, line: float, gap: float, *, wide: bool, names: bool) -> None:
    y = 0.0
    for number, row in enumerate(block.rows):
        at = y + len(row.dots) * line / 2 + gap / 2 if wide else y + 11
        _words(axes, plain(row.name, 24 if wide else 40), at, -150 if wide else 0, strong=row.strong)
        y += gap / 2 if wide else gap - 8
        for dot in row.dots:
            _dot(axes, dot, y + line / 2, name=names and number == 0)
            y += line
        y += gap / 2 if wide else 8
    axes.set_ylim(height, 0)
    axes.set_xlim(0, _ceiling([dot.rate.high for row in block.rows for dot in row.dots]))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.grid(axis="x", color=Ink.RULE, linewidth=0.7)


def _dot(axes: Axes, dot: Dot, y: float, *, name: bool) -> None:
    """Interval, marker and, at the interval's end, the value (with the model's name in the chart's first row)."""
    rate = dot.rate
    axes.plot([rate.low, rate.high], [y, y], color=dot.color, linewidth=2.2, alpha=0.45, clip_on=False)
    axes.plot([rate.value], [y], _MARKS.get(dot.color, "o"), color=dot.color, markersize=7, clip_on=False)
    text = f"{percent(rate.value)} {dot.model}" if name else percent(rate.value)
    axes.annotate(
        text, (max(rate.high, rate.value), y), xytext=(8, 0), textcoords="offset points", va="center",
        color=dot.color, fontsize=_SMALL, fontweight="bold" if name else "normal", annotation_clip=False,
    )  # fmt: skip


def small_multiples(panels: Sequence[Panel], warm: int, width: float, unit: str = "step") -> Figure:
    """Curves, one small chart a quantity. The first value is of step 1 − `warm`: step 1 is the first of self-play, the
    warm start before it is shaded.
    """
    columns = 3 if width >= WIDE else 1
    rows = -(-len(panels) // columns)
    left, right, top, height, foot = 44.0, 62.0, 42.0, 108.0, 40.0
    figure = _canvas(width, rows * (top + height + foot) - foot / 2)
    room = width / columns - left - right
    for index, panel in enumerate(panels):
        corner = (index % columns * width / columns + left, index // columns * (top + height + foot) + top)
        axes = _axes(figure, *corner, room, height)
        _heading(axes, panel.title, panel.unit, -left, below=True)
        _panel(axes, panel, warm, unit)
    return figure


def _panel(axes: Axes, panel: Panel, warm: int, unit: str) -> None:
    count = max(len(line.values) for line in panel.lines)
    shown = warm > 0 and any(value is not None for line in panel.lines for value in line.values[:warm])
    shaded = warm if shown else min(warm, 0)
    if shaded > 0:
        axes.axvspan(0.5 - warm, 0.5, color=Ink.SHADE, linewidth=0)
        _above(axes, "warm start", 0, 0, -axes.get_window_extent().height - 14, bold=False)
    for line in panel.lines:
        _curve(axes, line, warm)
    axes.set_xlim(0.5 - shaded, max(count - warm, 2) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}" if value >= 1 else ""))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", color=Ink.RULE, linewidth=0.7)
    _unit(axes, unit)
    if panel.percent:
        values = [value for line in panel.lines for value in line.values if value is not None]
        most = _ceiling([panel.most, *values, *(high for line in panel.lines for _, high in line.band)])
        axes.set_ylim(-0.02 * most, most)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _curve(axes: Axes, line: Line, warm: int) -> None:
    """The curve with its name at its last value; a gap where a step recorded nothing."""
    values = [float("nan") if value is None else value for value in line.values]
    steps = range(1 - warm, len(values) - warm + 1)
    if line.band:
        low, high = zip(*line.band, strict=True)
        axes.fill_between(steps, low, high, color=line.color, alpha=0.13, linewidth=0)
    axes.plot(steps, values, color=line.color, linewidth=1.8, marker="o", markersize=2.4, clip_on=False)
    last = max((index for index, value in enumerate(line.values) if value is not None), default=None)
    if line.name and last is not None:
        _note(axes, line.name, last + 1 - warm, values[last], line.color)


def bars(rows: Sequence[Bar], width: float) -> Figure:
    """Time by step: one bar a step, its attempts side by side, the total written at the end."""
    left, line = (110.0, 26.0)
    figure = _canvas(width, line * len(rows) + 8)
    axes = _axes(figure, left, 2, width - left - 96, line * len(rows), rows=True)
    longest = max((sum(row.parts) for row in rows), default=1.0) or 1.0
    for index, row in enumerate(rows):
        start = 0.0
        for part in row.parts:
            color = Ink.BAD if row.failed and part is row.parts[-1] else Ink.MUTED
            axes.barh(index + 0.5, part, left=start, height=0.56, color=color, edgecolor=Ink.PAPER, linewidth=1)
            start += part
        note = f"{duration(start)}{' ✕' if row.failed else ''}"
        _note(axes, note, start, index + 0.5, Ink.BAD if row.failed else Ink.TEXT)
        _words(axes, plain(row.name, 18), index + 0.5, -left)
    axes.set_xlim(0, longest)
    axes.set_ylim(len(rows), 0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return figure


def ages(rates: Sequence[tuple[str, Rate]], width: float) -> Figure:
    """Attack success of pooled attacks by their age in rounds."""
    left = 110.0
    line = 26.0
    figure = _canvas(width, line * len(rates) + 34)
    axes = _axes(figure, left, 2, width - left - 112, line * len(rates), rows=True)
    for index, (name, rate) in enumerate(rates):
        _words(axes, plain(name, 24), index + 0.5, -left)
        _dot(axes, Dot("", Ink.HARM, rate), index + 0.5, name=False)
    axes.set_ylim(len(rates), 0)
    axes.set_xlim(0, _ceiling([rate.high for _, rate in rates]))
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.grid(axis="x", color=Ink.RULE, linewidth=0.7)
    return figure


def history(series: Sequence[tuple[str, Sequence[Point]]], width: float) -> Figure:
    """Rounds along the bottom: the candidate's rate with its interval and outcome, the champion's as a line."""
    top, height, foot = 40.0, 150.0, 36.0
    figure = _canvas(width, len(series) * (top + height + foot))
    for index, (title, points) in enumerate(series):
        axes = _axes(figure, 40, index * (top + height + foot) + top, width - 40 - 84, height)
        _heading(axes, title, "lower is better", -40, below=True)
        _rounds(axes, points)
    return figure


def _rounds(axes: Axes, points: Sequence[Point]) -> None:
    held = [(point.round, point.champion.value) for point in points if point.champion]
    if held:
        axes.plot(*zip(*held, strict=True), color=Ink.CHAMPION, linewidth=1.6, marker="s", markersize=4)
        _note(axes, "champion", *held[-1], Ink.CHAMPION)
    for point in points:
        shape, filled = _OUTCOMES.get(point.outcome, ("x", "full"))
        if point.candidate:
            rate, color = point.candidate, Ink.CANDIDATE
            axes.plot([point.round] * 2, [rate.low, rate.high], color=color, linewidth=2, alpha=0.4)
            axes.plot(
                [point.round], [rate.value], shape, color=color, markersize=8, fillstyle=filled,
                markerfacecoloralt=Ink.PAPER, markeredgewidth=1.4,
            )  # fmt: skip
    rounds = [point.round for point in points]
    axes.set_xlim(min(rounds) - 0.5, max(rounds) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_ylim(0, _ceiling([p.candidate.high for p in points if p.candidate] + [value for _, value in held]))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.grid(axis="y", color=Ink.RULE, linewidth=0.7)
    _unit(axes, "round")


def _percent(value: float, _: int | None = None) -> str:
    return f"{100 * value:g} %"


def _ceiling(highs: Sequence[float]) -> float:
    """The end of a scale that starts at 0 %: the first of a few calm numbers that holds everything."""
    most = max(highs, default=1.0)
    return next((end for end in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if most <= end), max(1.0, most))


def _canvas(width: float, height: float) -> Figure:
    return Figure(figsize=(width / 72, max(height, 10.0) / 72), dpi=72)


def _axes(figure: Figure, left: float, top: float, width: float, height: float, *, rows: bool = False) -> Axes:
    """Axes at pixels from the figure's top left corner, framed by the bottom line only; `rows`: no vertical scale."""
    full_width, full_height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (left / full_width, 1 - (top + height) / full_height, width / full_width, height / full_height)
    )
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(Ink.MUTED)
    axes.tick_params(colors=Ink.MUTED, labelsize=_SMALL, length=0, pad=5)
    axes.set_axisbelow(True)
    axes.yaxis.set_visible(not rows)
    return axes


def _heading(axes: Axes, title: str, hint: str, dx: float, *, below: bool = False) -> None:
    """Title above the axes; the hint in grey at the right, or below it."""
    _above(axes, title, 0, dx, 26 if below else 14, bold=True)
    _above(axes, hint, 0 if below else 1, dx if below else 108, 11 if below else 14, bold=False)


def _above(axes: Axes, text: str, side: float, dx: float, dy: float, *, bold: bool) -> None:
    axes.annotate(
        text, (side, 1), xycoords="axes fraction", xytext=(dx, dy), textcoords="offset points",
        ha="right" if side else "left", color=Ink.TEXT if bold else Ink.MUTED, fontsize=_TEXT if bold else _SMALL,
        fontweight="bold" if bold else "normal", annotation_clip=False,
    )  # fmt: skip


def _unit(axes: Axes, text: str) -> None:
    """What the horizontal axis counts, after its last number."""
    _above(axes, text, 0, axes.get_window_extent().width + 8, -axes.get_window_extent().height - 14, bold=False)


def _words(axes: Axes, text: str, y: float, dx: float, *, strong: bool = False) -> None:
    """A row's name, left of the axes at data height `y`."""
    axes.annotate(
        text, (0, y), xycoords=("axes fraction", "data"), xytext=(dx, 0), textcoords="offset points", va="center",
        color=Ink.TEXT, fontsize=_TEXT, fontweight="bold" if strong else "normal", annotation_clip=False,
    )  # fmt: skip


def _note(axes: Axes, text: str, x: float, y: float, color: str) -> None:
    """A direct label right of a data point."""
    axes.annotate(
        text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", color=color, fontsize=_SMALL,
        annotation_clip=False,
    )  # fmt: skip
