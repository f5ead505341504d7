from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.durations import DAY, MAX_SLEEP_MS, format_duration, parse_duration, parse_until
from stepwell.errors import DurationError, StepwellError


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("7d", 7 * DAY),
        ("2w", 14 * DAY),
        ("500ms", 500),
        ("1w2d3h4m5s6ms", 9 * DAY + 3 * 3_600_000 + 4 * 60_000 + 5_006),
        ("0s", 0),
        (0, 0),
        (1_500, 1_500),
        (timedelta(seconds=1.5), 1_500),
        (timedelta(microseconds=1), 1),
        ("366d", MAX_SLEEP_MS),
    ],
)
def test_durations_in_every_form(value, ms):
    assert parse_duration(value, argument="timeout") == ms


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1.5, "1.5 is a float, not whole milliseconds"),
        (True, "True is a bool, not a duration"),
        (None, "None is a NoneType, not a duration"),
        (-1, "-1 is negative"),
        ("-5m", "'-5m' is negative"),
        (timedelta(seconds=-1), "is negative"),
        (timedelta(microseconds=-1_001), "is negative"),
        ("", "'' is not a duration"),
        ("5", "'5' is not a duration"),
        ("5y", "units are w d h m s ms"),
        ("1.5h", "whole numbers"),
        ("1h 30m", "no spaces"),
        ("30m1h", "largest unit first"),
        ("5M", "'5M' is not a duration"),
        ("٣s", "is not a duration"),
        ("5m\n", "is not a duration"),
        ("367d", "too long; the most is 366d"),
        (10**30, "too long"),
    ],
)
def test_bad_durations_name_the_argument_and_what_to_write(value, says):
    with pytest.raises(DurationError) as caught:
        parse_duration(value, argument="step.sleep(duration)")
    assert str(caught.value).startswith("step.sleep(duration): ")
    assert says in str(caught.value)
    assert isinstance(caught.value, StepwellError)
    assert isinstance(caught.value, ValueError)


def test_bounds_are_told():
    with pytest.raises(DurationError, match="period: '10ms' is too short; the least is 1s"):
        parse_duration("10ms", argument="period", minimum=1_000)
    assert parse_duration("1s", argument="period", minimum=1_000, maximum=1_000) == 1_000


@given(st.integers(0, MAX_SLEEP_MS))
def test_a_formatted_duration_reads_back(ms):
    assert parse_duration(format_duration(ms), argument="x") == ms


@given(st.timedeltas(timedelta(0), timedelta(days=366)))
def test_a_timedelta_is_never_cut_short(delta):
    ms = parse_duration(delta, argument="x")
    assert timedelta(0) <= timedelta(milliseconds=ms) - delta < timedelta(milliseconds=1)


def test_points_in_time_in_every_form():
    at = datetime(2030, 1, 31, 9, tzinfo=UTC)
    ms = 1_896_080_400_000
    there = at.astimezone(timezone(timedelta(hours=5)))
    for value in (at, there, "2030-01-31T09:00:00Z", "2030-01-31T10:00:00+01:00", ms):
        assert parse_until(value, argument="until") == ms
    assert parse_until(at, argument="until", now_ms=ms - MAX_SLEEP_MS) == ms
    assert parse_until(at, argument="until", now_ms=ms + 1) == ms, "the past is allowed"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (datetime(2030, 1, 31), "has no time zone"),  # noqa: DTZ001
        ("2030-01-31T09:00:00", "has no time zone"),
        ("2030-01-31", "has no time zone"),
        ("tomorrow", "not an ISO 8601 time"),
        (date(2030, 1, 31), "is a date, not a point in time"),
        (True, "is a bool"),
        (1.5e12, "is a float"),
        (1_700_000_000, "before 1980; points in time are milliseconds since 1970 (not seconds"),
        (10**18, "after the year 9999"),
    ],
)
def test_bad_points_in_time_name_the_argument(value, says):
    with pytest.raises(DurationError) as caught:
        parse_until(value, argument="until")
    assert str(caught.value).startswith("until: ")
    assert says in str(caught.value)


def test_a_point_too_far_away_is_refused():
    with pytest.raises(DurationError, match="too far away; the most is 366d from now"):
        parse_until("2032-01-01T00:00:00Z", argument="until", now_ms=1_896_080_400_000)
