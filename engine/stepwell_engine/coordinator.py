"""The coordinator: reads the streams, fans out, keeps time, recovers and sweeps. Stateless; any number may run."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from redis.exceptions import ResponseError

from stepwell.durations import Duration, parse_duration
from stepwell.errors import ConfigError
from stepwell_engine.cron_run import Crons, registers
from stepwell_engine.deliver import Delivery
from stepwell_engine.entries import Batch
from stepwell_engine.fanout import Fanout
from stepwell_engine.gauges import Gauges
from stepwell_engine.loop import TROUBLE, Backoff, Loop, boot_seconds
from stepwell_engine.matching import Matcher
from stepwell_engine.metrics import Metrics
from stepwell_engine.reader import Read, Reader
from stepwell_engine.recovery import Recovery
from stepwell_engine.registry import Registry
from stepwell_engine.retention import MIN_RETENTION_MS, SWEEP_BOUND, Retention
from stepwell_engine.standing import StandingFanout
from stepwell_engine.store.store import Store
from stepwell_engine.timers import Timer

_STOP_GRACE: Final = 5.0
# Claims in the idle time after which entries are claimed: fewer with many shards, since each costs two commands a shard.
_CLAIMS: Final = 3
_FORGET_MS: Final = 600_000
_BETWEEN_SWEEPS: Final = 0.1
_CLOCK_LOOKS: Final = 5

logger = logging.getLogger("stepwell.coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How often a coordinator does what; times in milliseconds.

    `claim_ms`: silence after which another's entries are taken over. `sweep_every_ms`: between looks for
    runs past their retention, and tries of messages that were set aside. `sample_every_ms`: between looks at the queues for their gauges.
    """

    block_ms: int = 5_000
    claim_ms: int = 15_000
    sweep_every_ms: int = 60_000
    sample_every_ms: int = 20_000


