"""Timeouts: a run is cancelled when it has not begun within `start`, or not ended within `finish` of its beginning.

`start` counts from the run's creation, or from the moment its event's `ts` sets it for; it begins with its first lease. A run that
waits for a slot has not begun. Sleeps and waits count for `finish`. Both are items of `due` that go when the run ends
(limits/timeouts.lua).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

OPTION = "timeouts"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`Timeouts(start="10m", finish="2h")`; 0 = none.

    >>> Timeouts.read({"timeouts": {"start": None, "finish": 30_000}}).fields
    ('tb', '0', 'tf', '30000')
    """

    start_ms: int
    finish_ms: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found: Mapping[str, Any] = config.get(OPTION) or {}
        start, finish = (int(found.get(name) or 0) for name in ("start", "finish"))
        return cls(start, finish) if start or finish else None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a run that has them, flat."""
        return "tb", str(self.start_ms), "tf", str(self.finish_ms)
