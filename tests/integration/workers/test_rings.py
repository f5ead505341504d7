"""A ring that reaches a worker without a free place goes on to one that has."""

import asyncio

import pytest

from stepwell.events import Event
from stepwell.triggers import TriggerEvent
from stepwell_workers import fetch
from stepwell_workers.worker import Worker
from tests.support.runs import until

pytestmark = pytest.mark.anyio


async def test_a_worker_without_a_free_place_rings_on(client, stepwell_engine, monkeypatch):
    monkeypatch.setattr(fetch, "BLOCK", 3600.0)  # nobody looks without being rung for
    release, entered = asyncio.Event(), []

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        entered.append(ctx.run_id)
        await release.wait()

    async with stepwell_engine(client, concurrency=1, shards=1) as engine:
        [first] = await engine.send(Event("t/go"))
        await until(lambda: len(entered) == 1)
        rival = Worker(
            [client], url=engine.url, namespace=engine.namespace, shards=1, clock=engine.clock
        )
        await rival.start()
        try:
            # The first worker's blocking call is the older one: the bell's next ring is its.
            await asyncio.sleep(0.1)
            [second] = await engine.send(Event("t/go"))
            await until(lambda: len(entered) == 2, patience=5)
        finally:
            release.set()
            for event_id in (first, second):
                await engine.wait(event_id)
            await rival.stop()
