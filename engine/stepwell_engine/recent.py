"""Recent events of the names that `lookback=` waits and new runs' cancels ask for, kept where those waits and runs live.

Written before an event's waits are looked up and read after a wait is registered, so between the two none is missed. A cancel is asked for
by runs whose event is older, but handled later: it is kept until all entries from before it are handled.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from stepwell.ids import ulid_ms
from stepwell.serde.values import unpack
from stepwell_engine import luapack
from stepwell_engine.entries import USER, Entry
from stepwell_engine.limits.cancel import STEP_MARK, Registration
from stepwell_engine.matching import Matcher
from stepwell_engine.planning import Work
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store

MAX_EVENTS: Final = 1000
"""Of one name and shard; older ones are no longer found."""

MAX_CANCELS: Final = 100_000
"""The same of a name that a `Cancel` uses: a bound for memory, not for what is found in an ordinary backlog."""

MAX_AGE_MS: Final = 604_800_000
"""How far back a wait can look, however long its run."""

_TTL_MS: Final = MAX_AGE_MS + 86_400_000
_MARGIN_MS: Final = 60_000  # masters' clocks differ, timers are late
_AHEAD_US: Final = 100_000  # more than the clocks of a Cluster's masters should differ; what is found too early is seen to be so
_BATCH: Final = 100  # events of one write


class Recent:
    """The index of recent events, and the waits that ask it."""

    __slots__ = ("_matcher", "_registry", "_settled", "_store")

    def __init__(self, store: Store, registry: Registry, matcher: Matcher) -> None:
        self._store = store
        self._registry = registry
        self._matcher = matcher
        self._settled = 0, 0

    async def note(self, works: Iterable[Work]) -> set[str]:
        """Keep events for waits still to come; the names of those kept. Raises ServerError."""
        kept: dict[tuple[int, int], list[tuple[str, int, bytes]]] = {}
        names: set[str] = set()
        for work in works:
            entry = work.entry
            shards = self._registry.lookback.get(entry.name)
            if not shards:
                continue
            cancels = entry.name in self._registry.cancels
            us = entry.us + self._ahead(entry.name)
            for shard in shards:
                bound = shard, MAX_CANCELS if cancels else MAX_EVENTS
                kept.setdefault(bound, []).append((entry.name, us, entry.blob))
            names.add(entry.name)
        await asyncio.gather(
            *(
                self._store.shards[shard].remember(
                    events[start : start + _BATCH], most=most, age_ms=MAX_AGE_MS, ttl_ms=_TTL_MS
                )
                for (shard, most), events in kept.items()
                for start in range(0, len(events), _BATCH)
            )
        )
        return names

    async def forget(self, handled_ms: int, now_ms: int) -> None:
        """Drop the cancels that no run can ask for any more. Raises ServerError.

        All events accepted before `handled_ms` are handled; what their runs asked for may still be on its way until all from before
        `now_ms` are. So what is found at one call is dropped at a later one.
        """
        before, at = self._settled
        if handled_ms < at + _MARGIN_MS:
            return
        self._settled = handled_ms, now_ms
        call = self._store.server.call
        await asyncio.gather(
            *(
                call(keys.root, "ZREMRANGEBYSCORE", keys.build("recent", name), "-inf", until)
                for name, span in self._registry.cancels.items()
                if (until := (before - span - _MARGIN_MS) * 1000) > 0
                for keys in map(self._store.keys, self._registry.lookback.get(name, ()))
            )
        )

    async def answer(self, shard: int, asked: Sequence[Entry]) -> None:
        """End the waits, and the runs, that a recent event matches; `asked` are their look-back entries. Raises ServerError."""
        await asyncio.gather(*(self._answer(shard, entry) for entry in asked))

    async def _answer(self, shard: int, entry: Entry) -> None:
        keys, call = self._store.keys(shard), self._store.server.call
        run, _, step = entry.run.partition(":")
        cancels = step.startswith(STEP_MARK)
        field = f"cn:{step[1:]}" if cancels else f"p:{step}"
        record, blob = await call(keys.root, "HMGET", keys.run(run), field, "e")
        if record is None or blob is None:
            return
        if cancels:
            asked = Registration.read(record)
            found = await self._first(shard, entry.name, asked.since, asked.details, blob, asked)
            if found is not None:
                await self._matcher.cancel(self._store.shards[shard], run, found.entry)
            else:
                await self._store.shards[shard].answered(run, entry.sid)
            return
        kind, _due, since, head, *_ = luapack.read(record)
        if kind != b"w":
            return
        # An event's accept time is told by its own master's clock, the run's by its trigger's.
        since = int(since)
        from_us = since - self._matcher.skew_us + self._ahead(entry.name)
        found = await self._first(shard, entry.name, from_us, unpack(head)[3], blob)
        if found is not None:
            await self._store.shards[shard].resolve(run, step, str(since), "v", found.entry.blob)

    async def _first(
        self,
        shard: int,
        name: str,
        since: int,
        details: Mapping[str, Any],
        blob: bytes,
        asked: Registration | None = None,
    ) -> Work | None:
        """The first event since then that a wait, or what was `asked`, with those details is for."""
        route = self._registry.route(name)
        after = b""
        while True:
            page = await self._store.shards[shard].recent(
                name, since, age_ms=MAX_AGE_MS, after=after
            )
            for event in page:
                id_ = event[:26].decode()
                us = ulid_ms(id_) * 1000
                if asked is not None and asked.until and us > asked.until:
                    return None  # nor does any later one count
                past = Work(Entry(b"", USER, id_, name, us, event[26:]), route, shard)
                if not self._matcher.wanted(past, details, blob):
                    continue
                if asked is None or (
                    self._matcher.leads(past, asked) and await self._counts(shard, asked, event)
                ):
                    return past
            if not page:
                return None
            after = page[-1]

    async def _counts(self, shard: int, asked: Registration, event: bytes) -> bool:
        """Whether a kept event is one that cancels by the time at which it was accepted."""
        keys, call = self._store.keys(shard), self._store.server.call
        score = await call(keys.root, "ZSCORE", keys.build("recent", asked.name), event)
        if score is None:
            return False
        us = int(float(score)) - self._ahead(asked.name)
        return asked.covers(asked.name, us, self._matcher.skew_us)

    def _ahead(self, name: str) -> int:
        """By how much a cancel's score is ahead of its time: scripts compare it with a moment that another master's clock told."""
        ahead = self._store.server.is_cluster and name in self._registry.cancels
        return _AHEAD_US if ahead else 0
