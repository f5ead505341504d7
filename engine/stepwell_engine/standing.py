"""A standing fan-out: it waits in the server right behind the question for new events, and creates the runs of simple ones as they come.

To wake the coordinator and hear what it decides would be a round trip more, in an idle system a third of the way from `send` to the
function's first line. It is an advance, not a promise: what arrive.lua leaves is handled as ever, and so is all that comes while the
coordinator is at work.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from stepwell.clock import SystemClock
from stepwell.errors import ServerAuthError
from stepwell.ids import function_cause
from stepwell_engine.fanout import GROUP
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.node import Node
from stepwell_engine.store.shapes import Arg
from stepwell_engine.store.store import Store
from stepwell_engine.triggers import INTERNAL

# Few: the server does nothing else meanwhile, and of many each waits for all.
MOST: Final = 4
# They are sent with each question; with more, or wildcards alone, all is left to the coordinator.
_FUNCTIONS: Final = 50
_DEADLINE: Final = 5.0  # seconds

logger = logging.getLogger("stepwell.coordinator")


class Arrived(NamedTuple):
    """Which entries were handled, and how many runs began of which function number."""

    entries: set[bytes]
    runs: dict[str, int]

    @classmethod
    def read(cls, reply: Any) -> "Arrived":
        """The reply of arrive.lua; none is as good as one that says nothing."""
        if reply is None:
            return cls(set(), {})
        entries, counts = reply
        pairs = zip(counts[::2], counts[1::2], strict=True)
        return cls(set(entries), {number.decode(): int(count) for number, count in pairs})


class StandingFanout:
    """What may stand behind a coordinator's question, and the count of what came of it."""

    __slots__ = ("_known", "_loaded", "_metrics", "_names", "_registry", "_shard", "node")

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        # With several shards somebody may wait for the event on another one. Under a moved clock the runs would be of long ago.
        fit = len(store.shards) == 1 and isinstance(store.clock, SystemClock)
        self.node: Node | None = store.server.only if fit else None
        self._shard = store.shards[0]
        self._registry = registry
        self._metrics = metrics
        self._known: bytes | None = None  # the registry's version that the names are of
        self._names: list[Arg] = []
        self._loaded = False

    async def command(self, consumer: str, after: bytes) -> list[Arg] | None:
        """The command for what is delivered to that consumer after that entry; None when there is none. Raises ServerError."""
        version = self._registry.version
        if self.node is None or version is None:
            return None
        if version != self._known:
            self._names, self._known = list(self._plain()), version
        if not self._names:
            return None
        what = GROUP, consumer, after, MOST, version, self._names
        if not self._loaded:
            # Then the server has it, also after FUNCTION FLUSH. Here it finds nothing.
            try:
                self.arrived(await self._shard.arrive(*what, deadline=_DEADLINE))
            except (ResponseError, ServerAuthError) as error:
                # An ACL, say. What is no more than an advance must not keep events from being read.
                logger.warning("the server may not fan out events by itself: %s", error)
                self.node = None
                return None
        script, argv = self._shard.arrive_command(*what)
        return [*self.node.scripts.calling(script), *argv]

    def arrived(self, reply: Any) -> set[bytes]:
        """Count what was done; the entries that are handled."""
        self._loaded = reply is not None
        done = Arrived.read(reply)
        if done.entries:
            self._metrics.events_accepted.inc(len(done.entries))
        for number, count in done.runs.items():
            function = self._registry.numbered(number)
            app, fn = (function.app, function.fn) if function else ("", "")
            self._metrics.runs_started.labels(app, fn).inc(count)
        return done.entries

    def _plain(self) -> Iterator[Arg]:
        """What arrive.lua takes: each name whose events start the same functions whatever they hold, with those."""
        registry = self._registry
        names = {name for function in registry.all() for name, _ in function.triggers}
        left = _FUNCTIONS
        for name in sorted(names):
            route = registry.route(name)
            if name.startswith(INTERNAL) or name in registry.lookback or route.home != 0:
                continue
            left -= len(route.always)
            if left < 0:
                return
            yield name
            yield len(route.always)
            for function in route.always:
                yield from (
                    function.number,
                    function.app,
                    function_cause(function.app, function.fn),
                )
