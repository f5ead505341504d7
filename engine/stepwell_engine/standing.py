"""A standing fan-out: it waits in the server right behind the question for new events, and creates the runs of simple ones as they come.

To wake the coordinator and hear what it decides would be a round trip more, in an idle system a third of the way from `send` to the
function's first line. It is an advance, not a promise: what arrive.lua leaves is handled as ever, and so is all that comes while the
coordinator is at work.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from stepwell.clock import SystemClock
from stepwell.ids import function_cause
from stepwell_engine.fanout import GROUP
from stepwell_engine.loop import boot_seconds
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.node import Node
from stepwell_engine.store.shapes import Arg
from stepwell_engine.store.store import Store
from stepwell_engine.triggers import INTERNAL

# Few: the server does nothing else meanwhile, and of many each waits for all.
MOST: Final = 4
# They are sent with each question; of more, and of wildcards, events are left to the coordinator.
_FUNCTIONS: Final = 50
_DEADLINE: Final = 5.0  # seconds
_PAUSE: Final = 60.0

logger = logging.getLogger("stepwell.coordinator")


class Arrived(NamedTuple):
    """Which entries were handled, and how many runs began of which function number."""

    entries: set[bytes]
    runs: dict[str, int]

    @classmethod
    def read(cls, reply: Any) -> "Arrived":
        """The reply of arrive.lua; none is as good as an empty one."""
        if not reply:
            return cls(set(), {})
        entries, counts = reply
        pairs = zip(counts[::2], counts[1::2], strict=True)
        return cls(set(entries), {number.decode(): int(count) for number, count in pairs})


class StandingFanout:
    """What may stand behind a coordinator's question, and the count of what came of it."""

    __slots__ = (
        "_failed",
        "_known",
        "_metrics",
        "_names",
        "_paused",
        "_registry",
        "_shard",
        "node",
    )

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        # With several shards somebody may wait for the event on another one. Under a moved clock the runs would be of long ago.
        fit = len(store.shards) == 1 and isinstance(store.clock, SystemClock)
        self.node: Node | None = store.server.only if fit else None
        self._shard = store.shards[0]
        self._registry = registry
        self._metrics = metrics
        self._known: bytes | None = None  # the registry's version that the names are of
        self._names: list[Arg] = []
        self._failed = 1  # times in a row, the first being that the server has never heard of it
        self._paused = 0.0

    async def command(self, consumer: str, after: bytes) -> list[Arg] | None:
        """The command for what is delivered to that consumer after that entry; None when there is none. Raises ServerError."""
        version = self._registry.version
        if self.node is None or version is None or boot_seconds() < self._paused:
            return None
        if version != self._known:
            self._names, self._known = list(self._plain()), version
        if not self._names:
            return None
        if self._failed:
            # So the server has it, also after FUNCTION FLUSH. Of no version it does nothing, which a full server lets it, too.
            await self._shard.arrive(GROUP, consumer, after, MOST, b"", (), deadline=_DEADLINE)
        script, argv = self._shard.arrive_command(
            GROUP, consumer, after, MOST, version, self._names
        )
        return [*self.node.scripts.calling(script), *argv]

    def arrived(self, reply: Any) -> set[bytes]:
        """Count what was done; the entries that are handled."""
        if reply is None:
            self._fail()
            return set()
        self._failed = 0
        done = Arrived.read(reply)
        if done.entries:
            self._metrics.events_accepted.inc(len(done.entries))
        for number, count in done.runs.items():
            self._metrics.runs_started.labels(*self._registry.names(number)).inc(count)
        return done.entries

    def _fail(self) -> None:
        self._failed += 1
        if self._failed > 1:
            logger.info(
                "the server could not fan out events by itself (an ACL, no memory): for %g s they are left to the coordinator",
                _PAUSE,
            )
            self._paused = boot_seconds() + _PAUSE

    def _plain(self) -> Iterator[Arg]:
        """What arrive.lua takes: each name whose events start the same functions whatever they hold, with those."""
        registry = self._registry
        names = {name for function in registry.all() for name, _ in function.triggers}
        left = _FUNCTIONS
        for name in sorted(names):
            wanted = registry.route(name)
            functions = wanted.always
            if name.startswith(INTERNAL) or name in registry.lookback or wanted.home != 0:
                continue
            if len(functions) > left:
                continue
            left -= len(functions)
            yield from (name, len(functions))
            for each in functions:
                yield from (each.number, each.app, function_cause(each.app, each.fn))
