"""What a shard owes others: kept and tried again until it is delivered, whatever stands against it, and holding up nothing else."""

import asyncio

import pytest

from stepwell.clock import SystemClock
from stepwell.events import Event, encode_event
from stepwell.ids import step_key
from stepwell.serde.values import pack
from stepwell_engine.deliver import Delivery, undelivered
from stepwell_engine.doctor import Level, examine
from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from tests.integration.coordination import (
    APP,
    SHARDS,
    World,
    config,
    coordinator,
    delivered,
    on_shard,
    settled,
    unpack,
    until,
    world,
)
from tests.support.audit import violations

pytestmark = pytest.mark.anyio


async def owe(store: Store, shard: int, *fields: str | bytes) -> None:
    """An entry of a shard's outbox: kind, a, b, c, d."""
    key = store.keys(shard).outbox
    pairs = [each for pair in zip("kabcd", fields, strict=True) for each in pair]
    await store.server.call(key, "XADD", key, "*", *pairs)


async def owed(store: Store, shard: int) -> int:
    key = store.keys(shard).outbox
    return int(await store.server.call(key, "XLEN", key))


async def kept(store: Store, shard: int) -> list[str]:
    return [each.error async for each in undelivered(store, shard)]


async def sound(w: World) -> None:
    assert await violations(w.store.server, w.store.namespace, len(w.store.shards)) == []


async def test_a_parent_that_cannot_be_told_is_told_when_it_can(
    four: World, caplog: pytest.LogCaptureFixture
) -> None:
    parent_fn, child_fn = on_shard(0), on_shard(3)
    await four.functions(**{parent_fn: config("order/created"), child_fn: config()})
    async with coordinator(four) as c:
        await four.send(Event("order/created"))
        await settled(c)
        (parent,) = await four.lease()
        keys = [step_key(name, 0) for name in ("one", "two")]
        for entropy, key in zip(("C" * 16, "D" * 16), keys, strict=True):
            details = {"app": APP, "fn": child_fn, "entropy": entropy, "timeout_ms": 60_000}
            target = pack([APP, child_fn, f"{parent.run_id}:{key}"])
            encoded = encode_event(Event("inngest/function.invoked"))
            await four.store.shards[0].commit(
                parent.run_id, "", parent.token, 0, ("N",),
                ("i", key, 60_000, pack(["invoke", "x", 0, details]), encoded, entropy, target, ""),
            )  # fmt: skip
        await settled(c)
        children = {
            (await four.run(item.run_id))["pa"][27:].decode(): item
            for item in await four.lease(shard=3)
        }
        # What the parent has about its first step can't be read: a fault that the message meets in a script.
        call, run = four.store.server.call, four.store.keys(0).run(parent.run_id)
        pending = await call(run, "HGET", run, f"p:{keys[0]}")
        await call(run, "HSET", run, f"p:{keys[0]}", b"\xc1")
        for n, key in enumerate(keys):
            await four.finish(children[key], "c", n)
        await settled(c)
        answer = delivered(await four.run(parent.run_id), keys[1])
        assert answer is not None, "the other message is not held up"
        assert unpack(answer[1]) == 1
        assert delivered(await four.run(parent.run_id), keys[0]) is None
        assert f"the result of step {keys[0]} for run {parent.run_id}" in caplog.text
        (error,) = await kept(four.store, 3)
        assert error.startswith("ResponseError: ")
        assert c.metrics.registry.get_sample_value("stepwell_deliveries_failed_total") == 1
        assert c.metrics.registry.get_sample_value("stepwell_deliveries_kept") == 1
        await c._delivery.retry()
        assert c.metrics.registry.get_sample_value("stepwell_deliveries_kept") == 1
        await _named_by_doctor(four, f"the result of step {keys[0]} for run {parent.run_id}")
        await call(run, "HSET", run, f"p:{keys[0]}", pending)
        await c._delivery.retry()
        answer = delivered(await four.run(parent.run_id), keys[0])
        assert answer is not None
        assert unpack(answer[1]) == 0
        assert await kept(four.store, 3) == []
        assert c.metrics.registry.get_sample_value("stepwell_deliveries_kept") == 0
        await sound(four)


async def _named_by_doctor(w: World, text: str) -> None:
    findings = await examine(w.store, SystemClock(), audit=False)
    found = [f.text for f in findings if f.level is Level.PROBLEM and f.check == "outbox"]
    assert len(found) == 2, found
    assert f"shard 3: {text} can't be delivered: ResponseError: " in found[0]
    assert found[1].startswith("shard 3: 1 message set aside; coordinators try again")


