"""Numbers for people: shares, points, times, counts."""

from __future__ import annotations

import math

from sparring.report.measures import Rate

_SPACE = "\N{NARROW NO-BREAK SPACE}"


def percent(value: float) -> str:
    """A share: `12 %`, below ten with one digit more (`7.8 %`, `0.4 %`). A half goes up, as readers expect.

    >>> percent(0.124), percent(0.825), percent(0.078), percent(0.02)
    ('12\\u202f%', '83\\u202f%', '7.8\\u202f%', '2\\u202f%')
    """
    shown = round(100 * value, 1)
    return (
        f"{math.floor(100 * value + 0.5)}{_SPACE}%"
        if abs(shown) >= 10 or shown == round(shown)
        else f"{shown:.1f}{_SPACE}%"
    )


def exact(value: float) -> str:
    """A share with one decimal, as tables need it."""
    return f"{100 * value:.1f}{_SPACE}%"


def interval(rate: Rate) -> str:
    """`8.1 to 17.2`: the interval of a rate, in percent."""
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"


def points(value: float) -> str:
    """A difference of shares, without its sign.

    >>> points(-0.19), points(0.01)
    ('19 points', '1 point')
    """
    text = f"{abs(100 * value):.1f}".removesuffix(".0")
    return f"{text} point" if text == "1" else f"{text} points"


def change(value: float) -> str:
    """A difference of shares with its sign: `+1.2`, `−19.0`."""
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−")


def nats(value: float) -> str:
    """A difference of losses with its sign: `+0.325`."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")


def duration(seconds: float) -> str:
    """`4.2 s`, `38 s`, `7.9 min` or `1.6 h`."""
    if seconds < 60:
        return f"{seconds:.1f}{_SPACE}s" if seconds < 10 else f"{seconds:.0f}{_SPACE}s"
    return f"{seconds / 60:.1f}{_SPACE}min" if seconds < 5400 else f"{seconds / 3600:.1f}{_SPACE}h"


def count(number: int, noun: str) -> str:
    """`1 attack`, `1,204 attacks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
