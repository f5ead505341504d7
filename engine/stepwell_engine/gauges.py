"""Samples what no event tells: how much waits in the queues and for how long, and how many workers live."""

import asyncio
from itertools import islice
from typing import Any, Final

from stepwell_engine.loop import time_ms
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store

_FUNCTIONS: Final = 500
_KEYS: Final = 100  # of one function and shard; the rest of many keys is not counted


class Gauges:
    """Fills the gauges of `metrics`; one sample costs four round trips, whatever the number of functions."""

    __slots__ = ("_metrics", "_registry", "_store")

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._registry = registry
        self._metrics = metrics

    async def sample(self) -> None:
        """Look once. Raises ServerError."""
        call = self._store.server.call
        home = self._store.keys(0)
        now = time_ms(await call(home.root, "TIME")) + self._store.clock.offset_ms
        self._metrics.workers.set(
            await call(home.root, "ZCOUNT", home.build("workers"), now, "+inf")
        )
        functions = list(islice(self._registry.all(removed=True), _FUNCTIONS))
        keys = [self._store.keys(f.shard) for f in functions]
        ready: list[list[bytes]] = await asyncio.gather(
            *(
                call(k.root, "ZRANGE", k.build("ready_keys", f.number), 0, _KEYS - 1)
                for f, k in zip(functions, keys, strict=True)
            )
        )
        queues = [
            (at, keys[at].root, keys[at].build(kind, functions[at].number, key.decode()))
            for at, found in enumerate(ready)
            for key in found
            for kind in ("resumes", "starts")
        ]
        counts, heads = await asyncio.gather(
            asyncio.gather(*(call(root, "ZCARD", key) for _, root, key in queues)),
            asyncio.gather(
                *(call(root, "ZRANGE", key, 0, 0, "WITHSCORES") for _, root, key in queues)
            ),
        )
        self._set(functions, [at for at, _, _ in queues], counts, heads, now)

    def _set(
        self, functions: list[Any], owners: list[int], counts: list[int], heads: list[Any], now: int
    ) -> None:
        depth = [0] * len(functions)
        oldest = [0.0] * len(functions)
        for at, count, head in zip(owners, counts, heads, strict=True):
            depth[at] += count
            if head:
                oldest[at] = max(oldest[at], (now - float(head[1])) / 1000)
        for function, count, age in zip(functions, depth, oldest, strict=True):
            self._metrics.queue_depth.labels(function.app, function.fn).set(count)
            self._metrics.queue_oldest.labels(function.app, function.fn).set(age)
