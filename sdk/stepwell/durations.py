"""Durations and points in time as users write them, read into whole milliseconds."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from stepwell.errors import DurationError

Duration: TypeAlias = int | str | timedelta
"""Milliseconds, a `timedelta`, or a string such as `"30s"`, `"1h30m"`, `"7d"`."""

Until: TypeAlias = datetime | str | int
"""An aware `datetime`, an ISO string with an offset, or milliseconds since 1970."""

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
MAX_SLEEP_MS: Final = 366 * DAY
"""The longest sleep, wait or timeout: 366 days."""
EVER: Final = 36_600 * DAY
"""Beyond every date that matters: the bound where a caller clips by itself."""

_UNITS: Final = {"w": WEEK, "d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": 1}
_TEXT: Final = re.compile("".join(rf"(?:([0-9]{{1,15}}){unit})?" for unit in _UNITS))
_FORMS: Final = '"30s", "5m", "1h30m", "7d", "2w", timedelta(minutes=5) or 30_000 (milliseconds)'
_TIMES: Final = 'datetime.now(UTC), "2030-01-31T09:00:00+01:00" or milliseconds since 1970'
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_FIRST_MS: Final = 315_532_800_000  # 1980-01-01: anything lower was meant as seconds
_LAST_MS: Final = 253_402_300_800_000  # 10000-01-01: the end of datetime


def parse_duration(
    value: Duration, *, argument: str, minimum: int = 0, maximum: int = MAX_SLEEP_MS
) -> int:
    """Milliseconds in `value`, at least `minimum` and at most `maximum` (366 days by default).

    A fraction of a millisecond counts as a whole one. Raises `DurationError` naming `argument` for
    floats, booleans, negatives, unknown units and durations out of bounds.

    >>> parse_duration("1h30m", argument="timeout")
    5400000
    """
    ms = _read(value, argument)
    if ms < 0:
        raise DurationError(f"{argument}: {value!r} is negative; write {_FORMS}")
    if ms < minimum:
        raise DurationError(
            f"{argument}: {value!r} is too short; the least is {format_duration(minimum)}"
        )
    if ms > maximum:
        raise DurationError(
            f"{argument}: {value!r} is too long; the most is {format_duration(maximum)}"
        )
    return ms


def _read(value: object, argument: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, timedelta):
        return -(-value // _MS)
    if isinstance(value, str):
        found = _TEXT.fullmatch(value)
        if found is None or not value:
            raise DurationError(_unreadable(value, argument))
        amounts = zip(found.groups(), _UNITS.values(), strict=True)
        return sum(int(amount) * unit for amount, unit in amounts if amount)
    kind = type(value).__name__
    hint = "whole milliseconds or a string" if isinstance(value, float) else "a duration"
    raise DurationError(f"{argument}: {value!r} is a {kind}, not {hint}; write {_FORMS}")


def _unreadable(value: str, argument: str) -> str:
    if value[:1] == "-" and _TEXT.fullmatch(value[1:]):
        return f"{argument}: {value!r} is negative; write {_FORMS}"
    units = "units are w d h m s ms, whole numbers, largest unit first, no spaces"
    return f"{argument}: {value!r} is not a duration; write {_FORMS} ({units})"


def format_duration(ms: int) -> str:
    """`ms` in the form `parse_duration` reads, without weeks.

    >>> format_duration(5_400_000)
    '1h30m'
    """
    text, rest = "", ms
    for unit, size in _UNITS.items():
        if unit != "w" and rest >= size:
            text += f"{rest // size}{unit}"
            rest %= size
    return text or "0s"


def parse_until(
    value: Until, *, argument: str, now_ms: int | None = None, maximum: int = MAX_SLEEP_MS
) -> int:
    """The moment `value` in milliseconds since 1970; one in the past is allowed.

    With `now_ms`, a moment more than `maximum` ms after it is refused. Raises `DurationError`
    naming `argument`, also for naive datetimes: which moment they mean depends on the machine.

    >>> parse_until("2030-01-31T09:00:00Z", argument="until")
    1896080400000
    """
    if isinstance(value, datetime):
        ms = _moment(value, value, argument)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise DurationError(
                f"{argument}: {value!r} is not an ISO 8601 time; write {_TIMES}"
            ) from None
        ms = _moment(moment, value, argument)
    elif type(value) is int:
        ms = _checked(value, argument)
    else:
        kind = type(value).__name__
        raise DurationError(
            f"{argument}: {value!r} is a {kind}, not a point in time; write {_TIMES}"
        )
    if now_ms is not None and ms - now_ms > maximum:
        limit = format_duration(maximum)
        raise DurationError(f"{argument}: {value!r} is too far away; the most is {limit} from now")
    return ms


def _moment(moment: datetime, value: object, argument: str) -> int:
    if moment.utcoffset() is None:
        raise DurationError(
            f"{argument}: {value!r} has no time zone, so its moment depends on the machine; "
            f"write {_TIMES}"
        )
    return -(-(moment - _EPOCH) // _MS)


def _checked(ms: int, argument: str) -> int:
    if ms < _FIRST_MS:
        raise DurationError(
            f"{argument}: {ms} is before 1980; points in time are milliseconds since 1970 "
            f"(not seconds, not a duration); write {_TIMES}"
        )
    if ms >= _LAST_MS:
        raise DurationError(f"{argument}: {ms} is after the year 9999; write {_TIMES}")
    return ms
