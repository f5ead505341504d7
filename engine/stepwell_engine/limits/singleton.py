"""Singleton: at most one run of a key has begun and not ended.

The lock is taken as the run is created, so a queued run has it, and is released in the write that ends the run, whoever ends it.
Mode skip: while a run has the lock, events start nothing. Mode cancel: the newest event's run takes the lock and the older run is
cancelled in the same write; the new one waits for its end (a gate in its queue key, see keys.py). Newest is what was accepted last: a run
whose event is handled after a later one's is cancelled in the write that creates it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.limits.event_keys import EventKeys, Key

OPTION = "singleton"
GRACE_MS: Final = 10_000
"""What a running run has to end by itself once a newer one cancels it."""


@dataclass(frozen=True, slots=True)
class Singleton:
    """`Singleton(mode="skip", key="event.data.user")`."""

    mode: str
    key: Key

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] | None = config.get(OPTION)
        if found is None:
            return None
        return cls(str(found["mode"]), Key.read(OPTION, found.get("key"), null=False))

    def admit(self, keys: EventKeys) -> list[Any] | None:
        """What admit.lua needs of it; None when it is off for this event."""
        identity = keys.identity(self.key)
        return None if identity is None else [identity, self.mode, GRACE_MS]
