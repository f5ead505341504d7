"""Batch: one run for many events of a key, in the order in which they were accepted.

A window opens with an event at time o and ends when it has `max_size` events, at o + timeout, or before the event that would make it
more than 10 MiB, whichever is first. Events for which `if` is not true run alone, at once (an `if` without a value is a fault too).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.limits.event_keys import EventKeys, Expression, Key

OPTION = "batch"
_WRITTEN: Final = "batch_events"  # as users know it
_TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Batch:
    """`Batch(max_size=100, timeout="30s", key="event.data.tenant", if_exp="event.data.bulk")`."""

    max_size: int
    timeout_ms: int
    key: Key
    if_exp: Expression | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        timeout = int(found.get("timeout") or _TIMEOUT_MS)
        key = Key.read(_WRITTEN, found.get("key"), null=True)
        text = found.get("if")
        if_exp = None if text is None else Expression.read(_WRITTEN, text)
        return cls(int(found["max_size"]), timeout, key, if_exp)

    def admit(self, keys: EventKeys) -> list[Any] | None:
        """What admit.lua needs of it; None when this event runs alone."""
        if self.if_exp is not None and keys.value(self.if_exp) is not True:
            return None
        identity = keys.identity(self.key)
        return None if identity is None else [identity, self.max_size, self.timeout_ms]
