"""Cron: the times are croniter's, and what Kubeflow is given means the same with the seconds in front."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from croniter import croniter
from hypothesis import assume, given
from hypothesis import strategies as st

from sparring.config.cron import parse_cron
from sparring.config.load import load_run
from sparring.errors import ConfigError


@st.composite
def field(draw: st.DrawFn, low: int, high: int) -> str:
    """One field: values, ranges, steps and lists of them."""

    def part() -> str:
        start, end = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        step = draw(st.integers(2, max(2, (high - low) // 2)))
        ranges = [f"{start}-{end}", f"{start}-{end}/{step}"] if end > start else []  # croniter takes 0-0 for 0-6
        return draw(st.sampled_from([str(start), f"*/{step}", *ranges]))

    return "*" if draw(st.booleans()) else ",".join(part() for _ in range(draw(st.integers(1, 3))))


schedules = st.builds(
    lambda *fields: " ".join(fields), field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)
)


def starred_in_full(schedule: str) -> bool:
    """Whether a day field gives every day as `*/2,1-31` does: crontab(5) asks for a star in it, croniter for `*`."""
    cron, written = parse_cron(schedule), schedule.split()
    pairs = ((written[2], len(cron.days) == 31), (written[4], len(cron.weekdays) == 7))
    return any(full and "*" in field != "*" for field, full in pairs)


times = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1))


@given(schedules, times)
def test_fires_when_croniter_does(schedule: str, start: datetime) -> None:
    assume(not starred_in_full(schedule))
    reference = croniter(schedule, start, implement_cron_bug=False)
    wanted = [reference.get_next(datetime) for _ in range(3)]
    assert list(islice(parse_cron(schedule).fires(start), 3)) == wanted


@given(schedules, times)
def test_the_six_fields_fire_at_the_same_times(schedule: str, start: datetime) -> None:
    six = parse_cron(schedule).six_fields
    assert six.startswith("0 ") and len(six.split()) == 6
    reference = croniter(six, start, second_at_beginning=True)
    assert list(islice(parse_cron(schedule).fires(start), 3)) == [reference.get_next(datetime) for _ in range(3)]


@pytest.mark.parametrize(
    ("schedule", "six"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/20 * * * *", "0 0,20,40 * * * *"),
        ("30 4 * * mon-fri", "0 30 4 * * 1,2,3,4,5"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 1 JAN *", "0 0 0 1 1 *"),
        ("0-59 * * * *", "0 * * * * *"),
        ("0 0 1 * 0-6", "0 0 0 * * *"),
        ("0 0 */2 * 0-6", f"0 0 0 {','.join(map(str, range(1, 32, 2)))} * *"),
        ("0 0 1 * *,3", "0 0 0 1 * *"),
        ("0 0 1 * 0-5,*/2", "0 0 0 1 * *"),
    ],
)
def test_what_kubeflow_is_given(schedule: str, six: str) -> None:
    assert parse_cron(schedule).six_fields == six


def test_a_leap_day_is_found_across_the_century() -> None:
    assert next(parse_cron("0 0 29 2 *").fires(datetime(2097, 1, 1, tzinfo=UTC))) == datetime(2104, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("0 0 3 * * *", "five fields .* added for you"),
        ("0 3 * *", "five fields"),
        ("@daily", "five fields"),
        ("60 3 * * *", "minute '60' is not from 0 to 59"),
        ("0 24 * * *", "hour '24'"),
        ("0 3 0 * *", "day of month '0'"),
        ("0 3 * 13 *", "month '13'"),
        ("0 3 * * 8", "day of week '8'"),
        ("0 3 * * mo", "day of week 'mo'"),
        ("5-1 3 * * *", "runs backwards"),
        ("*/0 * * * *", "step"),
        ("*-5 * * * *", "none of"),
        ("-1 * * * *", "none of"),
        ("1, * * * *", "none of"),
        ("² * * * *", "none of"),
        ("0 0 31 2 *", "never fires"),
    ],
)
def test_a_wrong_schedule_names_its_field(schedule: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_cron(schedule)


def test_the_run_file_refuses_it_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.schedule .*never fires"):
        load_run(None, ['cluster.schedule="0 0 31 2 *"'])
