"""Cron texts: what is accepted, and which instants they mean around the changes of clocks."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell import _engine
from stepwell.errors import ConfigError
from stepwell_engine.cron import check_cron, cron_identity, parse_cron

BERLIN = "Europe/Berlin"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def ticks(text: str, zone: str | None, start: str, count: int) -> list[str]:
    """The first ticks after a moment in UTC, as the zone's clocks show them."""
    schedule = parse_cron(text, zone)
    at = ms(start)
    found: list[str] = []
    for _ in range(count):
        at = schedule.next_ms(at) or 0
        found.append(f"{schedule.local(at):%d %H:%M %z}")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *", "*/5 9-17 * * mon-fri", "0 0 1,15 * *", "0 0 L * *", "0 0 * * fri#2", "30 4 15W * ?",
        "0 0 29 2 *", "@hourly", "@DAILY", "@midnight", "@weekly", "@monthly", "@yearly", "@annually",
        "  0   0 * * THU ", "TZ=Asia/Tokyo 0 9 * * *", "TZ=UTC @daily",
    ],
)  # fmt: skip
def test_accepted(text):
    check_cron(text, None)


@pytest.mark.parametrize(
    ("text", "timezone", "says"),
    [
        ("", None, "is not a cron expression"),
        (5, None, "is not a cron expression"),
        ("* * * *", None, "has 4 fields, not 5"),
        ("0 * * * * *", None, "has 6 fields, not 5"),
        ("60 * * * *", None, "can't be read: is not acceptable, out of range"),
        ("*/0 * * * *", None, "step '0' in field 0"),
        ("0 0 0 * *", None, "can't be read"),
        ("a b c d e", None, "can't be read"),
        ("@reboot", None, "is not one of @hourly, @daily"),
        ("@every 1h", None, "is not one of @hourly, @daily"),
        ("H H * * *", None, "for spread use jitter="),
        ("R(0-9) * * * *", None, "for spread use jitter="),
        ("0 0 30 2 *", None, "there is no such date"),
        ("0 0 31 4,6,9,11 *", None, "there is no such date"),
        ("0 0 29 2 mon#1", None, "there is no such date"),
        ("0" * 256, None, "256 characters, the most is 255"),
        ("@daily", "Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
        ("@daily", "", "no time zone ''"),
        ("@daily", "../etc/passwd", "no time zone"),
        ("@daily", 5, "timezone=5 is not a name"),
        ("TZ=Europe @daily", None, "no time zone 'Europe'"),
        ("TZ=", None, "no time zone ''"),
        ("TZ=Europe/Berlin", None, "has 0 fields"),
        ("TZ=Europe/Berlin @daily", "UTC", "write one of the two"),
    ],
)
def test_refused(text, timezone, says):
    with pytest.raises(ConfigError) as caught:
        _engine.check_cron(text, timezone)
    assert says in str(caught.value)


WITHOUT_PACKAGE = "import sys; sys.modules['tzdata'] = None; "


@pytest.mark.parametrize(
    ("before", "zone", "says"),
    [
        ("", BERLIN, "2026-06-01 22:00:00+00:00"),
        (WITHOUT_PACKAGE, None, "2026-06-02 00:00:00+00:00"),
        (WITHOUT_PACKAGE, BERLIN, "install or update the package tzdata"),
    ],
)
def test_a_system_without_time_zones(before: str, zone: str | None, says: str) -> None:
    code = f"""{before}
from datetime import UTC, datetime
from stepwell.errors import ConfigError
from stepwell_engine.cron import parse_cron
try:
    at = parse_cron("@daily", {zone!r}).next_ms({ms("2026-06-01T12:00:00")})
    print(datetime.fromtimestamp(at / 1000, UTC))
except ConfigError as error:
    print(error)
"""
    env = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert says in done.stdout


def test_the_zone_is_part_of_a_cron_however_it_is_given():
    assert cron_identity(f"TZ={BERLIN}   0 9 * * MON", None) == f"{BERLIN} 0 9 * * mon"
    assert cron_identity("0  9 * * mon", BERLIN) == f"{BERLIN} 0 9 * * mon"
    assert cron_identity("@daily", None) == "UTC @daily"
    assert cron_identity("@daily", "Nowhere/At All") == "Nowhere/At All @daily"


def test_a_tick_is_later_than_what_is_asked_after():
    schedule = parse_cron("*/10 * * * *", None)
    assert schedule.next_ms(ms("2026-01-01T00:10") - 1) == ms("2026-01-01T00:10")
    assert schedule.next_ms(ms("2026-01-01T00:10")) == ms("2026-01-01T00:20")
    assert parse_cron("0 0 29 2 *", None).next_ms(ms("2026-01-01")) == ms("2028-02-29")


def test_spring_a_named_time_that_is_skipped_ticks_when_the_gap_ends():
    after = ["29 03:00 +0200", "30 02:30 +0200"]
    assert ticks("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == after
    # Four times in the gap are one tick; 03:00 itself is the same instant.
    assert ticks("*/15 2,3 * * *", BERLIN, "2026-03-29T00:59", 2) == [
        "29 03:00 +0200", "29 03:15 +0200",
    ]  # fmt: skip
    assert ticks("0 3 * * *", BERLIN, "2026-03-28T12:00", 1) == ["29 03:00 +0200"]
    assert ticks("@daily", "America/Havana", "2026-03-07T12:00", 2) == [
        "08 01:00 -0400", "09 00:00 -0400",
    ]  # fmt: skip


def test_spring_the_rhythm_of_every_hour_has_no_gap():
    assert ticks("*/30 * * * *", BERLIN, "2026-03-29T00:00", 4) == [
        "29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200", "29 04:00 +0200",
    ]  # fmt: skip
    # The minute 15 of the skipped hour is not made up for.
    assert ticks("15 * * * *", BERLIN, "2026-03-29T00:00", 2) == [
        "29 01:15 +0100",
        "29 03:15 +0200",
    ]


def test_autumn_a_named_time_ticks_once():
    assert ticks("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == [
        "25 02:30 +0200",
        "26 02:30 +0100",
    ]
    assert ticks("*/30 2-3 * * *", BERLIN, "2026-10-24T12:00", 5) == [
        "25 02:00 +0200", "25 02:30 +0200", "25 03:00 +0100", "25 03:30 +0100", "26 02:00 +0100",
    ]  # fmt: skip
    # Asked in the second pass, whose times had their ticks in the first.
    assert ticks("30 2 * * *", BERLIN, "2026-10-25T01:10", 1) == ["26 02:30 +0100"]


def test_autumn_the_rhythm_of_every_hour_runs_on_through():
    assert ticks("*/30 * * * *", BERLIN, "2026-10-24T23:30", 6) == [
        "25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "25 03:00 +0100", "25 03:30 +0100",
    ]  # fmt: skip
    assert ticks("@hourly", "Australia/Lord_Howe", "2026-04-04T14:30", 3) == [
        "05 02:00 +1030", "05 03:00 +1030", "05 04:00 +1030",
    ]  # fmt: skip


CHANGES = [
    (BERLIN, "2026-03-28T22:00"), (BERLIN, "2026-10-24T22:00"), ("America/Havana", "2026-03-08T02:00"),
    ("America/Havana", "2026-11-01T02:00"), ("Australia/Lord_Howe", "2026-04-04T12:00"),
    ("Australia/Lord_Howe", "2026-10-03T12:00"), ("Antarctica/Troll", "2026-03-28T22:00"),
    ("Antarctica/Troll", "2026-10-24T22:00"), ("Europe/Dublin", "2026-10-24T22:00"), ("UTC", "2026-03-28T22:00"),
    ("Asia/Kathmandu", "2026-03-28T22:00"),
]  # fmt: skip
MINUTE = timedelta(minutes=1)
SPAN = 12 * 60


def told(minutes: set[int], hours: set[int], zone: str, start: datetime) -> list[datetime]:
    """The rule, minute by minute."""
    z = ZoneInfo(zone)
    instants = [start + i * MINUTE for i in range(1, SPAN)]
    walls = [at.astimezone(z).replace(tzinfo=None) for at in instants]
    if not hours:
        return [at for at, wall in zip(instants, walls, strict=True) if wall.minute in minutes]
    first: dict[datetime, datetime] = {}
    before = {(start - i * MINUTE).astimezone(z).replace(tzinfo=None) for i in range(180)}
    found = set[datetime]()
    for at, wall in zip(instants, walls, strict=True):
        if wall not in before:
            first.setdefault(wall, at)
    wall = min(*walls, start.astimezone(z).replace(tzinfo=None) + MINUTE)
    while wall < max(walls):
        if wall.minute in minutes and wall.hour in hours:
            if wall in first:
                found.add(first[wall])
            elif wall not in walls:  # skipped: what the clocks show next
                found.add(min(at for w, at in first.items() if w > wall))
        wall += MINUTE
    return sorted(found)


@settings(deadline=None, max_examples=150)
@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 23), max_size=6),
    change=st.sampled_from(CHANGES),
    shift=st.integers(0, 300),
)
def test_ticks_are_those_that_the_rule_tells(minutes, hours, change, shift):
    zone, begin = change
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC) + shift * MINUTE
    text = f"{','.join(map(str, sorted(minutes)))} {','.join(map(str, sorted(hours))) or '*'} * * *"
    schedule = parse_cron(text, zone)
    at, found = int(start.timestamp() * 1000), []
    end = int((start + (SPAN - 1) * MINUTE).timestamp() * 1000)
    while (tick := schedule.next_ms(at)) is not None and tick < end:
        found.append(datetime.fromtimestamp(tick / 1000, UTC))
        at = tick
    assert found == [at for at in told(minutes, hours, zone, start) if at.timestamp() * 1000 < end]


@given(
    after=st.integers(0, 3_000_000_000),
    length=st.integers(0, 40_000_000_000),
    most=st.integers(1, 50),
    text=st.sampled_from(["*/7 * * * *", "0 0 * * *", "0 12 1 * *", "0 0 1 1 *"]),
)
@settings(deadline=None, max_examples=50)
def test_the_newest_ticks_between_two_moments(after, length, most, text):
    schedule = parse_cron(text, BERLIN)
    start = ms("2026-01-01") + after
    found = schedule.between(start, start + length, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    assert all(start < tick <= start + length for tick in found)
    at = found[0] if len(found) == most else start
    for tick in found[1:] if len(found) == most else found:
        assert schedule.next_ms(at) == tick
        at = tick
    assert schedule.next_ms(at) > start + length
