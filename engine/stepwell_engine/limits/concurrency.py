"""Concurrency: at no moment do more than `limit` items of a key hold a live lease.

A counting semaphore whose holders are named (Dijkstra, EWD 123): `cs:<id>` has the items, taken in the write that leases them and left
in the write that ends the lease, whoever ends it. So a slot is never without a lease, and has no expiry to get wrong. With `level="run"`
the holder is the run, from its first lease to its end. A key without a free slot is parked and costs nothing; each slot that comes free
lets one parked key go on (limits/gates.lua).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

from stepwell_engine.limits.event_keys import EventKeys, Expression, Key
from stepwell_engine.limits.limit import Limit, limit_for, read_limit

OPTION: Final = "concurrency"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """`Concurrency(limit=5, key="event.data.customer")`; limit 0 = none, an expression: events give it.

    `gate` is the kind and place of its gate (keys.py), `run_level` says that whole runs hold it.
    """

    limit: Limit
    key: Key
    weight: Expression | None
    gate: str
    run_level: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Sequence[Self]:
        """The entries in a function's config, in their order."""
        found: Sequence[Mapping[str, Any]] = config.get(OPTION) or ()
        return [cls._read(entry, place) for place, entry in enumerate(found)]

    @classmethod
    def _read(cls, entry: Mapping[str, Any], place: int) -> Self:
        text, weight = entry.get("key"), entry.get("weight")
        scope, level = str(entry.get("scope") or "fn"), str(entry.get("level") or "step")
        key = Key.read(OPTION, text, null=True, place=place)
        kind = "r" if level == "run" else "c"
        if scope != "fn":
            # Shared by every function that writes the same text under the same scope.
            subject = f"{scope}\0{level}\0{text or ''}\0".encode()
            key, kind = replace(key, subject=subject, shared=True), kind.upper()
        return cls(
            read_limit(OPTION, entry),
            key,
            None if weight is None else Expression.read(OPTION, weight),
            f"{kind}{place}",
            level == "run",
        )

    def limit_for(self, keys: EventKeys) -> int | Literal[False] | None:
        """The limit as an event gives it: False turns the entry off, None is no usable value."""
        return limit_for(keys, self.limit, 0)
