"""Batches of events become runs: match waits, decide, then one write a shard with the acknowledgement in it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from stepwell.errors import FunctionNotFoundError, error_payload
from stepwell.serde.values import pack
from stepwell_engine.ends import load_ends
from stepwell_engine.entries import ENDED, INVOKED, LOOK, Batch, Entry
from stepwell_engine.matching import Matcher
from stepwell_engine.metrics import Metrics
from stepwell_engine.planning import Plan, Work, error_record, plan, start_all
from stepwell_engine.recent import Recent
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Arg, NewRun
from stepwell_engine.triggers import FILTER_ERROR

GROUP: Final = "stepwell"
RECORD_TTL_MS: Final = 172_800_000  # the 24 h of de-duplication, and as much again as margin

# What one call may hold the server for, and send at once.
_MAX_RUNS: Final = 100
_MAX_ENTRIES: Final = 1000
_MAX_BYTES: Final = 8 << 20

logger = logging.getLogger("stepwell.coordinator")

_REFERRING: Final = frozenset({INVOKED, LOOK})

Awaited = Sequence[Mapping[str, list[str]]]
"""For each shard: event name → the paths by which it is waited for."""


class Chunk:
    """One shard's share of a batch, written by one call of fanout.lua or, when it grew large, a few."""

    __slots__ = ("acks", "records", "runs", "shard", "size")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self._clear()

    def _clear(self) -> None:
        self.acks: list[bytes] = []
        self.records: list[tuple[str, bytes]] = []
        self.runs: list[NewRun] = []
        self.size = 0

    def add(self, entry: Entry, runs: Sequence[NewRun], record: bytes) -> None:
        """An entry to acknowledge with what it causes; no record if that is empty.

        An entry of ends says several events: it is acknowledged when all of them are handled.
        """
        if entry.kind != ENDED:
            self.acks.append(entry.sid)
        if record:
            self.records.append((entry.id, record))
            self.size += len(record)
        self.create(runs)

    def create(self, runs: Sequence[NewRun]) -> None:
        """Runs to create."""
        self.runs += runs
        for run in runs:
            self.size += len(run.blob)

    def split(self) -> "Chunk":
        """What was gathered so far, as a chunk of its own; this one is empty then."""
        other = Chunk(self.shard)
        other.acks, other.records, other.runs = self.acks, self.records, self.runs
        self._clear()
        return other

    @property
    def full(self) -> bool:
        """Whether it should be written before more is added."""
        return (
            len(self.runs) >= _MAX_RUNS or len(self.acks) >= _MAX_ENTRIES or self.size >= _MAX_BYTES
        )


