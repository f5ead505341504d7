"""All of a function's flow control over one event: what the scripts are asked when its run is to be created.

Decided in limits/admit.lua, in the order idempotency → debounce | batch → rate limit → singleton → run. Its functions are plain
when they have none of this: their runs take the short way through fanout.lua.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from stepwell_engine import luapack
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


_NO_QUEUE: Final = Queue()


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
        options = (
            ("id", self.idempotency), ("db", self.debounce), ("bt", self.batch), ("rl", self.rate_limit), ("sg", self.singleton),
        )  # fmt: skip
        flow: dict[str, Any] = {
            name: wanted
            for name, option in options
            if option is not None and (wanted := option.admit(keys)) is not None
        }
        certain = not flow
        lock = flow.get("sg")
        queue = self.gates.queue(keys, lock) if self.gated else _NO_QUEUE
        if queue.limits:
            flow["lm"] = f"{asked.us} {queue.limits}"
        if self.priority and (ahead := self.priority.ahead_ms(keys)):
            flow["pr"] = ahead
        undo = "g" if lock or queue.run_level else ""
        fields: list[str | bytes] = []
        if self.timeouts:
            flow["to"] = self.timeouts.start_ms
            fields += self.timeouts.fields
            undo += "t"
        if self.cancels and (cancels := self.cancels.admit(keys, asked.fields, asked.us)):
            flow["cn"] = [(c.name, c.prefix, c.path) for c in cancels]
            for number, registration in enumerate(cancels):
                fields += (f"cn:{number}", registration.write())
            undo += f"c{len(cancels)}"
        if "cn" in flow or (lock and lock[1] == "cancel"):
            flow["us"] = asked.us
        if undo:
            fields += ("fx", undo)
            flow["f"] = fields
        if keys.faults:
            flow["wn"] = "\n".join(f"{f.option}: {f.text}" for f in keys.faults)[:_WARNINGS]
        if not flow:
            return Admission(queue.key)
        flow["ts"] = asked.ts
        if keep := self._keep_ms(flow):
            flow["us"] = asked.us
        if asked.invoked:
            flow["v"] = "1"
        if asked.quiet:
            flow["q"] = "1"
        return Admission(queue.key, luapack.write(flow), certain, tuple(keys.faults), keep)
