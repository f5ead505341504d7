"""Batch: one run for many events of a key, in the order in which they were accepted.

A window opens with an event at time o and ends when it has `max_size` events, at o + timeout, or before the event that would make it
more than 10 MiB, whichever is first. Events for which `if` is not true run alone, at once (an `if` without a value is a fault too).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.limits.event_keys import EventKeys

OPTION = "batch"
_WRITTEN: Final = "batch_events"  # as users know it
_TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Batch:
    """`Batch(max_size=100, timeout="30s", key="event.data.tenant", if_exp="event.data.bulk")`."""

    max_size: int
    timeout_ms: int
    key: str | None
    if_exp: str | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        timeout = int(found.get("timeout") or _TIMEOUT_MS)
        return cls(int(found["max_size"]), timeout, found.get("key"), found.get("if"))

    def admit(self, keys: EventKeys) -> list[Any] | None:
        """What admit.lua needs of it; None when this event runs alone."""
        if self.if_exp is not None and keys.value(_WRITTEN, self.if_exp) is not True:
            return None
        identity = keys.identity(_WRITTEN, self.key, null=True)
        return None if identity is None else [identity, self.max_size, self.timeout_ms]
