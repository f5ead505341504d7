"""Rate limit: at most `limit` runs of a key begin in any sliding `period`; what is over it is dropped, and recorded.

Exact sliding-window log: the starts of the last period are kept, one entry each. At time x a run begins iff fewer than `limit` began in
(x - period, x]. So no window [a, a + period) has more than `limit`, whereas GCRA with a burst, which the incumbent uses, admits up to
twice that across a boundary. Memory: `limit` entries a key. Cf. https://redis.io/glossary/rate-limiting/ (sliding window log).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from stepwell_engine.limits.event_keys import EventKeys

OPTION = "rate_limit"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`RateLimit(limit=10, period="1m", key="event.data.user")`."""

    limit: int
    period_ms: int
    key: str | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        return (
            cls(int(found["limit"]), int(found["period"]), found.get("key"))
            if found is not None
            else None
        )

    def admit(self, keys: EventKeys) -> list[Any] | None:
        """What admit.lua needs of it; None when it is off for this event."""
        identity = keys.identity(OPTION, self.key, null=False)
        return None if identity is None else [identity, self.limit, self.period_ms]
