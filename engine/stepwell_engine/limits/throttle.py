"""Throttle: runs of a key begin no faster than `limit` a `period`, with up to `burst` at once; the rest wait their turn.

The generic cell rate algorithm (GCRA, ITU-T I.371; https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): with T = period / limit and
tau = (burst - 1) * T, a start at time x conforms iff x >= TAT - tau, and then TAT = max(x, TAT) + T. So a window of length w has at most
burst + floor(w / T) starts. T is in whole microseconds, rounded up: never more than that. A token is taken by a run's first lease, by
none of its later ones. When an event gives its key another limit, what TAT is ahead of the time is stretched by T'/T: the starts taken
stay taken, so a window has at most burst + the sum of the times spent under each T, each divided by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

from stepwell_engine.limits.event_keys import EventKeys, Key
from stepwell_engine.limits.limit import Limit, limit_for, read_limit

OPTION: Final = "throttle"


@dataclass(frozen=True, slots=True)
class Throttle:
    """`Throttle(limit=10, period="1m", burst=2, key="event.data.user")`. `gate`, `weight`, `run_level` as of `Concurrency`."""

    gate: ClassVar = "t-"
    weight: ClassVar = None
    run_level: ClassVar = False

    limit: Limit
    period_ms: int
    burst: int
    key: Key

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        return cls(
            read_limit(OPTION, found),
            int(found["period"]),
            int(found.get("burst") or 1),
            Key.read(OPTION, found.get("key"), null=True),
        )

    @property
    def interval(self) -> int | str:
        """T, the time one start takes from the budget, in microseconds; of a limit that events give what limit.lua makes it of."""
        if isinstance(self.limit, int):
            return interval_us(self.period_ms * 1000, self.limit)
        return f"*{self.period_ms * 1000}"

    def limit_for(self, keys: EventKeys) -> int | Literal[False] | None:
        """The limit as an event gives it: False turns the throttle off, None is no usable value."""
        return limit_for(keys, self.limit, 1)


def interval_us(period_us: int, limit: int) -> int:
    """T in whole microseconds, rounded up.

    >>> interval_us(1_000_000, 3)
    333334
    """
    return -(-period_us // limit)
