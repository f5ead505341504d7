"""Rate limit: at most `limit` runs of a key begin in any sliding `period`; what is over it is dropped, and recorded.

Exact sliding-window log: the starts of the last period, and the last `limit` in any case, are kept, one entry each. At time x a run
begins iff fewer than `limit` began in (x - period, x]. So no window [a, a + period) has more than `limit`, whereas GCRA with a burst,
which the incumbent uses, admits up to twice that across a boundary. A limit that events give judges each event by its own value: with it,
its window has at most so many.
Memory: `limit` entries a key. Cf. https://redis.io/glossary/rate-limiting/ (sliding window log).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.limits.event_keys import EventKeys, Key
from stepwell_engine.limits.limit import Limit, limit_for, read_limit

OPTION = "rate_limit"
MOST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`RateLimit(limit=10, period="1m", key="event.data.user")`."""

    limit: Limit
    period_ms: int
    key: Key

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        key = Key.read(OPTION, found.get("key"), null=False)
        return cls(read_limit(OPTION, found), int(found["period"]), key)

    def admit(self, keys: EventKeys) -> list[Any] | None:
        """What admit.lua needs of it; None when it is off for this event."""
        identity = keys.identity(self.key)
        if identity is None:
            return None
        limit = limit_for(keys, self.limit, 1, MOST)
        return [identity, limit, self.period_ms] if limit else None
