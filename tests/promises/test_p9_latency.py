"""P9: nothing ready waits for a poll, and idle processes cost next to nothing."""

import asyncio
from statistics import median

import pytest

from stepwell.events import Event
from stepwell.triggers import TriggerEvent

pytestmark = pytest.mark.anyio


async def test_an_idle_system_starts_a_run_at_once(client, stepwell_engine):
    loop = asyncio.get_running_loop()
    began = asyncio.Event()
    at = 0.0

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        nonlocal at
        at = loop.time()
        began.set()

    async with stepwell_engine(client) as engine:
        late = []
        for _ in range(30):
            began.clear()
            sent = loop.time()
            await engine.send(Event("t/go"))
            async with asyncio.timeout(5):
                await began.wait()
            late.append(at - sent)
            await engine.settle()
        # Generous, for machines that are shared: a poll would show as hundreds of milliseconds.
        assert median(late) < 0.05


async def test_each_hop_goes_on_at_once(client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx):
        return 1

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        a = await ctx.step.invoke("child", function=child)
        await ctx.step.sleep("nap", 1)
        return a

    async with stepwell_engine(client) as engine:
        await engine.settle()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(10):
            [event_id] = await engine.send(Event("t/go"))
            assert (await engine.wait(event_id)).output == 1
        assert loop.time() - began < 3.0


async def test_idle_processes_ask_the_server_next_to_nothing(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return None

    async with stepwell_engine(client) as engine:
        await engine.settle()

        async def commands() -> int:
            total = 0
            for info in (await engine.store.server.each_master("INFO", "commandstats")).values():
                for line in bytes(info).decode().splitlines():
                    name, _, rest = line.partition(":")
                    # What scripts call is no round trip; the connections' own pings are.
                    if name.startswith("cmdstat_") and name in _ASKED:
                        total += int(rest.split("calls=")[1].split(",")[0])
            return total

        before = await commands()
        window = 5.0
        await asyncio.sleep(window)
        asked = await commands() - before - 1
        # A coordinator, a worker and its heartbeat, on a few shards.
        assert asked <= 2 * 2 * window


_ASKED = {
    f"cmdstat_{name}"
    for name in (
        "evalsha",
        "eval",
        "blpop",
        "xreadgroup",
        "ping",
        "info",
        "xautoclaim",
        "get",
        "time",
    )
}
