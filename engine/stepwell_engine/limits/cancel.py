"""Cancel: events that end a run, found by value.

Each entry is registered as its run is created, bound to the run's event: in the index of waits, under the value that its first equality
asks for, so an event finds the runs it may cancel without looking at others (limits/cancel.lua). An entry that can't match for this run (an
equality with a missing field) is left out. An event counts when it was accepted after the run's own, and within `timeout` of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from stepwell.serde.values import pack, unpack
from stepwell_engine import luapack
from stepwell_engine.expressions import index_key
from stepwell_engine.expressions.program import VARIABLES
from stepwell_engine.expressions.values import FaultError
from stepwell_engine.limits.event_keys import EventKeys, Expression, Fields
from stepwell_engine.views import cancelled_error

OPTION = "cancel"
PATH_MARK: Final = "~"
"""Before a path in the index of waits: registrations and waits are looked up apart, and registrations first."""
STEP_MARK: Final = "!"
GRACE_MS: Final = 10_000
"""What a running run has to end by itself once an event cancels it."""

MAX_SPAN_MS: Final = 604_800_000

_ANY_VALUE: Final = "0" * 16


@dataclass(frozen=True, slots=True)
class CancelOn:
    """One `Cancel(event, if_exp= | match=, timeout=)`; `timeout_ms` 0 = none."""

    event: str
    expression: Expression | None
    timeout_ms: int

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """An entry of the option in a function's config."""
        match = entry.get("match")
        text = entry.get("if") if match is None else f"event.{match} == async.{match}"
        return cls(
            str(entry["event"]),
            None if text is None else Expression.read(OPTION, str(text), variables=VARIABLES),
            int(entry.get("timeout") or 0),
        )

    def bind(self, keys: EventKeys, fields: Callable[[], Fields], us: int) -> "Registration | None":
        """What limits/cancel.lua registers for a run of this event, accepted at `us`; None if nothing can match."""
        if self.expression is None:
            return self._registration(us, "", _ANY_VALUE, {})
        program = self.expression.program
        if program is None:
            keys.fault(OPTION, self.expression.error)
            return None
        bound = program.bind(fields())
        if bound is None:
            return None
        path, key = "", _ANY_VALUE
        if bound:
            path, value = bound[0]
            try:
                key = (index_key(value) or b"").decode()
            except FaultError:
                return None
        # What the index has answered need not be kept, nor asked again.
        details: dict[str, Any] = {}
        if len(bound) > 1:
            details["values"] = [[where, value] for where, value in bound[1:]]
        if program.residual:
            details |= {"residual": True, "expression": self.expression.text}
        return self._registration(us, path, key, details)

    def _registration(
        self, us: int, path: str, key: str, details: Mapping[str, Any]
    ) -> "Registration":
        since = us + 1
        until = since + self.timeout_ms * 1000 if self.timeout_ms else 0
        prefix = f"{PATH_MARK}{path}\0{key}".encode()
        return Registration(since, until, self.event, prefix, PATH_MARK + path, details)


@dataclass(frozen=True, slots=True)
class Cancels:
    """The `cancel=[...]` of a function. `span_ms`: how long after its event a run may still come to be (a debounce)."""

    entries: tuple[CancelOn, ...]
    span_ms: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        found = config.get(OPTION)
        if not found:
            return None
        debounce: Mapping[str, Any] = config.get("debounce") or {}
        # Without a timeout events that are older by their own time can put its end off for as long as they come.
        span = debounce.get("timeout") or MAX_SPAN_MS if debounce else 0
        return cls(tuple(CancelOn.read(entry) for entry in found), int(span))

    @property
    def names(self) -> frozenset[str]:
        """The events' names."""
        return frozenset(entry.event for entry in self.entries)

    def admit(self, keys: EventKeys, fields: Callable[[], Fields], us: int) -> "list[Registration]":
        """What admit.lua needs of it: the registrations of a run of this event, accepted at `us`."""
        bound = (each.bind(keys, fields, us) for each in self.entries)
        return [registration for registration in bound if registration is not None]


class Registration(NamedTuple):
    """A run's field `cn:<i>`. Microseconds; `until` 0 = as long as the run lives. `details` as of a wait.

    `path` and `prefix` are its place in the index, which alone tells of its first equality.
    """

    since: int
    until: int
    name: str
    prefix: bytes
    path: str
    details: Mapping[str, Any]

    @classmethod
    def read(cls, record: bytes) -> Self:
        """Raises ValueError, TypeError for what is none."""
        since, until, name, prefix, path, details = luapack.read(record)
        found: Mapping[str, Any] = unpack(details) if details else {}
        return cls(int(since), int(until), name.decode(), prefix, path.decode(), found)

    def write(self) -> bytes:
        """What `read` reads."""
        details = pack(self.details) if self.details else b""
        return luapack.write((*self[:5], details))

    def covers(self, name: str, us: int, skew_us: int = 0) -> bool:
        """Whether an event of that name and accept time counts."""
        if us == self.since - 1:
            return False  # sent in one call with the run's own event, whatever the clocks
        in_time = not self.until or us <= self.until
        return self.name == name and us + skew_us >= self.since and in_time


def reason(name: str, event_id: str) -> bytes:
    """The `er` of a run that an event cancelled."""
    message = f"cancelled by event {name!r} ({event_id})"
    return pack(cancelled_error(message, "event"))
