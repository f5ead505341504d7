"""Idempotency: at most one run per key in 24 h (semantics §6; the incumbent's `idempotency`).

For a key K, an event at time x starts a run unless one that K started at y has x - y < 24 h, whatever became of it; then the event
is a duplicate of that run. A run that flow control refuses takes no key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from stepwell_engine.limits.event_keys import EventKeys, Key

OPTION = "idempotency"


@dataclass(frozen=True, slots=True)
class Idempotency:
    """`idempotency="event.data.order"`."""

    key: Key

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        key = config.get(OPTION)
        return None if key is None else cls(Key.read(OPTION, str(key), null=False))

    def admit(self, keys: EventKeys) -> str | None:
        """What admit.lua needs of it; None when it is off for this event."""
        return keys.identity(self.key)
