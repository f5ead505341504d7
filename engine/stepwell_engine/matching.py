"""Events meet waits and cancels: candidates found by value are checked in full, then runs are cancelled and waiting steps resolved."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from stepwell.errors import StepwellError
from stepwell.ids import ulid_ms
from stepwell.serde.values import unpack
from stepwell_engine import luapack
from stepwell_engine.entries import Entry, blob_event
from stepwell_engine.expressions import compile, index_key, lookup  # noqa: A004
from stepwell_engine.expressions.values import FaultError
from stepwell_engine.limits.cancel import GRACE_MS, PATH_MARK, Registration, reason
from stepwell_engine.metrics import Metrics
from stepwell_engine.planning import Work
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Transitions

_PAGE: Final = 500
_NO_VALUE: Final = "0" * 16
_AT_ONCE: Final = 50

logger = logging.getLogger("stepwell.coordinator")

Row = tuple[bytes, bytes, bytes]


class Matcher:
    """Ends the waits that an event matches and the runs that it cancels, on every shard.

    `skew_us` is how far two masters' clocks may differ: a wait that seems to be registered later than
    the event was accepted, by less than that, is taken to match (a false match is seen and can be
    filtered by the user; a missed one can't).
    """

    __slots__ = ("_metrics", "_store", "skew_us")

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self.skew_us = 0

    async def match(
        self, works: Sequence[Work], awaited: Sequence[Mapping[str, list[str]]]
    ) -> None:
        """Match events in order; `awaited` has, for each shard, the paths by which a name is waited for."""
        for start in range(0, len(works), _AT_ONCE):
            jobs = [
                self._on_shard(work, shard, paths)
                for work in works[start : start + _AT_ONCE]
                for shard, names in zip(self._store.shards, awaited, strict=True)
                if (paths := names.get(work.entry.name))
            ]
            matched = sum(await asyncio.gather(*jobs))
            if matched:
                self._metrics.waits_matched.inc(matched)

    async def _on_shard(self, work: Work, shard: Transitions, paths: list[str]) -> int:
        cancels = [path for path in paths if path.startswith(PATH_MARK)]
        if cancels:
            # First: no run may go on, and end, with the event that cancels it.
            await self._cancel_runs(work, shard, cancels)
        matched = 0
        async for _, rows in self._found(work, shard, [p for p in paths if p not in cancels]):
            hits = [hit for row in rows if (hit := self._check(work, shard, row))]
            blob = work.entry.blob
            done = await asyncio.gather(*(shard.resolve(*hit, "v", blob) for hit in hits))
            matched += sum(done)
        return matched

    async def _found(
        self, work: Work, shard: Transitions, paths: Sequence[str]
    ) -> AsyncIterator[tuple[int, list[Row]]]:
        """Candidates by those paths, in pages: each path's with the length of what comes before the item in its members."""
        pages = [page for path in paths if (page := _page(work, path)) is not None]
        while pages:
            found = await shard.candidates(pages, limit=_PAGE)
            for (_, prefix, _), (rows, _) in zip(pages, found, strict=True):
                yield len(prefix), rows
            pages = [
                (name, prefix, rows[-1][0])
                for (name, prefix, _), (rows, more) in zip(pages, found, strict=True)
                if more and rows
            ]

    async def _cancel_runs(self, work: Work, shard: Transitions, paths: Sequence[str]) -> None:
        async for at, rows in self._found(work, shard, paths):
            runs = [row[0][at : at + 26].decode() for row in rows if self._cancels(work, row)]
            await asyncio.gather(*(self.cancel(shard, run, work.entry) for run in runs))

    def _cancels(self, work: Work, row: Row) -> bool:
        member, record, run_blob = row
        try:
            asked = Registration.read(record)
            # The run's event may be another shard's: what is told by two clocks counts rather than not.
            counts = asked.covers(work.entry.name, work.entry.us, self.skew_us)
            return counts and self.wanted(work, asked.details, run_blob)
        except (ValueError, TypeError, LookupError):
            logger.exception("the cancel registration %r can't be read and has no effect", member)
            return False

    async def cancel(self, shard: Transitions, run: str, entry: Entry) -> None:
        """An event cancels a run; nothing happens if it has ended, or is being cancelled. Raises ServerError."""
        why = reason(entry.name, entry.id)
        await shard.cancel(run, error=why, grace_ms=GRACE_MS, event=entry.id)

    def leads(self, work: Work, asked: Registration) -> bool:
        """Whether the index leads from an event to a registration: to be asked of one that was not found there."""
        page = _page(work, asked.path)
        return page is not None and page[1] == asked.prefix

    def _check(self, work: Work, shard: Transitions, row: Row) -> tuple[str, str, str] | None:
        """The (run, step, registration) to resolve, if the wait really is for this event."""
        member, record, run_blob = row
        try:
            kind, _due, registered, head, name, *_ = luapack.read(record)
            # Only between masters do clocks differ.
            bias = 0 if shard.shard == work.shard else self.skew_us
            late = work.entry.us + bias < registered
            if kind != b"w" or late or name.decode() != work.entry.name:
                return None
            if not self.wanted(work, unpack(head)[3], run_blob):
                return None
        except (ValueError, TypeError, LookupError):
            # One wait that can't be read must not keep the event from the others.
            logger.exception("the wait %r can't be read and is left to its timeout", member)
            return None
        item = member[-43:].decode()
        return item[:26], item[27:], str(int(registered))

    def wanted(self, work: Work, details: Mapping[str, Any], run_blob: bytes) -> bool:
        """Whether a wait with those details, of a run started by that event, is for `work`."""
        if run_blob[:26].decode() == work.entry.id:
            return False  # what started a run isn't news to it, even to a wait that looks back
        event = work.fields()
        for path, value in details.get("values") or ():
            key = index_key(value)
            if key is None or index_key(lookup(path, event)) != key:
                return False
        if not details.get("residual"):
            return True
        try:
            accepted = ulid_ms(run_blob[:26].decode())
            trigger = blob_event(run_blob, accepted).to_dict()
            program = compile(details["expression"])
            return program.evaluate(trigger, event, now_ms=self._store.clock.now_ms()) is True
        except StepwellError:
            # An expression without a value for this event doesn't match it.
            return False


def _page(work: Work, path: str) -> tuple[str, bytes, bytes] | None:
    """Where those are that look for this event's value at `path` ('' = without an equality; cancels have a mark before it)."""
    mark = PATH_MARK if path.startswith(PATH_MARK) else ""
    plain = path[len(mark) :]
    if not plain:
        return work.entry.name, f"{mark}\0{_NO_VALUE}".encode(), b""
    try:
        key = index_key(lookup(plain, work.fields()))
    except FaultError:
        return None
    return None if key is None else (work.entry.name, path.encode() + b"\0" + key, b"")
