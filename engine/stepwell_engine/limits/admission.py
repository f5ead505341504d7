"""All of a function's flow control over one event: what the scripts are asked when its run is to be created.

Decided in limits/admit.lua, in the order idempotency → debounce | batch → rate limit → singleton → run. Its functions are plain
when they have none of this: their runs take the short way through fanout.lua.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

import msgpack

from stepwell.errors import ExpressionError
from stepwell_engine.expressions import compile  # noqa: A004
from stepwell_engine.limits.batch import Batch
from stepwell_engine.limits.cancel import Cancels
from stepwell_engine.limits.debounce import Debounce
from stepwell_engine.limits.event_keys import EventKeys, Fields, KeyFault
from stepwell_engine.limits.idempotency import Idempotency
from stepwell_engine.limits.keys import Gates, Queue
from stepwell_engine.limits.priority import Priority
from stepwell_engine.limits.rate_limit import RateLimit
from stepwell_engine.limits.singleton import Singleton
from stepwell_engine.limits.timeouts import Timeouts

if TYPE_CHECKING:
    from stepwell_engine.triggers import RegisteredFunction

_LONGEST_MS: Final = 604_800_000  # as in limits/window.lua
_WARNINGS: Final = 500  # characters of warnings that a run keeps
_KEYED: Final = ("throttle", "rate_limit", "debounce", "batch", "singleton")
_RUN_LEVEL: Final = frozenset("rRs")
"""Gates held for the whole run."""

_packb = cast("Callable[..., bytes]", cast("Any", msgpack).packb)


class Asked(NamedTuple):
    """An event as flow control sees it. `invoked`: something waits for just this run; `quiet`: nobody is told of a skip.

    `us`: when it was accepted.
    """

    fields: Callable[[], Fields]
    ts: int
    now_ms: int
    invoked: bool = False
    quiet: bool = False
    us: int = 0


class Admission(NamedTuple):
    """What to ask for a run: its queue key, and admit.lua's map, packed (empty: create it).

    `certain`: the run begins whatever the script finds.
    """

    key: str = ""
    flow: bytes = b""
    certain: bool = True
    faults: tuple[KeyFault, ...] = ()
    keep_ms: int = 0
    """how much later than at once its outcome may be decided, when a window takes the event"""


def _compile_keys(config: Mapping[str, Any]) -> None:
    """The first expression of a process takes some tenths of a second, for the grammar: not in the way of an event."""
    options: list[Any] = [config.get(name) for name in _KEYED]
    entries = [*options, *(config.get("concurrency") or ())]
    texts = [config.get("idempotency"), config.get("priority")]
    texts += [entry.get(name) for entry in entries if entry for name in ("limit", "key", "weight")]
    for text in texts:
        if isinstance(text, str):
            # One that is bad says so with each event.
            with suppress(ExpressionError):
                compile(text, variables=("event",))


@dataclass(frozen=True, slots=True)
class Flow:
    """The flow control of one function that has any.

    >>> Flow.read({"rate_limit": {"limit": 5, "period": 60_000, "key": None}}).rate_limit.limit
    5
    """

    idempotency: Idempotency | None
    debounce: Debounce | None
    batch: Batch | None
    rate_limit: RateLimit | None
    singleton: Singleton | None
    priority: Priority | None
    cancels: Cancels | None
    timeouts: Timeouts | None
    gates: Gates
    gated: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The options in a function's config; None when it has none. Raises ValueError, TypeError, KeyError for unreadable ones."""
        _compile_keys(config)
        singleton = Singleton.read(config)
        gated = bool(config.get("concurrency") or config.get("throttle"))
        flow = cls(
            idempotency=Idempotency.read(config),
            debounce=Debounce.read(config),
            batch=Batch.read(config),
            rate_limit=RateLimit.read(config),
            singleton=singleton,
            priority=Priority.read(config),
            cancels=Cancels.read(config),
            timeouts=Timeouts.read(config),
            gates=Gates.read(config),
            gated=gated or (singleton is not None and singleton.mode == "cancel"),
        )
        return flow if flow.gated or flow._used() else None

    def _used(self) -> bool:
        options = self.idempotency, self.debounce, self.batch, self.rate_limit, self.singleton
        more = self.priority, self.cancels, self.timeouts
        return any(option is not None for option in (*options, *more))

    def _keep_ms(self, flow: Mapping[str, Any]) -> int:
        if "db" in flow and self.debounce:
            return min(self.debounce.timeout_ms or self.debounce.period_ms, _LONGEST_MS)
        return self.batch.timeout_ms if "bt" in flow and self.batch else 0

    def admission(self, function: "RegisteredFunction", asked: Asked) -> Admission:
        """What to ask for this function's run of an event."""
        keys = EventKeys(function.number, asked.fields, asked.now_ms)
        wanted: dict[str, Any] = {
            "id": self.idempotency and self.idempotency.admit(keys),
            "db": self.debounce and self.debounce.admit(keys),
            "bt": self.batch and self.batch.admit(keys),
            "rl": self.rate_limit and self.rate_limit.admit(keys),
            "sg": self.singleton and self.singleton.admit(keys),
        }
        flow: dict[str, Any] = {name: value for name, value in wanted.items() if value}
        certain = not flow
        queue = self.gates.queue(keys, wanted["sg"]) if self.gated else Queue("")
        if queue.limits:
            flow["lm"] = f"{asked.us} {queue.limits}"
        if ahead := self.priority.ahead_ms(keys) if self.priority else 0:
            flow["pr"] = ahead
        undo = ""
        if "sg" in flow or any(gate[0] in _RUN_LEVEL for gate in queue.key.split(",") if gate):
            undo = "g"
        if self.timeouts:
            flow["to"] = self.timeouts.admit()
            undo += "t"
        if self.cancels and (cancels := self.cancels.admit(keys, asked.fields)):
            flow["cn"] = cancels
            undo += "c"
        if "cn" in flow or (wanted["sg"] and wanted["sg"][1] == "cancel"):
            flow["us"] = asked.us
        if undo:
            flow["fx"] = undo
        if keys.faults:
            flow["wn"] = "\n".join(f"{f.option}: {f.text}" for f in keys.faults)[:_WARNINGS]
        if not flow:
            return Admission(queue.key)
        flow["ts"] = asked.ts
        if keep := self._keep_ms(flow):
            flow["us"] = asked.us
        flow |= {name: "1" for name, on in (("v", asked.invoked), ("q", asked.quiet)) if on}
        # Lua's cmsgpack knows no type for bytes.
        packed = _packb(flow, use_bin_type=False)
        return Admission(queue.key, packed, certain, tuple(keys.faults), keep)
