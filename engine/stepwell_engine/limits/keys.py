"""Queue keys: which gates a run passes, evaluated once at its creation and written in its `k`.

A queue key is a list of gates joined by commas, each a kind, the place of its limit in the function's `fl:<fn>`, and an identity:

    c0<id>  concurrency of steps      r0<id>  concurrency of whole runs     (C, R: shared by functions, of scope env or account)
    t-<id>  throttle                  s-<id>  singleton in mode cancel: one run at a time
    w<n>    weight: turns for one turn of other keys

Runs with the same key wait in the same queue. Limits are not in it: they are looked up whenever a gate is, so a change holds at once.
Those that the event gave go beside it, as `<identity>=<limit>` joined by spaces (limit.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from stepwell_engine.limits.concurrency import Concurrency
from stepwell_engine.limits.event_keys import EventKeys, Expression
from stepwell_engine.limits.throttle import Throttle

_LEAST: Final = 0.01
_MOST: Final = 1000.0


class Queue(NamedTuple):
    """The queue key of a run, '' when it passes no gate, and the limits that its event gives.

    `run_level`: it passes a concurrency gate that whole runs hold.
    """

    key: str = ""
    limits: str = ""
    run_level: bool = False


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of one function's config, read once."""

    options: Sequence[Concurrency | Throttle]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Raises ValueError, TypeError, KeyError for unreadable ones."""
        throttle = Throttle.read(config)
        return cls([*Concurrency.read(config), *([throttle] if throttle else ())])

    def queue(self, keys: EventKeys, lock: list[Any] | None = None) -> Queue:
        """The queue of a run of one event.

        `lock` is what its singleton asks for (`Singleton.admit`). Keys and limits without a value are noted in `keys`.
        """
        gates: list[str] = []
        limits: list[str] = []
        weight = ""
        run_level = False
        for option in self.options:
            # With limit 0 too, or a limit that a deploy gives could not reach this run.
            identity = keys.identity(option.key)
            if identity is None or not _bounded(option, identity, keys, limits):
                continue
            gates.append(option.gate + identity)
            if option.run_level:
                run_level = True
            if option.weight is not None:
                weight = _weight(option.weight, keys)
        if lock is not None and lock[1] == "cancel":
            gates.append(f"s-{lock[0]}")
        if gates and weight:
            gates.append(weight)
        return Queue(",".join(gates), " ".join(limits), run_level)


def _bounded(
    option: Concurrency | Throttle, identity: str, keys: EventKeys, limits: list[str]
) -> bool:
    """Whether the option is on for the event, as its limit has it; a limit that the event gives is noted."""
    if isinstance(option.limit, int):
        return True
    limit = option.limit_for(keys)
    if limit is False:
        return False
    if limit is not None:
        limits.append(f"{identity}={limit}")
    return True


def _weight(expression: Expression, keys: EventKeys) -> str:
    value = keys.value(expression)
    if value is None or value is False:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        text = f"weight={expression.text!r} is {value!r} here, no number above 0"
        keys.fault(expression.option, text)
        return ""
    clipped = min(max(float(value), _LEAST), _MOST)
    return "" if clipped == 1 else f"w{clipped:g}"
