"""Throttle: runs of a key begin no faster than `limit` a `period`, with up to `burst` at once; the rest wait their turn.

The generic cell rate algorithm (GCRA, ITU-T I.371; https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): with T = period / limit and
tau = (burst - 1) * T, a start at time x conforms iff x >= TAT - tau, and then TAT = max(x, TAT) + T. So a window of length w has at most
burst + floor(w / T) starts. T is in whole microseconds, rounded up: never more than that. A token is taken by a run's first lease, by
none of its later ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.limits.event_keys import EventKeys

OPTION: Final = "throttle"


@dataclass(frozen=True, slots=True)
class Throttle:
    """`Throttle(limit=10, period="1m", burst=2, key="event.data.user")`."""

    limit: int
    period_ms: int
    burst: int
    key: str | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        return cls(
            int(found["limit"]),
            int(found["period"]),
            int(found.get("burst") or 1),
            found.get("key"),
        )

    @property
    def interval_us(self) -> int:
        """T: the time one start takes from the budget, in microseconds."""
        return -(-self.period_ms * 1000 // self.limit)

    def identity(self, keys: EventKeys) -> str | None:
        """The identity of its budget for this event; None when it is off (`false`)."""
        return keys.identity(OPTION, self.key, null=True)
