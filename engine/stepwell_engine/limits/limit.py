"""Limits that events give: the newest event's value is the limit of its key (limit.lua), for what is queued already too.

A limit is a number, or the text of an expression over `event`. `fl:<fn>` has for the latter `*<period> <last>`: the throttle's period in
microseconds ('' for concurrency), and what was allowed before the limit became an expression, for keys no event gave one since.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from stepwell_engine.limits.event_keys import EventKeys, Expression

Limit = int | Expression

MOST: Final = 1_000_000_000


def read_limit(option: str, config: Mapping[str, Any]) -> Limit:
    """The limit in an option's config. Raises ValueError, TypeError, KeyError."""
    limit = config["limit"]
    return Expression.read(option, limit) if isinstance(limit, str) else int(limit)


def limit_for(
    keys: EventKeys, limit: Limit, least: int, most: int = MOST
) -> int | Literal[False] | None:
    """The limit as an event gives it: False turns the option off, None (and a fault) is no usable value."""
    if isinstance(limit, int):
        return limit
    value = keys.value(limit)
    if value is None or value is False:
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        keys.fault(
            limit.option,
            f"limit={limit.text!r} is {value!r} here, no whole number from {least:,} to {most:,}",
        )
        return None
    return value


class Said(NamedTuple):
    """What `fl:<fn>` says of one limit. `fixed` is None where events give it: then `last` is what holds without one."""

    fixed: int | None
    last: int | None
    period_us: int


def read_said(text: str) -> Said:
    """Read a field of `fl:<fn>`; '' is no limit.

    >>> read_said("5"), read_said("*60000000 "), read_said("* 5")
    (Said(fixed=5, last=None, period_us=0), Said(fixed=None, last=None, period_us=60000000), Said(fixed=None, last=5, period_us=0))
    """
    if not text.startswith("*"):
        return Said(int(text or 0), None, 0)
    period, _, last = text[1:].partition(" ")
    return Said(None, int(last) if last else None, int(period or 0))
