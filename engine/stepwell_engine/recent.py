"""Recent events of the names that `lookback=` waits ask for, kept where those waits live.

Written before an event's waits are looked up and read after a wait is registered, so between the two none is missed.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
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

MAX_AGE_MS: Final = 604_800_000
"""How far back a wait can look, however long its run."""

_TTL_MS: Final = MAX_AGE_MS + 86_400_000
_BATCH: Final = 100  # events of one write


class Recent:
    """The index of recent events, and the waits that ask it."""

    __slots__ = ("_matcher", "_registry", "_store")

    def __init__(self, store: Store, registry: Registry, matcher: Matcher) -> None:
        self._store = store
        self._registry = registry
        self._matcher = matcher

    async def note(self, works: Iterable[Work]) -> set[str]:
        """Keep events for waits still to come; the names of those kept. Raises ServerError."""
        kept: dict[int, list[tuple[str, int, bytes]]] = {}
        names: set[str] = set()
        for work in works:
            entry = work.entry
            for shard in self._registry.lookback.get(entry.name, ()):
                kept.setdefault(shard, []).append((entry.name, entry.us, entry.blob))
                names.add(entry.name)
        await asyncio.gather(
            *(
                self._store.shards[shard].remember(
                    events[start : start + _BATCH],
                    most=MAX_EVENTS,
                    age_ms=MAX_AGE_MS,
                    ttl_ms=_TTL_MS,
                )
                for shard, events in kept.items()
                for start in range(0, len(events), _BATCH)
            )
        )
        return names

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
        event = await self._first(shard, entry.name, int(since), unpack(head)[3], blob)
        if event is not None:
            await self._store.shards[shard].resolve(run, step, str(int(since)), "v", event)

    async def _first(
        self, shard: int, name: str, since: int, details: Mapping[str, Any], blob: bytes
    ) -> bytes | None:
        """The first event since then that a wait with those details is for."""
        route = self._registry.route(name)
        # An event's accept time is told by its own master's clock, the run's by its trigger's.
        since -= self._matcher.skew_us
        after = b""
        while True:
            page = await self._store.shards[shard].recent(
                name, since, age_ms=MAX_AGE_MS, after=after
            )
            for event in page:
                id_ = event[:26].decode()
                us = ulid_ms(id_) * 1000
                past = Work(Entry(b"", USER, id_, name, us, event[26:]), route, shard)
                if self._matcher.wanted(past, details, blob):
                    return event
            if not page:
                return None
            after = page[-1]
