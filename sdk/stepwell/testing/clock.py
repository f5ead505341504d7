"""Time in tests: knows when an engine is at rest, and hops from one due moment to the next.

At rest: no event or message waits, nothing is queued for a living worker nor held by one, nothing is due.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepwell.clock import VirtualClock
from stepwell.durations import format_duration
from stepwell.errors import StepwellError
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.store.store import Store

_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.01

# One look at a shard is one script, so that what moves inside it can't be missed between two reads. Ids of
# the streams' last entries are in it too: what moves between shards leaves a trace there.
_LOOK: Final = """
local queued = 0
for i = 5, #KEYS do queued = queued + redis.call('ZCARD', KEYS[i]) end
local ids = {}
local waiting = 0
for i = 1, 2 do
  waiting = waiting + redis.call('XLEN', KEYS[i])
  local info = redis.call('EXISTS', KEYS[i]) == 1 and redis.call('XINFO', 'STREAM', KEYS[i]) or {}
  for j = 1, #info, 2 do
    if info[j] == 'last-generated-id' then ids[i] = info[j + 1] end
  end
end
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or ''
local leases = redis.call('ZRANGE', KEYS[4], 0, 99, 'WITHSCORES')
return {waiting, queued, due, ids[1] or '', ids[2] or '', redis.call('ZCARD', KEYS[3]), leases}
"""


class EngineError(StepwellError):
    """The test engine can't do what was asked: the message says what holds it up."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found on one shard: entries in streams, items in queues, the next due moment, leases."""

    waiting: int
    queued: int
    due: float | None
    traces: tuple[Any, ...]
    leases: tuple[tuple[str, float], ...]


class Timeline:
    """The virtual clock of one engine and the processes that live by it.

    `coordinators` and `workers` are the engine's own lists: who is in them is alive.
    """

    def __init__(
        self,
        store: Store,
        clock: VirtualClock,
        lanes: Sequence[str],
        coordinators: Sequence[Coordinator],
        workers: Sequence[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._lanes = sorted(set(lanes))
        self._coordinators = coordinators
        self._workers = workers

    async def settle(self, patience: float) -> list[Look]:
        """Wait until the engine is at rest; what was found then.

        Raises `EngineError` after `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        pause = _FIRST_PAUSE
        before: list[Look] | None = None
        while True:
            looks = await self._look()
            if not await self._at_rest(looks):
                before = None
                if loop.time() > end:
                    raise EngineError(await self._busy(looks, patience))
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            elif looks == before:
                # Twice the same: nothing slipped from a shard not yet read to one read already.
                return looks
            else:
                before = looks

    async def advance(self, ms: int, patience: float) -> None:
        """Move the clock by `ms`, stopping at each due moment until the engine is at rest again."""
        target = self._clock.now_ms() + ms
        while True:
            looks = await self.settle(patience)
            moments = [look.due for look in looks if look.due is not None]
            # Whoever holds these leases is dead, or the engine would not be at rest.
            moments += [expiry for look in looks for _, expiry in look.leases]
            following = min(moments, default=target)
            # Of a moment the whole millisecond must have passed.
            self._move_to(min(int(following) + 1, target))
            if following >= target:
                await self.settle(patience)
                return

    def _move_to(self, moment_ms: int) -> None:
        self._clock.offset_ms += max(0, moment_ms - self._clock.now_ms())
        for coordinator in self._coordinators:
            coordinator.poke()

    async def _look(self) -> list[Look]:
        return list(
            await asyncio.gather(*(self._look_at(s) for s in range(len(self._store.shards))))
        )

    async def _look_at(self, shard: int) -> Look:
        keys = self._store.keys(shard)
        names = [keys.events, keys.outbox, keys.build("due"), keys.build("leases")]
        for lane in self._lanes:
            names += (keys.build("ready_fns", lane), keys.build("suspects", lane))
        reply: list[Any] = await self._store.server.call(
            keys.root, "EVAL", _LOOK, len(names), *names
        )
        waiting, queued, due, *traces, leases = reply
        held = zip(leases[::2], leases[1::2], strict=True)
        return Look(
            int(waiting),
            int(queued),
            float(due) if due else None,
            tuple(traces),
            tuple((item.decode(), float(expiry)) for item, expiry in held),
        )

    async def _at_rest(self, looks: Sequence[Look]) -> bool:
        now = self._clock.now_ms()
        for look in looks:
            moments = [expiry for _, expiry in look.leases]
            if look.due is not None:
                moments.append(look.due)
            # What is queued while there is no worker stays there.
            busy = look.waiting or (look.queued and self._workers)
            if busy or any(moment <= now for moment in moments):
                return False
        holders = [await self._holder(item) for look in looks for item, _ in look.leases]
        return not any(holder in self._workers for holder in holders)

    async def _holder(self, item: str) -> str:
        run_id, _, step = item.partition(":")
        key = self._store.of_run(run_id).keys.run(run_id)
        field = f"w:{step}" if step else "w"
        holder: bytes | None = await self._store.server.call(key, "HGET", key, field)
        return holder.decode() if holder else ""

    async def _busy(self, looks: Sequence[Look], patience: float) -> str:
        parts = [f"the engine is not at rest after {format_duration(int(patience * 1000))}:"]
        for shard, look in enumerate(looks):
            held = ", ".join([f"{item} by {await self._holder(item)}" for item, _ in look.leases])
            parts.append(
                f"shard {shard}: {look.waiting} stream entries, {look.queued} functions with queued items, "
                f"leased: {held or 'nothing'}, next due: {look.due};"
            )
        parts.append("a step that waits in real time holds it up, as does a stopped coordinator")
        return " ".join(parts)
