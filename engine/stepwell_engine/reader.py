"""Reads the streams as one consumer of the group: new entries, and those that others left behind."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import ResponseError

from stepwell_engine.fanout import GROUP
from stepwell_engine.loop import boot_seconds
from stepwell_engine.metrics import Metrics
from stepwell_engine.standing import StandingFanout
from stepwell_engine.store.nodes import REPLY_SLACK
from stepwell_engine.store.store import Store
from stepwell_engine.store.wire import Arg

STALE_S: Final = 30.0
"""Age above which a read batch is dropped: this process was stopped, and another has claimed it."""

# While one read is decided the server writes what others caused: many small ones keep both at work.
_COUNT: Final = 250
_LEAST: Final = 8
_READ_BYTES: Final = 16 << 20
_IN_FLIGHT: Final = 4
_CLAIM: Final = 200
_QUICK_S: Final = 0.003
_QUICK_READS: Final = 3
_GATHER_S: Final = 0.0015
_SMALL: Final = 100
"""After several small reads in quick succession the next one waits a moment, so that a busy stream is read in batches."""

logger = logging.getLogger("stepwell.coordinator")

Row = tuple[bytes, list[bytes]]
Ids = set[tuple[str, bytes]]
"""Entries: stream and id of each."""


@dataclass(slots=True)
class Read:
    """What one read brought: rows by shard of the event streams and of the outboxes. `at` is when it was asked for."""

    at: float
    events: dict[int, list[Row]] = field(default_factory=dict[int, list[Row]])
    owed: dict[int, list[Row]] = field(default_factory=dict[int, list[Row]])

    @property
    def left(self) -> float:
        """Seconds until it is stale."""
        return self.at + STALE_S - boot_seconds()


class Reader:
    """Reads some shards' streams and hands what comes to `handle`, four reads at a time.

    All shards of a node share one blocking call, in a Cluster each has its own. `handle` acknowledges;
    what it raises leaves the entries pending, to be claimed after `claim_ms`.
    """

    def __init__(
        self,
        store: Store,
        shards: Sequence[int],
        consumer: str,
        handle: Callable[[Read], Awaitable[None]],
        metrics: Metrics,
        *,
        block_ms: int = 5_000,
        claim_ms: int = 15_000,
        standing: StandingFanout | None = None,
    ) -> None:
        self._store = store
        self._consumer = consumer
        self._handle = handle
        self._metrics = metrics
        self._block_ms = block_ms
        self._claim_ms = claim_ms
        self._standing = standing
        self._root = store.keys(shards[0]).root
        self._streams: dict[str, tuple[int, bool]] = {}
        for shard in shards:
            keys = store.keys(shard)
            self._streams[keys.events] = (shard, True)
            self._streams[keys.outbox] = (shard, False)
        self._count = _COUNT
        self._quick = 0
        self._last = 0.0
        self._tasks: dict[asyncio.Task[None], tuple[Ids, asyncio.TimerHandle]] = {}
        self._cursors: dict[str, bytes] = {}
        self._last_event = b"0-0"
        self._handled_some: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something read is not handled yet."""
        return bool(self._tasks)

    async def prepare(self) -> None:
        """Create the groups of its streams where they are missing. Raises ServerError."""
        for stream in self._streams:
            try:
                # From 0: handled entries are deleted, so all that a new group finds is owed.
                await self._store.server.call(
                    self._root, "XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM"
                )
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def read(self) -> None:
        """Wait for new entries and start to handle them. Raises ServerError."""
        await self._room()
        if self._quick >= _QUICK_READS:
            await asyncio.sleep(_GATHER_S)
        asked = boot_seconds()
        reply = await self._call_group(self._ask)
        if reply:
            entries = self._start([(key.decode(), rows) for key, rows in reply], asked)
            await self._make_way(entries)
            self._pace(entries)

    async def _room(self) -> None:
        """Wait until one more read may be handled: before it is read, since what is not handled ages."""
        while len(self._tasks) >= _IN_FLIGHT:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _ask(self) -> Any:
        """XREADGROUP's reply, without what was handled in the server. While little comes, a fan-out stands behind the question."""
        question: tuple[Arg, ...] = (
            "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", self._count, "BLOCK", self._block_ms,
            "STREAMS", *self._streams, *([">"] * len(self._streams)),
        )  # fmt: skip
        standing, seconds = self._standing, self._block_ms / 1000
        then = None
        if standing is not None and self._quick < _QUICK_READS:
            then = await standing.command(self._consumer, self._last_event)
        done: set[bytes] = set()
        if standing is None or standing.node is None or then is None:
            reply = await self._store.server.blocking(
                self._root, *question, timeout=seconds, label="streams"
            )
        else:
            reply, told = await standing.node.stand(
                question, then, timeout=seconds + REPLY_SLACK, label="streams"
            )
            done = standing.arrived(told)
        for key, rows in reply or ():
            if self._streams[key.decode()][1]:
                self._last_event = rows[-1][0]
                if done:
                    rows[:] = [row for row in rows if row[0] not in done]
        return reply

    async def _make_way(self, entries: int) -> None:
        """Let go first what was begun. Of few entries, while little comes, until it is handled, or for a moment: the server may have to
        share this very core, and would hear of them after the question for more."""
        if entries >= _SMALL or self._quick >= _QUICK_READS or not self._tasks:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._handled_some = loop.create_future()
        timer = loop.call_later(_GATHER_S, _wake, self._handled_some)
        try:
            await self._handled_some
        finally:
            timer.cancel()

    def _pace(self, entries: int) -> None:
        now = boot_seconds()
        small = entries < _SMALL and now - self._last < _QUICK_S
        self._quick = self._quick + 1 if small else 0
        self._last = now

    async def claim(self) -> None:
        """Take over entries whose reader went silent. Raises ServerError."""
        await self._room()
        found: list[tuple[str, list[Row]]] = []
        asked = boot_seconds()
        for stream in self._streams:
            rows = await self._claim(stream)
            if rows:
                found.append((stream, rows))
                self._metrics.redeliveries.inc(len(rows))
        if found:
            self._start(found, asked)

    async def drain(self) -> None:
        """Wait until all that was read is handled."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def finish(self) -> None:
        """After the last `read`: handle what is left, also what came while that was cancelled. Raises ServerError."""
        await self.drain()
        asked = boot_seconds()
        streams, starts = [*self._streams], ["0"] * len(self._streams)
        reply = await self._store.server.call(
            self._root, "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", _COUNT * _IN_FLIGHT,
            "STREAMS", *streams, *starts,
        )  # fmt: skip
        found = [(key.decode(), [row for row in rows if row[1]]) for key, rows in reply or ()]
        if any(rows for _, rows in found):
            self._start(found, asked)
            await self.drain()

    def cancel(self) -> None:
        """Stop handling; the entries stay pending."""
        for task in self._tasks:
            task.cancel()

    async def _call_group(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            logger.warning("a stream or its group was deleted; made anew: %s", error)
            await self.prepare()
            return None

    async def _claim(self, stream: str) -> list[Row]:
        start = self._cursors.get(stream, b"0-0")
        reply = await self._call_group(
            lambda: self._store.server.call(
                self._root,
                "XAUTOCLAIM",
                stream,
                GROUP,
                self._consumer,
                self._claim_ms,
                start,
                "COUNT",
                _CLAIM,
            )
        )
        if reply is None:
            return []
        self._cursors[stream] = reply[0]
        rows = [row for row in reply[1] if row is not None and row[1] is not None]
        if len(rows) < len(reply[1]):
            await self._forget_deleted(stream)
        # What this very process works on isn't left behind, just slow.
        working = Ids().union(*(ids for ids, _ in self._tasks.values()))
        return [row for row in rows if (stream, row[0]) not in working]

    async def _forget_deleted(self, stream: str) -> None:
        """On 6.2, entries deleted from the stream stay pending, and are claimed as nil without an id."""
        call = self._store.server.call
        pending = await call(
            self._root, "XPENDING", stream, GROUP, "-", "+", _CLAIM, self._consumer
        )
        for sid, *_ in pending:
            if not await call(self._root, "XRANGE", stream, sid, sid):
                await call(self._root, "XACK", stream, GROUP, sid)

    def _start(self, found: Iterable[tuple[str, list[Row]]], asked: float) -> int:
        """Begin to handle rows by stream; how many they are."""
        read = Read(asked)
        ids, size = Ids(), 0
        for stream, rows in found:
            shard, is_events = self._streams[stream]
            (read.events if is_events else read.owed).setdefault(shard, []).extend(rows)
            for sid, flat in rows:
                ids.add((stream, sid))
                size += len(flat[9]) if len(flat) > 9 else 0
        if not ids:
            return 0
        self._adapt(len(ids), size)
        # Its age counts from the question: the answer may have lain in the socket of a stopped process.
        left = read.left
        if left <= 0:
            _warn_stale(ids)
            return len(ids)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._handled(read, ids))
        self._tasks[task] = ids, loop.call_later(left, task.cancel)
        task.add_done_callback(self._ended)
        return len(ids)

    async def _handled(self, read: Read, ids: Ids) -> None:
        try:
            await self._handle(read)
        except asyncio.CancelledError:
            if read.left > 0.1:  # a timer may be early
                raise
            _warn_stale(ids)
        except Exception:
            logger.exception("%d entries were not handled and will be claimed", len(ids))

    def _ended(self, task: asyncio.Task[None]) -> None:
        _, timer = self._tasks.pop(task)
        timer.cancel()
        if self._handled_some is not None:
            _wake(self._handled_some)

    def _adapt(self, entries: int, size: int) -> None:
        """Read fewer at a time when events are large: hundreds of 3 MiB would not fit a process."""
        if size * 2 > _READ_BYTES or self._count < _COUNT:
            wanted = _READ_BYTES * entries // max(size, 1)
            self._count = max(_LEAST, min(_COUNT, wanted, self._count * 2))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _warn_stale(ids: Ids) -> None:
    logger.warning("%d entries were not handled within %g s and will be claimed", len(ids), STALE_S)
