"""The next lease is on its way while the items of the last begin, and one under way when the worker stops is not forgotten."""

import asyncio

import pytest

from stepwell.events import Event
from stepwell.triggers import TriggerEvent
from stepwell_engine.store.transitions import Transitions
from stepwell_workers import fetch
from stepwell_workers.worker import Worker
from tests.integration import coordination
from tests.support.runs import until

pytestmark = pytest.mark.anyio


async def created(engine, count):
    async def look():
        return len(await engine.runs("f")) == count

    await coordination.until(look)


async def test_the_next_lease_does_not_wait_for_the_items_of_the_last(
    client, stepwell_engine, monkeypatch
):
    monkeypatch.setattr(fetch, "MOST", 80)
    lease, begin = Transitions.lease, Worker._begin
    begun: list[str] = []
    asked: list[int] = []
    inside: set[str] = set()
    most = 0

    async def counted(shard, *args, **more):
        asked.append(len(begun))
        return await lease(shard, *args, **more)

    def noted(worker, shard, leased):
        begun.append(leased.run_id)
        begin(worker, shard, leased)

    monkeypatch.setattr(Transitions, "lease", counted)
    monkeypatch.setattr(Worker, "_begin", noted)

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        nonlocal most
        inside.add(ctx.run_id)
        most = max(most, len(inside))
        await ctx.step.run("one", int)
        inside.remove(ctx.run_id)

    async with stepwell_engine(client, concurrency=200, shards=1) as engine:
        await engine.stop_worker()
        ids = await engine.send([Event("t/go")] * 240)
        await created(engine, 240)
        asked.clear()
        await engine.start_worker()
        for event_id in ids:
            await engine.wait(event_id)
    assert len(begun) == len(set(begun)) == 240
    assert asked[0] == 0
    assert asked[1] < 80
    assert most <= 200


async def test_items_that_come_while_the_worker_stops_go_back_at_once(
    client, stepwell_engine, monkeypatch
):
    lease = Transitions.lease
    stopping: list[asyncio.Task[None]] = []

    async def late(shard, *args, **more):
        taken = await lease(shard, *args, **more)
        if taken and not stopping:
            worker = engine.worker
            stopping.append(asyncio.create_task(engine.stop_worker()))
            await until(lambda: worker.services.draining)
        return taken

    monkeypatch.setattr(Transitions, "lease", late)

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return await ctx.step.run("one", int)

    async with stepwell_engine(client, shards=1) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await until(lambda: stopping)
        await stopping[0]
        leases = engine.store.shards[0].keys.build("leases")
        assert await engine.store.server.call(leases, "ZCARD", leases) == 0
        await engine.start_worker()
        run = await engine.wait(event_id)
        assert run.output == 0
