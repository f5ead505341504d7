"""Old runs go after the retention, and so does what processes that are gone left: stream consumers, functions of old versions."""

import asyncio
from typing import Any, Final

from stepwell_engine.fanout import GROUP
from stepwell_engine.loop import time_ms
from stepwell_engine.metrics import Metrics
from stepwell_engine.store.scripts import load
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NAMES

MIN_RETENTION_MS: Final = 60_000
"""Longer than a stale batch may live (`reader.STALE_S`), so that none can start a swept run again."""

_LIMIT: Final = 500
_ROUNDS: Final = 20
SWEEP_BOUND: Final = _LIMIT * _ROUNDS
"""When one `sweep` removed so many, more may be left."""
_DEAD_MS: Final = 3_600_000


class Retention:
    """Removes runs `retention_ms` after their end, never one that an entry of any stream may still mean."""

    __slots__ = ("_metrics", "_retention_ms", "_store")

    def __init__(self, store: Store, retention_ms: int, metrics: Metrics) -> None:
        self._store = store
        self._retention_ms = retention_ms
        self._metrics = metrics

    async def sweep(self) -> int:
        """Remove what may go, a bounded number; how many. Raises ServerError."""
        removed = 0
        for _ in range(_ROUNDS):
            # Asked again each round: an entry may have come that means an old run.
            before = await self.watermark()
            counts = await asyncio.gather(
                *(s.sweep(before, limit=_LIMIT) for s in self._store.shards)
            )
            removed += sum(counts)
            if max(counts) < _LIMIT:
                break
        if removed:
            self._metrics.runs_swept.inc(removed)
        return removed

    async def watermark(self) -> int:
        """The engine time (ms) before which ended runs may go."""
        handled, now = await self.handled()
        return min(now - self._retention_ms, handled)

    async def handled(self) -> tuple[int, int]:
        """The engine time (ms) before which every accepted event is handled and every message delivered, and the time now."""
        call = self._store.server.call
        shards = [shard.keys for shard in self._store.shards]
        # Handled entries are deleted with their effects, so the first of a stream is the oldest that is
        # undelivered or pending.
        events = [call(k.root, "XRANGE", k.events, "-", "+", "COUNT", 1) for k in shards]
        owed = [call(k.root, "XRANGE", k.outbox, "-", "+", "COUNT", 1) for k in shards]
        now, *firsts = await asyncio.gather(call(shards[0].root, "TIME"), *events, *owed)
        engine_ms = time_ms(now) + self._store.clock.offset_ms
        ages = [
            (_accepted_ms if at < len(events) else _stream_ms)(rows[0])
            for at, rows in enumerate(firsts)
            if rows
        ]
        return min([engine_ms, *ages]), engine_ms

    async def forget_processes(self, me: str) -> None:
        """Delete consumers that are silent for an hour and owe nothing, and functions of old versions. Raises ServerError."""
        await self._store.server.tidy_functions({load(name).function for name in NAMES})
        await asyncio.gather(
            *(s.forget_consumers(GROUP, me, idle_ms=_DEAD_MS) for s in self._store.shards)
        )


def _stream_ms(row: Any) -> int:
    # The server's real time: never above engine time, whose offset only adds.
    return int(bytes(row[0]).partition(b"-")[0])


def _accepted_ms(row: Any) -> int:
    try:
        return int(row[1][7]) // 1000
    except (IndexError, ValueError):
        return _stream_ms(row)
