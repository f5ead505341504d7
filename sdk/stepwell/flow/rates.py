"""How many runs may begin in a time: `Throttle` makes the others wait, `RateLimit` leaves them out."""

from dataclasses import dataclass, field
from typing import Any, Final

from stepwell.durations import DAY, Duration
from stepwell.flow import checks

MAX_THROTTLE_MS: Final = 7 * DAY
MAX_RATE_MS: Final = DAY
# Each run in the window is an entry on the server.
MAX_RATE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Throttle:
    """Runs start at a rate of `limit` a `period`, evenly spread; over it they wait.

    Any time span w sees at most `burst` + w / (period / limit) starts: `burst` is how many may start
    at once after a quiet time. `key`: a rate for each value of that CEL expression over `event`.
    `limit` may be one too: the newest event's value is its key's limit from then on, for what is
    queued as well; where it has no value the key's limit stays as it was. Only the start counts, not
    steps or retries. `period` is from 1 second to 7 days. Raises `ConfigError`.

    >>> Throttle(limit=100, period="1m", key="event.data.customer")
    >>> Throttle(limit="event.data.plan == 'pro' ? 100 : 5", period="1m", key="event.data.customer")
    """

    limit: int | str
    period: Duration
    burst: int | None = 1
    key: str | None = None
    period_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.limit(self.limit, "Throttle(limit=)", 1)
        period = checks.duration(self.period, "Throttle(period=)", MAX_THROTTLE_MS)
        object.__setattr__(self, "period_ms", period)
        if self.burst is None:  # the `inngest` package allows it
            object.__setattr__(self, "burst", 1)
        checks.whole(self.burst, "Throttle(burst=)", 1)
        checks.expression(self.key, "Throttle(key=)", "event.data.customer")

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {
            "limit": self.limit,
            "period": self.period_ms,
            "burst": self.burst,
            "key": self.key,
        }


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` runs in any sliding `period`; an event over it starts none.

    Such an event is recorded as rate limited, and `inngest/function.skipped` is sent. `key`: a limit
    for each value of that CEL expression over `event`. `limit` may be one too: each event is judged
    by its own value. For an event where one has no value, the limit is off. `period` is from 1 second
    to 24 hours. Raises `ConfigError`.

    >>> RateLimit(limit=1, period="4h", key="event.data.user")
    """

    limit: int | str
    period: Duration
    key: str | None = None
    period_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.limit(self.limit, "RateLimit(limit=)", 1, MAX_RATE)
        period = checks.duration(self.period, "RateLimit(period=)", MAX_RATE_MS)
        object.__setattr__(self, "period_ms", period)
        checks.expression(self.key, "RateLimit(key=)", "event.data.user")

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {"limit": self.limit, "period": self.period_ms, "key": self.key}
