"""Queue keys: which gates a run passes, evaluated once at its creation and written in its `k`.

A queue key is a list of gates joined by commas, each a kind, the place of its limit in the function's `fl:<fn>`, and an identity:

    c0<id>  concurrency of steps      r0<id>  concurrency of whole runs     (C, R: shared by functions, of scope env or account)
    t-<id>  throttle                  s-<id>  singleton in mode cancel: one run at a time
    w<n>    weight: turns for one turn of other keys

Runs with the same key wait in the same queue. Limits are not in it: they are looked up whenever a gate is, so a change holds at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.limits.concurrency import OPTION, Concurrency
from stepwell_engine.limits.event_keys import EventKeys
from stepwell_engine.limits.throttle import Throttle

_LEAST: Final = 0.01
_MOST: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of one function's config, read once."""

    entries: Sequence[Concurrency]
    throttle: Throttle | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Raises ValueError, TypeError, KeyError for unreadable ones."""
        return cls(Concurrency.read(config), Throttle.read(config))

    def queue_key(self, keys: EventKeys, lock: list[Any] | None = None) -> str:
        """The queue key of a run of one event; '' when it passes no gate.

        `lock` is what its singleton asks for (`Singleton.admit`). Keys without a value are noted in `keys`.
        """
        gates: list[str] = []
        weight = ""
        for place, entry in enumerate(self.entries):
            if not entry.limit:
                continue
            identity = entry.identity(place, keys)
            if identity is not None:
                gates.append(f"{entry.kind}{place}{identity}")
                if entry.weight is not None:
                    weight = _weight(entry.weight, keys)
        identity = self.throttle.identity(keys) if self.throttle else None
        if identity is not None:
            gates.append(f"t-{identity}")
        if lock is not None and lock[1] == "cancel":
            gates.append(f"s-{lock[0]}")
        if gates and weight:
            gates.append(weight)
        return ",".join(gates)


def _weight(expression: str, keys: EventKeys) -> str:
    value = keys.value(OPTION, expression)
    if value is None or value is False:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        keys.fault(OPTION, f"weight={expression!r} is {value!r} here, no number above 0")
        return ""
    clipped = min(max(float(value), _LEAST), _MOST)
    return "" if clipped == 1 else f"w{clipped:g}"