async def test_messages_about_permits_are_kept(four: World) -> None:
    gate = "Cabcdefghijkl"
    async with coordinator(four) as c:
        call, slots = four.store.server.call, four.store.keys(1).build("slots", gate)
        await call(slots, "SET", slots, "not a set")
        await owe(four.store, 0, "g", "1", gate, "0-1", "1 5")
        await owe(four.store, 0, "h", "1", gate, "0-2", "")
        await settled(c)
        assert len(await kept(four.store, 0)) == 2
        await c._delivery.retry()
        assert len(await kept(four.store, 0)) == 2
        await call(slots, "DEL", slots)
        await c._delivery.retry()
        await settled(c)
        # It was granted, and given back: nobody wants it any more.
        assert await kept(four.store, 0) == []
        assert await call(slots, "EXISTS", slots) == 0
        await sound(four)


async def test_what_a_later_version_owes_waits_for_it(
    four: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator(four) as c:
        await owe(four.store, 2, "Z", "1", "b", "c", "d")
        await owe(four.store, 2, "r", "not a run", "b", "c", "d")
        await settled(c)
        assert len(await kept(four.store, 2)) == 2
        told = [row.flat[1] async for row in undelivered(four.store, 2)]
        assert sorted(told) == [b"Z", b"r"]
        later: list[bytes] = []

        async def deliver(self: Delivery, shard: int, flat: list[bytes]) -> None:
            later.append(flat[1])

        monkeypatch.setattr(Delivery, "_deliver", deliver)
        await c._delivery.retry()
        assert sorted(later) == [b"Z", b"r"]
        assert await kept(four.store, 2) == []


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["full", "read-only"],
)
async def test_a_server_that_cannot_write_just_now(
    server: EmbeddedServer, four: World, away: tuple[str, ...], back: tuple[str, ...]
) -> None:
    store = four.store
    event = "01J8ZQ4Y9V2D6N3X5K7M1C0B8A"
    encoded = encode_event(Event("order/created", id="mine"))
    await owe(store, 0, "e", "2", event, "order/created\0", encoded)
    outbox = store.keys(0).outbox
    await store.server.call(outbox, "XGROUP", "CREATE", outbox, "stepwell", "0")
    ((_, rows),) = await store.server.call(
        outbox, "XREADGROUP", "GROUP", "stepwell", "me", "STREAMS", outbox, ">"
    )
    delivery = Delivery(store, Registry(store), Metrics())
    server.command(*away)
    try:
        async with asyncio.timeout(5):
            await delivery.handle(0, rows)
        # A claim brings it again while it is on its way.
        async with asyncio.timeout(0.5):
            await delivery.handle(0, rows)
        assert await owed(store, 0) == 1
    finally:
        server.command(*back)
    try:

        async def struck_off() -> bool:
            return await owed(store, 0) == 0

        await until(struck_off)
    finally:
        await delivery.close()
    events = store.keys(2).events
    assert await store.server.call(events, "XLEN", events) == 1
    assert await store.server.call(outbox, "XPENDING", outbox, "stepwell") == [0, None, None, None]
    assert await kept(store, 0) == []


async def test_a_shard_that_is_away_holds_up_no_message_to_others() -> None:
    with EmbeddedCluster() as cluster:
        async with world(cluster, SHARDS) as w, coordinator(w) as c:
            call, keys = w.store.server.call, [w.store.keys(s) for s in range(SHARDS)]
            owners = [cluster.owner(await call(k.root, "CLUSTER", "KEYSLOT", k.root)) for k in keys]
            near = next(s for s in range(1, SHARDS) if owners[s] is not owners[0])
            there = next(s for s in range(1, SHARDS) if owners[s] is not owners[near])
            owners[near].command("CLIENT", "PAUSE", 4000)
            for n in range(20):
                for shard in (near, there):
                    event, encoded = f"01J8ZQ4Y9V2D6N3X5K7M1C0{n:03d}", encode_event(Event("a/b"))
                    await owe(w.store, 0, "e", str(shard), event, "a/b\0", encoded)

            async def half_done() -> bool:
                return await owed(w.store, 0) <= 20

            await until(half_done, 3.5)
            await until(c.idle)
