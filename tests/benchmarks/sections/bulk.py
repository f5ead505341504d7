"""Parked runs by the hundred thousand: made by the transitions that coordinator and worker use, many in flight."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis

from stepwell.events import Event, encode_event
from stepwell.ids import event_entropy, step_key, ulid_time_chars
from stepwell_engine.entries import USER, Entry
from stepwell_engine.fanout import GROUP, RECORD_TTL_MS
from stepwell_engine.planning import start_all
from stepwell_engine.registry import Registry, register
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Arg, Leased, NewRun
from stepwell_workers import memo
from stepwell_workers.worker import make_worker_id

APP, FN, EVENT = "bench", "run", "bench/run"
CHUNK = 1_000
LEASE = 200
STEP = step_key("nap", 0)

Park = Callable[[int], Sequence[Arg]]
"""The operations with which the n-th run is parked."""


class Bulk:
    """A namespace with one function whose runs are started, leased and parked at full speed."""

    def __init__(self, store: Store, registry: Registry) -> None:
        function = registry.find(APP, FN)
        assert function is not None
        self.store = store
        self.shard = store.home
        self.lane_bell = self.shard.keys.build("bell", APP)
        self._functions = [function]
        self._worker = make_worker_id()
        self._made = 0

    async def start(self, count: int) -> None:
        """Create `count` queued runs, each by an event of 200 bytes with its record."""
        for first in range(0, count, CHUNK):
            await self._create(min(CHUNK, count - first))

    async def lease(self, want: int = LEASE) -> list[Leased]:
        """One call of lease.lua, as a worker makes it."""
        return await self.shard.lease(
            self._worker, token_hex(3), [APP], want=want, lease_ms=20_000, suspects=1
        )

    async def parked(self, count: int, park: Park) -> list[str]:
        """Create `count` runs and park each; their ids."""
        runs: list[str] = []
        for first in range(0, count, CHUNK):
            await self._create(min(CHUNK, count - first))
            while found := await self.lease():
                await asyncio.gather(
                    *(self._park(item, park(len(runs) + at)) for at, item in enumerate(found))
                )
                runs += [item.run_id for item in found]
        return runs

    async def finish(self, items: Sequence[Leased]) -> None:
        """End leased runs."""
        await asyncio.gather(
            *(self.shard.commit(i.run_id, "", i.token, 0, ("F", "c", b"\xc0")) for i in items)
        )

    async def _park(self, item: Leased, ops: Sequence[Arg]) -> None:
        reply = await self.shard.commit(item.run_id, "", item.token, 0, ("S",), ops)
        assert reply[0] == b"OK", reply

    async def _create(self, count: int) -> None:
        runs: list[NewRun] = []
        seed = token_hex(8)
        now = self.store.clock.now_ms()
        for at in range(count):
            name = ulid_time_chars(now) + event_entropy(seed, at)
            entry = Entry(b"", USER, name, EVENT, now * 1000, encoded(self._made))
            self._made += 1
            runs += start_all(entry, self._functions, len(EVENT), 0)
        await self.shard.fanout(GROUP, (), (), runs, record_ttl_ms=RECORD_TTL_MS)


def encoded(number: int) -> bytes:
    """An event of 200 bytes."""
    bare = encode_event(Event(EVENT, {"number": number, "note": "x" * 32}))
    return encode_event(Event(EVENT, {"number": number, "note": "x" * (232 - len(bare))}))


def nap(_: int) -> Sequence[Arg]:
    """Park on a sleep of a week."""
    week = 7 * 86_400_000
    return ("z", STEP, "d", week, memo.head("sleep", "nap", 1_700_000_000_000, {"ms": week}))


@asynccontextmanager
async def bulk(url: str) -> AsyncIterator[Bulk]:
    """A fresh namespace on the server."""
    store = await Store.open(url)
    try:
        config = {"triggers": [{"event": EVENT, "expression": None}]}
        await register(store, [(APP, FN, config)], store.clock.now_ms())
        registry = Registry(store)
        await registry.refresh()
        # A lease of a worker nobody has heard of would look like a dead worker's.
        made = Bulk(store, registry)
        await store.home.renew(made._worker, (), alive_ms=86_400_000, lease_ms=20_000)
        yield made
    finally:
        await store.aclose()


async def scripts_us(redis: "Redis") -> tuple[int, int]:
    """(calls, microseconds) of all scripts since the server started, what they call included."""
    found: dict[str, Any] = await redis.info("commandstats")
    stats = [found[name] for name in ("cmdstat_fcall", "cmdstat_evalsha") if name in found]
    return sum(int(s["calls"]) for s in stats), sum(int(s["usec"]) for s in stats)
