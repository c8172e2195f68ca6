"""Five-field cron, as crontab(5) has it, and what Kubeflow makes of it.

Kubeflow's cron has six fields, the second first: it takes `0 3 * * *` and runs it every hour at three minutes past.
So a schedule is read here, refused when it is not five fields, and handed on with every value written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_MONTHS: Final = dict(zip("jan feb mar apr may jun jul aug sep oct nov dec".split(), range(1, 13), strict=True))
_DAYS: Final = dict(zip("sun mon tue wed thu fri sat".split(), range(7), strict=True))
_PART: Final = re.compile(r"(?P<low>\*|[a-z0-9]+)(?:-(?P<high>[a-z0-9]+))?(?:/(?P<step>[0-9]+))?")
_YEARS: Final = 9
"""The longest pause of a schedule that fires at all: 29 February around a century without one."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    words: dict[str, int]


_FIELDS: Final = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A schedule: the values of its five fields; Sunday is 0.

    A day fits when day of month and day of week both fit; when both are restricted (neither was written `*`), one is
    enough, as everywhere in cron.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def six_fields(self) -> str:
        """The same schedule for Kubeflow: second 0 in front, values written out, `*` for all of them."""
        fields = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        full = (60, 24, 31, 12, 7)
        return " ".join(
            ["0", *("*" if len(f) == n else ",".join(map(str, sorted(f))) for f, n in zip(fields, full, strict=True))]
        )

    def fires(self, after: datetime) -> Iterator[datetime]:
        """Times later than `after`, in its time zone, in order, to the end of the ninth year."""
        day = after.replace(hour=0, minute=0, second=0, microsecond=0)
        end = day + timedelta(days=366 * _YEARS)
        while day < end:
            if self._fits(day):
                times = (day.replace(hour=h, minute=m) for h in sorted(self.hours) for m in sorted(self.minutes))
                yield from (time for time in times if time > after)
            day += timedelta(days=1)

    def _fits(self, day: datetime) -> bool:
        by_date, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        both = len(self.days) < 31 and len(self.weekdays) < 7
        return day.month in self.months and (by_date or by_week if both else by_date and by_week)


def parse_cron(text: str) -> Cron:
    """The schedule of five fields. Raises ValueError that names the field, and when it could never fire."""
    fields = text.lower().split()
    if len(fields) != 5:
        more = "; the seconds, which Kubeflow wants first, are added for you" if len(fields) == 6 else ""
        raise ValueError(f"schedule {text!r} should have five fields (minute hour day month weekday){more}")
    minutes, hours, days, months, weekdays = (_values(*pair) for pair in zip(fields, _FIELDS, strict=True))
    weekdays = frozenset(day % 7 for day in weekdays)
    if all("*" not in fields[place] for place in (2, 4)) and (len(days) == 31 or len(weekdays) == 7):
        days, weekdays = frozenset(range(1, 32)), frozenset(range(7))  # either is enough, and one always fits
    cron = Cron(minutes, hours, days, months, weekdays)
    if next(cron.fires(datetime(2000, 1, 1)), None) is None:
        raise ValueError(f"schedule {text!r} never fires: no such day")
    return cron


def _values(text: str, field: _Field) -> frozenset[int]:
    return frozenset(value for part in text.split(",") for value in _part(part, field))


def _part(text: str, field: _Field) -> range:
    match = _PART.fullmatch(text)
    if not match or (match["low"] == "*" and match["high"]):
        raise ValueError(f"{field.name} {text!r} is none of *, n, n-m, */n, n-m/n and lists of them")
    step = int(match["step"] or 1)
    if match["low"] == "*":
        low, high = field.low, min(field.high, 6) if field.words is _DAYS else field.high
    else:
        low = _number(match["low"], field)
        high = _number(match["high"], field) if match["high"] else (field.high if match["step"] else low)
    if low > high:
        raise ValueError(f"{field.name} {text!r} runs backwards")
    if not 1 <= step <= field.high:
        raise ValueError(f"{field.name} {text!r} has a step that is not from 1 to {field.high}")
    return range(low, high + 1, step)


def _number(text: str, field: _Field) -> int:
    value = field.words.get(text, int(text) if text.isdecimal() else -1)
    if not field.low <= value <= field.high:
        raise ValueError(f"{field.name} {text!r} is not from {field.low} to {field.high}")
    return value