class Coordinator:
    """Serves a namespace until stopped.

    `retention` (a duration, at least a minute) is how long ended runs are kept. The server may go away
    and come back meanwhile. Raises ConfigError, DurationError.

        coordinator = Coordinator(store, retention="7d")
        async with coordinator:
            ...
    """

    def __init__(
        self,
        store: Store,
        *,
        coordinator_id: str | None = None,
        retention: Duration = "7d",
        settings: Settings | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        kept = parse_duration(retention, argument="retention")
        if kept < MIN_RETENTION_MS:
            raise ConfigError(f'retention={retention!r} is too short; write at least "1m"')
        self.id = coordinator_id or f"c-{secrets.token_hex(6)}"
        self.metrics = metrics or Metrics()
        self.registry = Registry(store)
        self._store = store
        self._settings = settings or Settings()
        self._matcher = Matcher(store, self.metrics)
        self._fanout = Fanout(store, self.registry, self._matcher, self.metrics)
        self._delivery = Delivery(store, self.registry, self.metrics)
        self._retention = Retention(store, kept, self.metrics)
        self._gauges = Gauges(store, self.registry, self.metrics)
        recovery = Recovery(store, self.registry, self.metrics)
        self._crons = Crons(store, self.registry, self.metrics)
        self._timers = [
            Timer(store, i, recovery, self._crons, self.registry, self.metrics)
            for i in range(len(store.shards))
        ]
        self._readers = self._make_readers()
        self._polls: list[Loop] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def age(self) -> float | None:
        """Seconds since every stream was last polled with success; None until it was."""
        ages = [loop.age for loop in self._polls]
        found = [age for age in ages if age is not None]
        return max(found) if found and len(found) == len(ages) else None

    async def start(self) -> None:
        """Prepare the streams and begin. Raises ServerError when the server can't be used now."""
        await self._prepare()
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """End: what was read is finished within 5 s, the rest is left to other coordinators. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await self._finish()
        finally:
            await self._delivery.close()

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(_STOP_GRACE):
                await asyncio.gather(*(reader.finish() for reader in self._readers))
        except TROUBLE:
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*(reader.drain() for reader in self._readers))

    async def run(self) -> None:
        """Start, and serve until cancelled."""
        await self.start()
        try:
            assert self._task is not None
            await asyncio.shield(self._task)
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def idle(self) -> bool:
        """Whether the streams are drained and nothing is in flight here. For tests. Raises ServerError."""
        if any(reader.busy for reader in self._readers):
            return False
        keys = [shard.keys for shard in self._store.shards]
        call = self._store.server.call
        # Handled entries are deleted: an empty stream is one with nothing undelivered or pending.
        lengths = await asyncio.gather(
            *(call(k.root, "XLEN", stream) for k in keys for stream in (k.events, k.outbox))
        )
        return not any(lengths)

    def poke(self) -> None:
        """Look at what is due now: the test harness moved the clock."""
        for timer in self._timers:
            timer.poke()

    def _make_readers(self) -> list[Reader]:
        shard_of = {shard.keys.root: i for i, shard in enumerate(self._store.shards)}
        standing = StandingFanout(self._store, self.registry, self.metrics)
        return [
            Reader(
                self._store, [shard_of[root] for root in roots], self.id, self._handle, self.metrics,
                block_ms=self._settings.block_ms, claim_ms=self._settings.claim_ms, standing=standing,
            )
            for roots in self._store.server.same_node(shard_of)
        ]  # fmt: skip

    async def _prepare(self) -> None:
        await asyncio.gather(*(reader.prepare() for reader in self._readers))
        await self._compare_clocks()
        await self._crons.sync()

    async def _serve(self) -> None:
        loops = [Loop("timer", timer.turn, self.metrics) for timer in self._timers]
        self._polls = [Loop("reading", reader.read, self.metrics) for reader in self._readers]
        claim_every = self._settings.claim_ms * min(len(self._timers), _CLAIMS) / _CLAIMS
        loops += [self._every("claiming", r.claim, claim_every) for r in self._readers]
        loops.append(self._every("sweeping", self._upkeep, self._settings.sweep_every_ms))
        loops.append(self._every("delivering", self._delivery.retry, self._settings.sweep_every_ms))
        forget = partial(self._retention.forget_processes, self.id)
        loops.append(self._every("forgetting", forget, _FORGET_MS))
        loops.append(self._every("sampling", self._sample, self._settings.sample_every_ms))
        async with asyncio.TaskGroup() as group:
            for loop in (*loops, *self._polls):
                group.create_task(loop.run())

    def _every(self, name: str, action: Callable[[], Awaitable[object]], ms: float) -> Loop:
        async def turn() -> None:
            await action()
            await asyncio.sleep(ms / 1000)

        return Loop(name, turn, self.metrics)

    async def _upkeep(self) -> None:
        await self._compare_clocks()
        if self.registry.cancels:
            await self._fanout.recent.forget(*await self._retention.handled())
        # A backlog goes in bounded pieces, but it does go: runs may end faster than one piece a period.
        while True:
            removed = await self._retention.sweep()
            if removed < SWEEP_BOUND:
                return
            await asyncio.sleep(_BETWEEN_SWEEPS)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.01)
        self.metrics.loop_lag.set(max(0.0, loop.time() - began - 0.01))
        await self._gauges.sample()

    async def _compare_clocks(self) -> None:
        """Learn how far masters' clocks may differ: before the first event is matched, and again, since clocks drift."""
        if self._store.server.is_cluster:
            # Each is a bound, too wide by its round trip. What is too wide lets an event from just before a run cancel it, so: the best.
            self._matcher.skew_us = min([await self._skew_us() for _ in range(_CLOCK_LOOKS)])

    async def _skew_us(self) -> int:
        """How far the masters' clocks differ at most, the round trip included."""
        began = boot_seconds()
        replies = await self._store.server.each_master("TIME")
        times = [int(reply[0]) * 1_000_000 + int(reply[1]) for reply in replies.values()]
        return max(times) - min(times) + int((boot_seconds() - began) * 1e6)

    async def _handle(self, read: Read) -> None:
        """All that one read brought; the parts don't wait for each other's troubles."""
        events = partial(self._handle_events, read)
        if not read.owed:
            await self._persist(events)
            return
        parts = [partial(self._delivery.handle, shard, rows) for shard, rows in read.owed.items()]
        if read.events:
            parts.append(events)
        results = await asyncio.gather(*map(self._persist, parts), return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _persist(self, part: Callable[[], Awaitable[None]]) -> None:
        """Try again while the server is away; the reader's timeout ends it when the read is stale."""
        backoff: Backoff | None = None
        while True:
            try:
                return await part()
            except TROUBLE as error:
                self.metrics.redis_errors.inc()
                logger.warning("handling what was read: %s", error)
                backoff = backoff or Backoff()
                await backoff.pause()

    async def _handle_events(self, read: Read) -> None:
        batches = [Batch(shard, rows) for shard, rows in read.events.items()]
        filled = batches
        if idle := [b for b in batches if b.wakes or b.bad]:
            await self._drop(idle, read)
            filled = [batch for batch in batches if batch.entries]
        try:
            await self._fanout.handle(filled)
        except TROUBLE:
            raise
        except Exception:
            logger.exception("a batch of events can't be handled whole; each is tried alone")
            await self._one_by_one(filled)
        self._fanout.count_cancelled(batches)

    async def _drop(self, idle: list[Batch], read: Read) -> None:
        """Do what wake-ups ask for, and drop them and what can't be read."""
        for batch in idle:
            if batch.wakes:
                self._timers[batch.shard].poke()
        if any(b.wakes and registers(read.events[b.shard]) for b in idle):
            # Before the entry that says so is dropped: if this fails, it is done again.
            await self._crons.sync()
        await asyncio.gather(*map(self._fanout.drop, idle))

    async def _one_by_one(self, batches: list[Batch]) -> None:
        """One entry must not hold up the others: it is found, recorded and given up."""
        for batch in batches:
            for entry in batch.entries:
                alone = Batch(batch.shard, ())
                alone.entries.append(entry)
                try:
                    await self._fanout.handle([alone])
                except TROUBLE:
                    raise
                except ResponseError:
                    # A script failed, which the entry may have no part in: it is claimed and tried again.
                    logger.exception("event %s (%s) is put off", entry.id, entry.name)
                except Exception as error:  # noqa: BLE001  whatever it is, it is this entry's
                    await self._fanout.poison(
                        batch.shard, entry, f"{type(error).__name__}: {error}"
                    )
