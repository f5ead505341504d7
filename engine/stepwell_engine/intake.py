"""Puts events into the streams: what is sent in one turn of the loop leaves in one script per shard.

A web process that sends one event a request so costs the server, and itself, little more than one
that sends lists.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Final

from redis.exceptions import ResponseError

from stepwell.errors import StreamFullError
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NewEvent

MAX_STREAM: Final = 1_000_000
"""Events that may wait on one shard; a send beyond is refused, so that memory has a bound."""

DEDUPE_MS: Final = 86_400_000
_GROUP_EVENTS: Final = 256  # a script holds up everyone else: one group takes about a millisecond
_GROUP_BYTES: Final = 262_144

_Call = tuple[Sequence[NewEvent], "asyncio.Future[list[str]]"]


class Intake:
    """One gateway's way into the event streams. `deadline`: seconds a write may be tried."""

    __slots__ = ("_deadline", "_flying", "_loop", "_store", "_tasks", "_waiting")

    def __init__(self, store: Store, deadline: float) -> None:
        self._store = store
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._flying = [0] * len(store.shards)
        self._waiting: list[list[_Call]] = [[] for _ in store.shards]
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, shard: int, items: Sequence[NewEvent], seed: str = "") -> list[str]:
        """Accept `items` on a shard, all or none; their ids, of duplicates the first event's.

        With a `seed`, once however often it is called. Raises StreamFullError, ServerError.
        """
        if seed or not self._flying[shard]:
            # Alone so far: no turn to wait for. Whoever comes while this is under way shares one.
            return await self._ingest(shard, items, seed)
        future: asyncio.Future[list[str]] = self._loop.create_future()
        waiting = self._waiting[shard]
        if not waiting:
            self._loop.call_soon(self._flush, shard)
        waiting.append((items, future))
        return await future

    def _flush(self, shard: int) -> None:
        calls, self._waiting[shard] = self._waiting[shard], []
        for group in _groups(calls):
            task = self._loop.create_task(self._write(shard, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _write(self, shard: int, group: Sequence[_Call]) -> None:
        items = group[0][0] if len(group) == 1 else [item for some, _ in group for item in some]
        try:
            ids = await self._ingest(shard, items)
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for some, future in group:
            end = start + len(some)
            if not future.done():  # else its caller was cancelled
                future.set_result(ids[start:end])
            start = end

    async def _ingest(self, shard: int, items: Sequence[NewEvent], seed: str = "") -> list[str]:
        # Without one: for the resends of this very script, whose events and ids are fixed by now.
        seed = seed or new_seed()
        self._flying[shard] += 1
        try:
            stamp, firsts = await self._store.shards[shard].ingest(
                seed, items, max_len=MAX_STREAM, dedupe_ms=DEDUPE_MS, deadline=self._deadline
            )
        except ResponseError as error:
            if str(error).startswith("FULL"):
                raise StreamFullError(
                    f"shard {shard} has {str(error)[5:]} events waiting, the most is "
                    f"{MAX_STREAM:,}: its coordinators are behind or stopped; send again later"
                ) from error
            raise
        finally:
            self._flying[shard] -= 1
        return [first or stamp + item.entropy for first, item in zip(firsts, items, strict=True)]


def new_seed() -> str:
    """From the system's source, so that forked processes never share one."""
    return os.urandom(10).hex()


def _groups(calls: Sequence[_Call]) -> Iterator[list[_Call]]:
    """Calls that share a script, none of them divided: a call is accepted whole or not."""
    group: list[_Call] = []
    events = size = 0
    for call in calls:
        items = call[0]
        length = sum(len(item.encoded) for item in items)
        if group and (events + len(items) > _GROUP_EVENTS or size + length > _GROUP_BYTES):
            yield group
            group, events, size = [], 0, 0
        group.append(call)
        events += len(items)
        size += length
    yield group
