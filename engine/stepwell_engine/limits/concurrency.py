"""Concurrency: at no moment do more than `limit` items of a key hold a live lease.

A counting semaphore whose holders are named (Dijkstra, EWD 123): `cs:<id>` has the items, taken in the write that leases them and left
in the write that ends the lease, whoever ends it. So a slot is never without a lease, and has no expiry to get wrong. With `level="run"`
the holder is the run, from its first lease to its end. A key without a free slot is parked and costs nothing; each slot that comes free
lets one parked key go on (limits/gates.lua).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from stepwell_engine.expressions import short_hash
from stepwell_engine.limits.event_keys import EventKeys
from stepwell_engine.limits.limit import Limit, limit_for, read_limit

OPTION: Final = "concurrency"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """`Concurrency(limit=5, key="event.data.customer")`; limit 0 = none, a string: events give it."""

    limit: Limit
    key: str | None
    scope: str
    level: str
    weight: str | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Sequence[Self]:
        """The entries in a function's config, in their order."""
        found: Sequence[Mapping[str, Any]] = config.get(OPTION) or ()
        return [
            cls(
                read_limit(entry),
                entry.get("key"),
                str(entry.get("scope") or "fn"),
                str(entry.get("level") or "step"),
                entry.get("weight"),
            )
            for entry in found
        ]

    @property
    def kind(self) -> str:
        """The letter of its gate."""
        letter = "r" if self.level == "run" else "c"
        return letter.upper() if self.shared else letter

    @property
    def shared(self) -> bool:
        """Whether functions may have it together."""
        return self.scope != "fn"

    def limit_for(self, keys: EventKeys) -> int | Literal[False] | None:
        """The limit as an event gives it: False turns the entry off, None is no usable value."""
        return limit_for(keys, OPTION, self.limit, 0)

    def identity(self, place: int, keys: EventKeys) -> str | None:
        """The identity of its slots for this event; None when it is off (`false`)."""
        if not self.shared:
            return keys.identity(OPTION, self.key, null=True, place=place)
        # Shared by every function that writes the same text under the same scope.
        value = keys.encoded(OPTION, self.key, null=True)
        if value is None:
            return None
        return short_hash(
            f"{self.scope}\0{self.level}\0{self.key or ''}\0".encode() + value
        ).decode()
