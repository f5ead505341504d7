"""Batches of events become runs: match waits, decide, then one write a shard with the acknowledgement in it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from stepwell.errors import FunctionNotFoundError, error_payload
from stepwell.ids import function_shard, run_id, ulid_ms
from stepwell.serde.values import pack
from stepwell_engine.chunks import Chunk
from stepwell_engine.ends import load_ends, skipped
from stepwell_engine.entries import ENDED, INVOKED, LOOK, SKIPPED, Batch, Entry
from stepwell_engine.matching import Matcher
from stepwell_engine.metrics import Metrics
from stepwell_engine.once import Once
from stepwell_engine.planning import Plan, Work, error_record, plan, start_all
from stepwell_engine.recent import Recent
from stepwell_engine.registry import Registry
from stepwell_engine.store.shapes import Guard
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NewRun
from stepwell_engine.triggers import FILTER_ERROR
from stepwell_engine.views import NOT_FOUND

GROUP: Final = "stepwell"
RECORD_TTL_MS: Final = 172_800_000  # the 24 h of de-duplication, and as much again as margin

logger = logging.getLogger("stepwell.coordinator")

_REFERRING: Final = frozenset({INVOKED, LOOK})
_INTERNAL: Final = frozenset({ENDED, SKIPPED})
"""What the engine says itself: without anyone who wants it, it leaves no trace."""

Awaited = Sequence[Mapping[str, list[str]]]
"""For each shard: event name → the paths by which it is waited for."""


class Fanout:
    """Handles batches of entries of the event streams.

    `handle` may be called again with entries whose effects are there already: runs' ids are hashes
    of their causes, waits are resolved once, and plans that reach other shards are fixed first.
    """

    __slots__ = ("_first", "_matcher", "_metrics", "_registry", "_store", "recent")

    def __init__(
        self, store: Store, registry: Registry, matcher: Matcher, metrics: Metrics
    ) -> None:
        self._store = store
        self._registry = registry
        self._matcher = matcher
        self.recent = Recent(store, registry, matcher)
        self._metrics = metrics
        self._first = Once()

    async def handle(self, batches: Sequence[Batch]) -> None:
        """Bring about what the entries cause, and acknowledge them.

        Raises ServerError when the server is away, ValueError and others for entries that can't be handled.
        """
        names = list({entry.name for batch in batches for entry in batch.entries})
        awaited: Awaited | None = None
        if len(self._store.shards) == 1 and len(batches) == 1:
            done, awaited = await self._guess(batches[0], names)
            if done:
                return
        if awaited is None:
            awaited = await self._awaited(names) if names else ()
        wanted = {name for paths in awaited for name in paths}
        special: list[Work] = []
        chunks: list[Chunk] = []
        unmatched = 0
        for batch in batches:
            rest, some = self._simple(batch, wanted, chunks)
            special += rest
            unmatched += some
        noted = await self._note(special)
        await self._write(chunks)
        self._count(batches, unmatched)
        if special:
            await self._special(special, awaited, noted=noted)

    async def _note(self, works: Sequence[Work]) -> bool:
        """Keep what cancels and what waits look back for, before any run of the batch comes to be: a run asks as it is created."""
        asked = self._registry.lookback
        kept = [
            Work(w.entry, w.route, w.shard)
            for w in works
            if w.entry.name in asked and w.entry.kind != LOOK
        ]
        return bool(kept and await self.recent.note(await self._complete(kept)))

    async def _guess(self, batch: Batch, names: list[str]) -> tuple[bool, Awaited | None]:
        """With one shard, write at once what holds if nobody waits and the registry is as known; the script checks both.

        It saves the round trip that would ask. A wait registered after the check can't match: these events were accepted before. Returns
        whether it was written; if not, perhaps who waits.
        """
        version = self._registry.version
        if version is None:
            return False, None
        chunks: list[Chunk] = []
        special, unmatched = self._simple(batch, set(), chunks)
        if special or not chunks[0].acks:
            return False, None
        guard = Guard(version, names)
        if not await self._write_one(chunks[0], guard):
            found = guard.awaited
            return False, None if found is None else [_by_name(names, found)]
        await self._write(chunks[1:])
        self._count([batch], unmatched)
        return True, None

    def _count(self, batches: Sequence[Batch], unmatched: int) -> None:
        self._metrics.events_accepted.inc(sum(e.events for b in batches for e in b.entries))
        self._metrics.events_unmatched.inc(unmatched)

    def count_cancelled(self, batches: Sequence[Batch]) -> None:
        """Count the runs that handled entries tell were cancelled."""
        for told in (each for batch in batches for each in batch.cancelled):
            number, _, reason = told.partition(" ")
            self._metrics.run_cancelled(*self._registry.names(number), reason)

    async def poison(self, shard: int, entry: Entry, why: str) -> None:
        """Give an entry up: its record says why, and it is acknowledged."""
        self._metrics.events_poison.inc()
        logger.error(
            "event %s (%s) can't be handled and is given up: %s", entry.id, entry.name, why
        )
        chunk = Chunk(shard)
        chunk.acks.append(entry.sid)
        if entry.id:
            chunk.records.append((entry.id, error_record(entry, shard, why)))
        await self._write([chunk])

    async def drop(self, batch: Batch) -> None:
        """Acknowledge what has no content: wake-ups, and entries that aren't even events."""
        if batch.bad:
            self._metrics.events_poison.inc(len(batch.bad))
            logger.error(
                "%d unreadable entries on shard %d are given up: %s",
                len(batch.bad),
                batch.shard,
                batch.bad,
            )
        chunk = Chunk(batch.shard)
        chunk.acks += batch.wakes + batch.bad
        await self._write([chunk])

    async def _awaited(self, names: list[str]) -> Awaited:
        """One round trip: has the registry changed, and which names are waited for where."""
        version = self._registry.ask()
        asked = [shard.awaited(names) for shard in self._store.shards]
        replies, _ = await asyncio.gather(asyncio.gather(*asked), self._registry.refresh(version))
        return [_by_name(names, reply) for reply in replies]

    def _simple(
        self, batch: Batch, awaited: set[str], chunks: list[Chunk]
    ) -> tuple[list[Work], int]:
        """Decide what needs no further look at the server; returns the rest, and how many events start nothing."""
        chunk = Chunk(batch.shard)
        special: list[Work] = []
        registry, shard = self._registry, batch.shard
        unmatched = now = 0
        for entry in batch.entries:
            name = entry.name
            route = registry.route(name)
            if name in awaited or name in registry.lookback or entry.kind in _REFERRING:
                special.append(Work(entry, route, shard))
            elif entry.kind in _INTERNAL:
                if route.empty:
                    chunk.acks.append(entry.sid)
                    unmatched += entry.events
                else:
                    special.append(Work(entry, route, shard))
            elif route.home == shard:
                chunk.add(entry, start_all(entry, route.always, route.name_bytes, shard), b"")
            else:
                now = now or self._store.clock.now_ms()
                decided = plan(Work(entry, route, shard), registry, now)
                if decided.local and not decided.keep_ms:
                    unmatched += self._add(chunk, decided)
                else:
                    special.append(decided.work)
            if chunk.full:
                chunks.append(chunk)
                chunk = Chunk(shard)
        chunks.append(chunk)
        return special, unmatched

    def _add(self, chunk: Chunk, decided: Plan) -> bool:
        """Put a decided event of this shard into its chunk; True when it starts nothing."""
        entry = decided.work.entry
        runs = decided.runs(chunk.shard)
        # An end that nobody wants (a wait may have) leaves no trace.
        chunk.add(
            entry, runs, decided.record() if decided.rows or entry.kind not in _INTERNAL else b""
        )
        self._warn(decided)
        for row in decided.rows:
            if row.outcome == FILTER_ERROR:
                self._metrics.filter_errors.labels(row.app, row.fn).inc()
        return not runs

    def _warn(self, decided: Plan) -> None:
        """Count keys of flow control that had no value; the log names each text of a function once."""
        for row, (option, text) in decided.faults:
            self._metrics.flow_key_errors.labels(row.app, row.fn, option).inc()
            if self._first(row.app, row.fn, option, text):
                logger.warning(
                    "function %s-%s: %s has no usable value for event %s: %s; more of these are only counted "
                    "(stepwell_flow_key_errors_total)",
                    row.app, row.fn, option, decided.work.entry.id, text,
                )  # fmt: skip

    async def _write(self, chunks: Iterable[Chunk]) -> None:
        """Write chunks, those of one shard one after another: the server turns to others in between."""
        shards: dict[int, list[Chunk]] = {}
        for chunk in chunks:
            if chunk.acks or chunk.runs or chunk.records:
                shards.setdefault(chunk.shard, []).append(chunk)
        await asyncio.gather(*(self._write_in_turn(some) for some in shards.values()))

    async def _write_in_turn(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            await self._write_one(chunk)

    async def _write_one(self, chunk: Chunk, guard: Guard | None = None) -> bool:
        """Write a chunk; False when the `guard` does not hold: then nothing was written."""
        *parts, last = chunk.parts()
        # The acknowledgement goes with the last part: what is lost before it is done again.
        for runs in parts:
            if not await self._write_part(chunk, (), (), runs, guard):
                return False
            guard = None
        return await self._write_part(chunk, chunk.acks, chunk.records, last, guard)

    async def _write_part(
        self,
        chunk: Chunk,
        acks: Sequence[bytes],
        records: Sequence[tuple[str, bytes]],
        runs: Sequence[NewRun],
        guard: Guard | None,
    ) -> bool:
        shard = self._store.shards[chunk.shard]
        ttl = RECORD_TTL_MS + chunk.keep_ms
        if chunk.controlled:
            started = await shard.admit(GROUP, acks, records, runs, record_ttl_ms=ttl, guard=guard)
            if started is None:
                return False
            counts = Counter(started)
        else:
            made = await shard.fanout(GROUP, acks, records, runs, record_ttl_ms=ttl, guard=guard)
            if made is None:
                return False
            # None: all were there, or another has handled their entries.
            counts = Counter(run.number for run in runs if made)
        for number, count in counts.items():
            self._metrics.runs_started.labels(*self._registry.names(number)).inc(count)
        return True

    async def _special(self, works: list[Work], awaited: Awaited, *, noted: bool) -> None:
        """Ends, invokes, events that are waited for, and those that reach other shards."""
        works = await self._answer(works)
        ends: dict[int, Chunk] = {}
        for work in works:
            if work.entry.kind == ENDED:
                ends.setdefault(work.shard, Chunk(work.shard)).acks.append(work.entry.sid)
        works = await self._complete(works)
        if noted:
            # A wait registered since the first look may have looked back before this was noted.
            awaited = await self._awaited(list({work.entry.name for work in works}))
        named = [w for w in works if any(w.entry.name in names for names in awaited)]
        if named:
            # Before the acknowledgement: an event is handled when its waits are.
            await self._matcher.match(named, awaited)
        now = self._store.clock.now_ms()
        plans = [plan(work, self._registry, now) for work in works]
        await asyncio.gather(*(self._refuse(p) for p in plans if p.work.entry.kind == INVOKED))
        chunks: dict[tuple[int, int], Chunk] = {}
        unmatched = 0
        for decided in plans:
            if decided.local:
                place = decided.work.shard, decided.keep_ms
                chunk = chunks.setdefault(place, Chunk(*place))
                unmatched += self._add(chunk, decided)
        self._metrics.events_unmatched.inc(unmatched)
        await self._write(chunks.values())
        await self._spread([p for p in plans if not p.local])
        await self._write(ends.values())

    async def _answer(self, works: list[Work]) -> list[Work]:
        """Waits and cancels that look back, answered from what was noted, this batch's events too; returns the other entries."""
        chunks: dict[int, Chunk] = {}
        asked: dict[int, list[Entry]] = {}
        for work in works:
            if work.entry.kind == LOOK:
                asked.setdefault(work.shard, []).append(work.entry)
                chunks.setdefault(work.shard, Chunk(work.shard)).add(work.entry, (), b"")
        await asyncio.gather(*(self.recent.answer(s, entries) for s, entries in asked.items()))
        await self._write(chunks.values())
        return [work for work in works if work.entry.kind != LOOK]

    async def _complete(self, works: list[Work]) -> list[Work]:
        """Fetch what entries only refer to: ended runs, and the targets of invokes."""
        ready: list[Work] = []
        ends: dict[int, list[Entry]] = {}
        for work in works:
            if work.entry.kind == ENDED:
                ends.setdefault(work.shard, []).append(work.entry)
            else:
                if work.entry.kind == INVOKED:
                    work.read_target()
                elif work.entry.kind == SKIPPED:
                    work.entry = skipped(work.entry, self._registry)
                ready.append(work)
        for shard, entries in ends.items():
            events = await load_ends(self._store, self._registry, shard, entries)
            ready += [Work(e, self._registry.route(e.name), shard) for e in events]
        return ready

    async def _refuse(self, decided: Plan) -> None:
        """Tell the caller of an invoke that its function doesn't exist, or not any more."""
        work = decided.work
        if work.target is None or self._registry.find(*work.target) is not None:
            return
        app, fn = work.target
        if not work.parent:
            await self._deny(work, app, fn)
            return
        error = FunctionNotFoundError(
            f"no worker has registered function {fn!r} of app {app!r}: start a worker that serves it, "
            "or correct the id that is invoked"
        )
        run, _, step = work.parent.partition(":")
        await self._store.of_run(run).resolve(run, step, "", "e", packed_error(error))

    async def _deny(self, work: Work, app: str, fn: str) -> None:
        """The same for a client: it waits for a run by the id that it would have had."""
        event = work.entry.id
        home = function_shard(app, fn, len(self._store.shards))
        function = self._registry.known(app, fn)
        await self._store.shards[home].deny(
            run_id(ulid_ms(event), event, app, fn, home),
            function.number if function else "",
            NOT_FOUND,
        )

    async def _spread(self, plans: list[Plan]) -> None:
        """Events that reach other shards: fix the plan, create the runs everywhere, then acknowledge."""
        if not plans:
            return
        shards = self._store.shards
        held = await asyncio.gather(
            *(
                shards[p.work.shard].plan(
                    p.work.entry.id, p.record(whole=True), ttl_ms=RECORD_TTL_MS + p.keep_ms
                )
                for p in plans
            )
        )
        for mine in plans:
            self._warn(mine)
        runs: dict[int, Chunk] = {}
        acks: dict[tuple[int, int], Chunk] = {}
        for mine, known in zip(plans, held, strict=True):
            place = mine.work.shard, mine.keep_ms
            home = acks.setdefault(place, Chunk(*place))
            decided = mine.under(known, self._registry)
            if decided is None:
                home.acks.append(mine.work.entry.sid)
                continue
            for shard in decided.targets:
                runs.setdefault(shard, Chunk(shard)).create(decided.runs(shard))
            home.add(mine.work.entry, (), decided.record())
        await self._write(runs.values())
        await self._write(acks.values())


def _by_name(names: Sequence[str], paths: Sequence[list[str]]) -> dict[str, list[str]]:
    """Those that are waited for."""
    return {name: some for name, some in zip(names, paths, strict=True) if some}


def packed_error(error: BaseException, **fields: Any) -> bytes:
    """An error as runs store it; `fields` replace parts of it."""
    return pack({**error_payload(error), **fields})
