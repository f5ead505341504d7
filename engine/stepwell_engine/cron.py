"""Cron texts as schedules: which instants a text means in its time zone, with its days of 23 and 25 hours.

A text is a pattern of wall-clock time; croniter walks that pattern without any zone, and the mapping to instants is made here:

* Every hour (`*` in the hour field: `*/15 * * * *`, `@hourly`): a tick at each instant whose wall clock matches. When clocks go
  forward the skipped times have no tick, when they go back both passes have theirs: the rhythm runs on through.
* Hours named (`30 2 * * *`, `@daily`): each wall-clock time once. One that clocks skip ticks when the skipped time ends
  (02:30 at 03:00), several of one gap together once; one that comes twice ticks the first time.
"""

import re
from copy import copy
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

import croniter as _croniter

from stepwell.errors import ConfigError

MAX_CHARS: Final = 255
NAMES: Final = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")

_ADVICE: Final = 'write five fields (minute hour day month weekday) such as "0 9 * * 1-5", or a name such as "@daily"'
_PREFIX: Final = re.compile(r"TZ=(\S*)(?:\s+|$)")
# Jenkins' H and R take their value from a hash or from chance: no two processes would agree on R.
_HASHED: Final = re.compile(r"(?<![a-z])[hr](?![a-z])", re.IGNORECASE)
_MINUTE: Final = timedelta(minutes=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOURS: Final = 1
_YEARS: Final = 50  # 29 February on a given weekday comes every 28 years, across 2100 every 40


class Schedule:
    """When a cron text ticks in a zone.

    >>> Schedule("0 9 * * 1-5", "Europe/Berlin").next_ms(1_774_000_000_000)
    1774252800000
    """

    __slots__ = ("_every_hour", "_pattern", "_zone", "text", "zone")

    def __init__(self, text: str, zone: str) -> None:
        self.text = text
        self.zone = zone
        self._zone = _zone(zone)
        # Any: croniter has no types.
        pattern = cast("Any", _croniter).croniter
        self._pattern = pattern(text, datetime(2000, 1, 1), max_years_between_matches=_YEARS)  # noqa: DTZ001
        self._every_hour = self._pattern.expanded[_HOURS] == ["*"]

    def next_ms(self, after_ms: int) -> int | None:
        """The first tick later than `after_ms`; None when none comes within 50 years."""
        at = _EPOCH + timedelta(milliseconds=after_ms)
        try:
            found = self._after(at)
        except (_croniter.CroniterBadDateError, OverflowError):
            return None
        return (found - _EPOCH) // timedelta(milliseconds=1)

    def between(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        """The newest ticks, `most` at most, later than `after_ms` and not later than `until_ms`; oldest first.

        Costs as much as the ticks it finds, however long the time between is.
        """
        width = 60_000 * most
        while True:
            start = max(after_ms, until_ms - width)
            found = self._walk(start, until_ms)
            if start == after_ms or len(found) >= most:
                return found[-most:]
            width *= 4

    def _walk(self, at_ms: int, until_ms: int) -> list[int]:
        found: list[int] = []
        tick = self.next_ms(at_ms)
        while tick is not None and tick <= until_ms:
            found.append(tick)
            tick = self.next_ms(tick)
        return found

    def local(self, ms: int) -> datetime:
        """A moment as the schedule's zone shows it."""
        return (_EPOCH + timedelta(milliseconds=ms)).astimezone(self._zone)

    def _after(self, at: datetime) -> datetime:
        local = at.astimezone(self._zone)
        found = self._forward(at, local.replace(tzinfo=None))
        second = local.replace(fold=1)
        if self._every_hour and local.fold == 0 and second.utcoffset() != local.utcoffset():
            # In the first pass of a repeated hour: what its second pass shows was passed already by the wall clock.
            began = self._change(at, _utc(second))
            wall = began.astimezone(self._zone).replace(tzinfo=None)
            found = min(found, self._forward(began - _MINUTE, wall - _MINUTE))
        return found

    def _forward(self, at: datetime, wall: datetime) -> datetime:
        """The first instant after `at` among those of the pattern's times after `wall`."""
        pattern = copy(self._pattern)  # it walks, and schedules are shared by threads
        pattern.set_current(wall, force=True)
        while True:
            wall = pattern.get_next(datetime)
            first = wall.replace(tzinfo=self._zone)
            last = first.replace(fold=1)
            if first.utcoffset() == last.utcoffset():
                instants = [_utc(first)]
            elif _utc(first) < _utc(last):
                instants = [_utc(first), _utc(last)] if self._every_hour else [_utc(first)]
            else:  # skipped: its two readings are the wrong way round
                instants = [] if self._every_hour else [self._change(_utc(last), _utc(first))]
            for instant in instants:
                if instant > at:
                    return instant

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The first instant with the offset of `after`; the zone changes once between the two."""
        offset = after.astimezone(self._zone).utcoffset()
        span = int((after - before).total_seconds())
        low, high = 0, span
        while high - low > 1:
            middle = (low + high) // 2
            if (after - timedelta(seconds=span - middle)).astimezone(
                self._zone
            ).utcoffset() == offset:
                high = middle
            else:
                low = middle
        return after - timedelta(seconds=span - high)


def _zone(name: str) -> tzinfo:
    # What most crons say must not need any data.
    return UTC if name == "UTC" else ZoneInfo(name)


def _utc(local: datetime) -> datetime:
    return local.astimezone(UTC)


def check_cron(text: str, timezone: str | None) -> None:
    """Check a cron text and its time zone. Raises `ConfigError`, saying what to write instead.

    >>> check_cron("0 9 * * 1-5", "Europe/Berlin")
    """
    parse_cron(text, timezone)


def parse_cron(text: str, timezone: str | None) -> Schedule:
    """The schedule of a text with or without `TZ=`; UTC where no zone is given. Raises `ConfigError`.

    >>> parse_cron("TZ=Europe/Berlin @daily", None).zone
    'Europe/Berlin'
    """
    if not isinstance(cast("object", text), str) or not text.strip():
        raise ConfigError(f"cron={text!r} is not a cron expression; {_ADVICE}")
    if len(text) > MAX_CHARS:
        raise ConfigError(f"cron: {len(text)} characters, the most is {MAX_CHARS}")
    if timezone is not None and not isinstance(cast("object", timezone), str):
        raise ConfigError(f'timezone={timezone!r} is not a name; write one such as "Europe/Berlin"')
    return _parse(text, timezone)


def cron_identity(text: str, timezone: str | None) -> str:
    """A cron by what it means, however its zone is given: what its state is kept under. Asks not if it can be read.

    >>> cron_identity("TZ=Europe/Berlin  0 9 * * MON", None)
    'Europe/Berlin 0 9 * * mon'
    """
    return " ".join(_split(text, timezone))


def _split(text: str, timezone: str | None) -> tuple[str, str]:
    """Zone and pattern."""
    text = text.strip()
    prefix = _PREFIX.match(text)
    zone, pattern = (prefix[1], text[prefix.end() :]) if prefix else (timezone, text)
    return "UTC" if zone is None else str(zone), " ".join(pattern.lower().split())


@lru_cache(maxsize=4096)
def _parse(text: str, timezone: str | None) -> Schedule:
    zone, pattern = _split(text, timezone)
    prefixed = _PREFIX.match(text.strip()) is not None
    if prefixed and timezone is not None:
        raise ConfigError(
            f"cron={text!r} names a time zone, and so does timezone={timezone!r}; write one of the two"
        )
    _check_zone(zone, f"cron={text!r}" if prefixed else f"timezone={zone!r}")
    _check_form(text, pattern)
    try:
        schedule = Schedule(pattern, zone)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        # croniter's own words, without the expression that they begin with.
        why = re.sub(r"^\[.*?\] ", "", str(error))
        raise ConfigError(f"cron={text!r} can't be read: {why}; {_ADVICE}") from error
    if schedule.next_ms(_RECENT_MS) is None:
        raise ConfigError(f"cron={text!r} never ticks: there is no such date; {_ADVICE}")
    return schedule


_RECENT_MS: Final = 1_767_225_600_000  # 2026


def _check_zone(zone: str, where: str) -> None:
    try:
        _zone(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f'{where}: there is no time zone {zone!r} here; write an IANA name such as "Europe/Berlin" '
            "(if that is one: install or update the package tzdata)"
        ) from error


def _check_form(text: str, pattern: str) -> None:
    if pattern.startswith("@"):
        if pattern not in NAMES:
            raise ConfigError(f"cron={text!r} is not one of {', '.join(NAMES)}; {_ADVICE}")
        return
    fields = pattern.split()
    if len(fields) != 5:
        raise ConfigError(f"cron={text!r} has {len(fields)} fields, not 5; {_ADVICE}")
    if _HASHED.search(pattern):
        raise ConfigError(f"cron={text!r}: H and R are not supported; for spread use jitter=")
