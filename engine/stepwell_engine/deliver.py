"""The outbox: what a shard owes others is brought there, then struck off. At least once; every effect is idempotent."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

from stepwell.errors import RunCancelledError
from stepwell.ids import function_shard, run_id, ulid_time_chars
from stepwell.serde.values import unpack
from stepwell_engine.fanout import GROUP, packed_error
from stepwell_engine.loop import TROUBLE
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NewEvent

CANCEL_GRACE_MS: Final = 10_000
DEDUPE_MS: Final = 86_400_000
_NO_LIMIT: Final = (
    1 << 50
)  # an owed event was accepted already: a full stream is no reason to drop it

logger = logging.getLogger("stepwell.coordinator")

Row = tuple[bytes, list[bytes]]


class Delivery:
    """Delivers entries of outboxes.

    r resolves a step, e accepts an event, c cancels an invoked run, C that with those it invoked, g, G and h are about permits.
    """

    __slots__ = ("_cancelled", "_metrics", "_registry", "_store")

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._registry = registry
        self._metrics = metrics
        self._cancelled = packed_error(RunCancelledError("the run that invoked it has ended"))

    async def handle(self, shard: int, rows: Iterable[Row]) -> None:
        """Deliver entries and strike them off. Raises ServerError; undelivered ones stay for the next claim."""
        rows = list(rows)
        if not rows:
            return
        results = await asyncio.gather(
            *(self._deliver(shard, flat) for _, flat in rows), return_exceptions=True
        )
        done: list[bytes] = []
        trouble: BaseException | None = None
        for (sid, flat), result in zip(rows, results, strict=True):
            if isinstance(result, TROUBLE) or (
                isinstance(result, BaseException) and not isinstance(result, Exception)
            ):
                trouble = result
                continue
            if result is not None:
                self._metrics.events_poison.inc()
                logger.error(
                    "outbox entry %s of shard %d is given up: %r",
                    sid,
                    shard,
                    flat[:8],
                    exc_info=result,
                )
            done.append(sid)
        if done:
            keys, call = self._store.keys(shard), self._store.server.call
            # In this order: an entry that is deleted and pending is found by whoever claims it. The other way round nobody would look
            # for it again, and as the oldest of its stream it would keep every run from being swept.
            await asyncio.gather(
                call(keys.root, "XDEL", keys.outbox, *done),
                call(keys.root, "XACK", keys.outbox, GROUP, *done),
            )
        if trouble is not None:
            raise trouble

    async def _deliver(self, shard: int, flat: list[bytes]) -> None:
        _, kind, _, a, _, b, _, c, _, d = flat
        match kind:
            case b"r":
                run = a.decode()
                await self._store.of_run(run).resolve(run, b.decode(), "", c.decode(), d)
            case b"e":
                await self._accept(int(a), b.decode(), c, d)
            case b"c":
                await self._cancel_child(unpack(c), int(d))
            case b"C":
                await self._cancel_child(unpack(c), int(d), children=True)
            case b"g" | b"G" | b"h":
                await self._store.shards[int(a)].permit(
                    kind.decode(), b.decode(), c.decode(), word=d, home=shard
                )
            case _:
                raise ValueError(f"an outbox entry of unknown kind {kind!r}")

    async def _accept(self, shard: int, event: str, names: bytes, encoded: bytes) -> None:
        name, _, id_hash = names.decode().rpartition("\0")
        await self._store.shards[shard].ingest(
            event,  # the seed: an entry delivered twice is accepted once
            [NewEvent(name, encoded, event, id_hash)],
            max_len=_NO_LIMIT,
            dedupe_ms=DEDUPE_MS,
            deadline=None,
        )

    async def _cancel_child(
        self, head: list[Any], registered_us: int, *, children: bool = False
    ) -> None:
        details = head[3]
        app, fn = details["app"], details["fn"]
        function = self._registry.find(app, fn)
        if function is None:
            # The registry may be older than the invoke.
            await self._registry.refresh()
            function = self._registry.find(app, fn)
        if function is None:
            return
        ms = registered_us // 1000
        event = ulid_time_chars(ms) + details["entropy"]
        child = run_id(ms, event, app, fn, function_shard(app, fn, len(self._store.shards)))
        await self._store.of_run(child).cancel(
            child,
            error=self._cancelled,
            grace_ms=CANCEL_GRACE_MS,
            tombstone=function.number,
            children=children,
        )
