"""What the coordinator's tests share: functions, events and a worker made of bare transitions."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from stepwell.clock import Clock, VirtualClock
from stepwell.events import Event, encode_event
from stepwell.ids import event_entropy, function_shard, run_id, step_key, ulid_ms
from stepwell.serde.values import pack, unpack
from stepwell_engine import expressions
from stepwell_engine.coordinator import Coordinator, Settings
from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer
from stepwell_engine.entries import blob_event
from stepwell_engine.expressions import index_key
from stepwell_engine.registry import register
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Leased, NewEvent

APP = "shop"
SHARDS = 4


def config(*triggers: str | tuple[str, str], **more: Any) -> dict[str, Any]:
    """A function's published config."""
    pairs = [t if isinstance(t, tuple) else (t, None) for t in triggers]
    return {"triggers": [{"event": e, "expression": x} for e, x in pairs], **more}


def on_shard(shard: int) -> str:
    """The id of a function that lives there, of SHARDS."""
    return next(f"fn{i}" for i in range(100) if function_shard(APP, f"fn{i}", SHARDS) == shard)


class World:
    """One namespace on a server, with shortcuts for what client and worker do."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def clock(self) -> VirtualClock:
        assert isinstance(self.store.clock, VirtualClock)
        return self.store.clock

    async def functions(self, **configs: Mapping[str, Any]) -> dict[str, str]:
        rows = [(APP, fn, c) for fn, c in configs.items()]
        numbers = await register(self.store, rows, self.store.clock.now_ms())
        return {fn: number for (_, fn), number in numbers.items()}

    async def send(self, *events: Event, shard: int = 0, hashed: str = "") -> list[str]:
        seed = secrets.token_hex(8)
        new = [
            NewEvent(e.name, encode_event(e), event_entropy(seed, i), hashed)
            for i, e in enumerate(events)
        ]
        stamp, firsts = await self.store.shards[shard].ingest(
            seed, new, max_len=1_000_000, dedupe_ms=86_400_000, deadline=None
        )
        return [f or stamp + n.entropy for f, n in zip(firsts, new, strict=True)]

    async def invoke(self, fn: str, data: dict[str, Any], parent: str = "", shard: int = 0) -> str:
        seed = secrets.token_hex(8)
        encoded = encode_event(Event("inngest/function.invoked", data))
        new = NewEvent(
            "inngest/function.invoked",
            encoded,
            event_entropy(seed, 0),
            "",
            "v",
            pack([APP, fn, parent]),
        )
        stamp, _ = await self.store.shards[shard].ingest(
            seed, [new], max_len=1_000_000, dedupe_ms=86_400_000, deadline=None
        )
        return stamp + new.entropy

    def run_of(self, event: str, fn: str) -> str:
        shard = function_shard(APP, fn, len(self.store.shards))
        return run_id(ulid_ms(event), event, APP, fn, shard)

    async def run(self, run: str) -> dict[str, bytes]:
        key = self.store.of_run(run).keys.run(run)
        flat = await self.store.server.call(key, "HGETALL", key)
        return {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)}

    async def record(self, event: str, shard: int = 0) -> dict[str, Any] | None:
        keys = self.store.keys(shard)
        raw = await self.store.server.call(keys.root, "GET", keys.build("record", event))
        return None if raw is None else msgpack.unpackb(raw)

    async def lease(
        self, *, worker: str = "w1", want: int = 10, shard: int = 0, lease_ms: int = 20_000
    ) -> list[Leased]:
        prefix = secrets.token_hex(4)
        return await self.store.shards[shard].lease(
            worker, prefix, [APP], want=want, lease_ms=lease_ms, suspects=1
        )

    async def finish(self, item: Leased, status: str = "c", payload: Any = None) -> str:
        reply = await self.store.of_run(item.run_id).commit(
            item.run_id, item.step, item.token, 0, ("F", status, pack(payload), b"")
        )
        return reply[0].decode()

    async def wait_for(
        self,
        item: Leased,
        step: str,
        name: str,
        *,
        expression: str | None = None,
        timeout_ms: int = 60_000,
        since: str = "",
    ) -> str:
        """Park a leased run on a wait for an event, as a worker does; returns the step's key."""
        key = step_key(step, 0)
        values: list[tuple[str, Any]] = []
        path, prefix, residual = "", b"\0" + b"0" * 16, False
        if expression is not None:
            program = expressions.compile(expression)
            blob = item.fields[b"e"]
            bound = program.bind(blob_event(blob, 0).to_dict())
            assert bound is not None
            values, residual = list(bound), program.residual
            if values:
                path = values[0][0]
                found = index_key(values[0][1])
                assert found is not None
                prefix = path.encode() + b"\0" + found
        details = {
            "event": name,
            "expression": expression,
            "values": values,
            "residual": residual,
            "timeout_ms": timeout_ms,
        }
        head = pack(["wait", step, 0, details])
        reply = await self.store.of_run(item.run_id).commit(
            item.run_id,
            "",
            item.token,
            0,
            ("S",),
            ("w", key, timeout_ms, name, prefix, path, head, since),
        )
        assert reply[0] == b"OK", reply
        return key


def delivered(run: Mapping[str, bytes], key: str) -> tuple[str, bytes] | None:
    """What a waiting step got: its status letter and value."""
    record = run.get(f"s:{key}")
    if record is None:
        return None
    status, _, _, value = msgpack.unpackb(record[1:], raw=True)
    return status.decode(), value


@asynccontextmanager
async def world(
    server: EmbeddedServer | EmbeddedCluster, shards: int = 1, *, clock: Clock | None = None
) -> AsyncIterator[World]:
    """A fresh namespace."""
    store = await Store.open(
        server.url,
        namespace=f"t{secrets.token_hex(6)}",
        shards=shards,
        clock=clock or VirtualClock(),
    )
    try:
        yield World(store)
    finally:
        await store.aclose()


FAST = Settings(block_ms=1_000, claim_ms=200, sweep_every_ms=100_000, sample_every_ms=100_000)


def coordinator(world: World, **options: Any) -> Coordinator:
    """A coordinator that claims soon."""
    return Coordinator(world.store, **{"settings": FAST, **options})


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    """The first true value of `look`."""
    async with asyncio.timeout(seconds):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(0.005)


async def settled(*coordinators: Coordinator) -> None:
    """Wait until all that was sent is handled."""
    await until(coordinators[0].idle)


__all__ = [
    "APP",
    "FAST",
    "SHARDS",
    "World",
    "config",
    "coordinator",
    "delivered",
    "on_shard",
    "settled",
    "unpack",
    "until",
    "world",
]
