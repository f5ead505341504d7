"""Debounce: one run for a burst of events, once none has come for `period`.

The window of a key opens with an event at time o and ends at min(x + period, o + timeout), x being the latest event's arrival. Its run has
the event with the greatest `ts` (of equal ones the one accepted last); an older one that arrives late takes no place but puts the end off,
since something did happen. With `collect` the run has all events, by `ts`; such a window also ends when it is full (10,000 events, 10 MiB).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from stepwell_engine.limits.event_keys import EventKeys, Key

OPTION = "debounce"


@dataclass(frozen=True, slots=True)
class Debounce:
    """`Debounce(period="5m", key="event.data.user", timeout="1h")`. `timeout_ms` 0 = none."""

    period_ms: int
    key: Key
    timeout_ms: int
    collect: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        key = Key.read(OPTION, found.get("key"), null=False)
        timeout = found.get("timeout") or 0
        return cls(int(found["period"]), key, int(timeout), bool(found.get("collect")))

    def admit(self, keys: EventKeys) -> list[Any] | None:
        """What admit.lua needs of it; None when it is off for this event."""
        identity = keys.identity(self.key)
        if identity is None:
            return None
        return [identity, self.period_ms, self.timeout_ms, self.collect]