class Fanout:
    """Handles batches of entries of the event streams.

    `handle` may be called again with entries whose effects are there already: runs' ids are hashes
    of their causes, waits are resolved once, and plans that reach other shards are fixed first.
    """

    __slots__ = ("_matcher", "_metrics", "_recent", "_registry", "_store")

    def __init__(
        self, store: Store, registry: Registry, matcher: Matcher, metrics: Metrics
    ) -> None:
        self._store = store
        self._registry = registry
        self._matcher = matcher
        self._recent = Recent(store, registry, matcher)
        self._metrics = metrics

    async def handle(self, batches: Sequence[Batch]) -> None:
        """Bring about what the entries cause, and acknowledge them.

        Raises ServerError when the server is away, ValueError and others for entries that can't be handled.
        """
        names = list({entry.name for batch in batches for entry in batch.entries})
        if (
            len(self._store.shards) == 1
            and len(batches) == 1
            and await self._guess(batches[0], names)
        ):
            return
        awaited = await self._awaited(names) if names else ()
        wanted = {name for paths in awaited for name in paths}
        special: list[Work] = []
        chunks: list[Chunk] = []
        unmatched = 0
        for batch in batches:
            rest, some = self._simple(batch, wanted, chunks)
            special += rest
            unmatched += some
        await self._write(chunks)
        self._count(batches, unmatched)
        if special:
            await self._special(special, awaited)

    async def _guess(self, batch: Batch, names: list[str]) -> bool:
        """With one shard, write at once what holds if nobody waits and the registry is as known; the script checks both.

        It saves the round trip that would ask. A wait registered after the check can't match: these events were accepted before.
        """
        version = self._registry.version
        if version is None:
            return False
        chunks: list[Chunk] = []
        special, unmatched = self._simple(batch, set(), chunks)
        if special or not chunks[0].acks:
            return False
        if not await self._write_one(chunks[0], guard=(version, *names)):
            return False
        await self._write(chunks[1:])
        self._count([batch], unmatched)
        return True

    def _count(self, batches: Sequence[Batch], unmatched: int) -> None:
        self._metrics.events_accepted.inc(sum(e.events for b in batches for e in b.entries))
        self._metrics.events_unmatched.inc(unmatched)

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
        return [
            {name: paths for name, paths in zip(names, reply, strict=True) if paths}
            for reply in replies
        ]

    def _simple(
        self, batch: Batch, awaited: set[str], chunks: list[Chunk]
    ) -> tuple[list[Work], int]:
        """Decide what needs no further look at the server; returns the rest, and how many events start nothing."""
        chunk = Chunk(batch.shard)
        special: list[Work] = []
        registry, shard, now = self._registry, batch.shard, self._store.clock.now_ms()
        plain: dict[str, bool] = {}
        unmatched = 0
        for entry in batch.entries:
            name = entry.name
            route = registry.route(name)
            if name in awaited or name in registry.lookback or entry.kind in _REFERRING:
                special.append(Work(entry, route, shard))
            elif entry.kind == ENDED:
                if route.empty:
                    # There is one for every run: it leaves no trace.
                    chunk.acks.append(entry.sid)
                    unmatched += entry.events
                else:
                    special.append(Work(entry, route, shard))
            elif plain[name] if name in plain else plain.setdefault(name, route.plain(shard)):
                chunk.add(entry, start_all(entry, route.always, route.name_bytes, shard), b"")
            else:
                decided = plan(Work(entry, route, shard), registry, now)
                if decided.local:
                    unmatched += self._add(chunk, decided)
                else:
                    special.append(decided.work)
            if chunk.full:
                chunks.append(chunk.split())
        chunks.append(chunk)
        return special, unmatched

    def _add(self, chunk: Chunk, decided: Plan) -> bool:
        """Put a decided event of this shard into its chunk; True when it starts nothing."""
        entry = decided.work.entry
        runs = decided.runs(chunk.shard)
        # An end that nobody wants (a wait may have) leaves no trace.
        chunk.add(entry, runs, decided.record() if decided.rows or entry.kind != ENDED else b"")
        for row in decided.rows:
            if row.outcome == FILTER_ERROR:
                self._metrics.filter_errors.labels(row.app, row.fn).inc()
        return not runs

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

    async def _write_one(self, chunk: Chunk, *, guard: Sequence[Arg] = ()) -> bool:
        """Write a chunk; False when the `guard` does not hold: then nothing was written."""
        shard = self._store.shards[chunk.shard]
        *parts, last = _parts(chunk.runs)
        # The acknowledgement goes with the last part: what is lost before it is done again.
        for runs in parts:
            if (
                await shard.fanout(GROUP, (), (), runs, record_ttl_ms=RECORD_TTL_MS, guard=guard)
                < 0
            ):
                return False
            guard = ()
        written = await shard.fanout(
            GROUP, chunk.acks, chunk.records, last, record_ttl_ms=RECORD_TTL_MS, guard=guard
        )
        if written < 0:
            return False
        for (number, app), count in Counter((run.number, run.lane) for run in chunk.runs).items():
            function = self._registry.numbered(number)
            self._metrics.runs_started.labels(app, function.fn if function else "").inc(count)
        return True

    async def _special(self, works: list[Work], awaited: Awaited) -> None:
        """Ends, invokes, events that are waited for, and those that reach other shards."""
        works = await self._answer(works)
        ends: dict[int, Chunk] = {}
        for work in works:
            if work.entry.kind == ENDED:
                ends.setdefault(work.shard, Chunk(work.shard)).acks.append(work.entry.sid)
        works = await self._complete(works)
        noted = await self._recent.note(works)
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
        chunks: dict[int, Chunk] = {}
        unmatched = 0
        for decided in plans:
            if decided.local:
                chunk = chunks.setdefault(decided.work.shard, Chunk(decided.work.shard))
                unmatched += self._add(chunk, decided)
        self._metrics.events_unmatched.inc(unmatched)
        await self._write(chunks.values())
        await self._spread([p for p in plans if not p.local])
        await self._write(ends.values())

    async def _answer(self, works: list[Work]) -> list[Work]:
        """Waits that look back, answered from what was noted so far; returns the other entries.

        What this batch notes after that is matched in the ordinary way: those waits are registered already.
        """
        chunks: dict[int, Chunk] = {}
        asked: dict[int, list[Entry]] = {}
        for work in works:
            if work.entry.kind == LOOK:
                asked.setdefault(work.shard, []).append(work.entry)
                chunks.setdefault(work.shard, Chunk(work.shard)).add(work.entry, (), b"")
        await asyncio.gather(*(self._recent.answer(s, entries) for s, entries in asked.items()))
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
                ready.append(work)
        for shard, entries in ends.items():
            events = await load_ends(self._store, self._registry, shard, entries)
            ready += [Work(e, self._registry.route(e.name), shard) for e in events]
        return ready

    async def _refuse(self, decided: Plan) -> None:
        """Tell the caller of an invoke that its function doesn't exist."""
        work = decided.work
        if work.target is None or self._registry.find(*work.target) is not None or not work.parent:
            return
        app, fn = work.target
        error = FunctionNotFoundError(
            f"no worker has registered function {fn!r} of app {app!r}: start a worker that serves it, "
            "or correct the id that is invoked"
        )
        run, _, step = work.parent.partition(":")
        await self._store.of_run(run).resolve(run, step, "", "e", packed_error(error))

    async def _spread(self, plans: list[Plan]) -> None:
        """Events that reach other shards: fix the plan, create the runs everywhere, then acknowledge."""
        if not plans:
            return
        shards = self._store.shards
        held = await asyncio.gather(
            *(
                shards[p.work.shard].plan(p.work.entry.id, p.record(), ttl_ms=RECORD_TTL_MS)
                for p in plans
            )
        )
        plans = [p.under(h, self._registry) for p, h in zip(plans, held, strict=True)]
        runs: dict[int, Chunk] = {}
        acks: dict[int, Chunk] = {}
        for decided in plans:
            for shard in decided.targets:
                runs.setdefault(shard, Chunk(shard)).create(decided.runs(shard))
            home = acks.setdefault(decided.work.shard, Chunk(decided.work.shard))
            home.add(decided.work.entry, (), decided.record())
        await self._write(runs.values())
        await self._write(acks.values())


def _parts(runs: list[NewRun]) -> list[list[NewRun]]:
    """`runs` in parts of a size that one call may have; at least one part."""
    if len(runs) <= _MAX_RUNS and sum(len(run.blob) for run in runs) <= 2 * _MAX_BYTES:
        return [runs]
    parts: list[list[NewRun]] = [[]]
    size = 0
    for run in runs:
        if parts[-1] and (len(parts[-1]) >= _MAX_RUNS or size + len(run.blob) > _MAX_BYTES):
            parts.append([])
            size = 0
        parts[-1].append(run)
        size += len(run.blob)
    return parts


def packed_error(error: BaseException, **fields: Any) -> bytes:
    """An error as runs store it; `fields` replace parts of it."""
    return pack({**error_payload(error), **fields})
