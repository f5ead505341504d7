"""Recent events of the names that `lookback=` waits ask for, kept where those waits live.

Written before an event's waits are matched and read after a wait is registered, so between the two none is missed.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from stepwell.ids import ulid_ms
from stepwell.serde.values import unpack
from stepwell_engine import luapack
from stepwell_engine.entries import USER, Entry
from stepwell_engine.matching import Matcher
from stepwell_engine.planning import Work
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store

MAX_EVENTS: Final = 1000
"""Of one name and shard; older ones are no longer found."""

_TTL_MS: Final = 604_800_000


class Recent:
    """The index of recent events, and the waits that ask it."""

    __slots__ = ("_matcher", "_registry", "_store")

    def __init__(self, store: Store, registry: Registry, matcher: Matcher) -> None:
        self._store = store
        self._registry = registry
        self._matcher = matcher

    async def note(self, works: Iterable[Work]) -> None:
        """Keep events for waits still to come. Raises ServerError."""
        calls: list[asyncio.Future[Any]] = []
        for work in works:
            entry = work.entry
            for shard in self._registry.lookback.get(entry.name, ()):
                keys, call = self._store.keys(shard), self._store.server.call
                key = keys.build("recent", entry.name)
                calls += (
                    call(keys.root, "ZADD", key, entry.us, entry.blob),
                    call(keys.root, "ZREMRANGEBYRANK", key, 0, -MAX_EVENTS - 1),
                    call(keys.root, "PEXPIRE", key, _TTL_MS),
                )
        await asyncio.gather(*calls)

    async def answer(self, shard: int, asked: Sequence[Entry]) -> None:
        """End the waits that a recent event matches; `asked` are their look-back entries. Raises ServerError."""
        await asyncio.gather(*(self._answer(shard, entry) for entry in asked))

    async def _answer(self, shard: int, entry: Entry) -> None:
        keys, call = self._store.keys(shard), self._store.server.call
        run, _, step = entry.run.partition(":")
        record, blob = await call(keys.root, "HMGET", keys.run(run), f"p:{step}", "e")
        if record is None or blob is None:
            return
        kind, _due, since, head, *_ = luapack.read(record)
        if kind != b"w":
            return
        found: list[bytes] = await call(
            keys.root, "ZRANGEBYSCORE", keys.build("recent", entry.name), int(since), "+inf"
        )
        details = unpack(head)[3]
        route = self._registry.route(entry.name)
        for event in found:
            id_ = event[:26].decode()
            us = ulid_ms(id_) * 1000
            past = Work(Entry(b"", USER, id_, entry.name, us, event[26:]), route, shard)
            if self._matcher.wanted(past, details, blob):
                await self._store.shards[shard].resolve(run, step, str(int(since)), "v", event)
                return
