"""P8: memory is bounded by live runs plus the retention; every key has a TTL or an owner."""

import asyncio

import pytest

from stepwell.errors import NonRetriableError
from stepwell.events import Event
from stepwell.testing.engine import Engine
from stepwell.triggers import TriggerEvent
from stepwell_engine.store.keys import spec_of
from tests.support.runs import until

pytestmark = pytest.mark.anyio


async def keys_of(engine: Engine) -> dict[str, int]:
    """All keys of the namespace and their TTL in ms (-1: none)."""
    found: dict[str, int] = {}
    server = engine.store.server
    for shard in engine.store.shards:
        cursor = 0
        while True:
            cursor, keys = await server.call(
                shard.keys.root, "SCAN", cursor, "MATCH", f"{shard.keys.root}:*", "COUNT", 1000
            )
            for key in keys:
                found[key.decode()] = await server.call(key.decode(), "PTTL", key)
            if int(cursor) == 0:
                break
    return found


async def test_nothing_is_left_of_ended_runs_after_the_retention(client, stepwell_engine):
    @client.create_function(fn_id="all", trigger=TriggerEvent("t/go"))
    async def everything(ctx):
        n = ctx.event.data["n"]
        await ctx.step.run("a", lambda: "x" * 100)
        await ctx.step.sleep("nap", "1m")
        await ctx.step.wait_for_event("news", event="t/news", match="data.n", timeout="1h")
        await ctx.step.invoke("child", function=child, data={"n": n})
        await ctx.step.wait_for_signal("signal", signal=f"signal-{n}", timeout="1h")
        await ctx.step.send_event("tell", Event("t/told", {"n": n}))
        if n % 3 == 0:
            raise NonRetriableError("third")
        return n

    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("nap", "1m")
        return ctx.event.data["n"]

    @client.create_function(fn_id="told", trigger=TriggerEvent("t/told"))
    async def told(ctx):
        await ctx.step.wait_for_event("never", event="t/never", timeout="10d")

    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go", {"n": n}, id=f"go-{n}") for n in range(30)])
        await engine.advance("5m")
        await engine.send([Event("t/news", {"n": n}) for n in range(0, 30, 2)])
        await engine.advance("1h")
        for n in range(0, 30, 3):
            await engine.client.send_signal(f"signal-{n}", n)
        await engine.advance("30d")
        runs = await engine.runs()
        assert len(runs) == 90
        assert all(run.status.ended for run in runs)
        await engine.advance("366d")
        await engine.coordinator._retention.sweep()
        left = await keys_of(engine)
        unowned = {
            key: ttl
            for key, ttl in left.items()
            if ttl < 0 and spec_of(key).life not in ("namespace", "process")
        }
        assert unowned == {}
        streams = [key for key in left if spec_of(key).type == "stream"]
        assert [await engine.store.server.call(key, "XLEN", key) for key in streams] == [0] * len(
            streams
        )


async def test_cancelled_runs_leave_no_timer_wait_or_signal(client, stepwell_engine):
    inside: list[int] = []

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        async def held():
            inside.append(1)
            await asyncio.Event().wait()

        await asyncio.gather(
            ctx.step.sleep("nap", "1d"),
            ctx.step.wait_for_event("any", event="t/a", timeout="1d"),
            ctx.step.wait_for_event("matched", event="t/b", match="data.x", timeout="1d"),
            ctx.step.wait_for_signal("signal", signal="s", timeout="1d"),
            ctx.step.run("held", held),
        )

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go", {"x": 1}))
        await until(lambda: inside)
        [run_id] = (await engine.event(event_id)).run_ids
        await engine.client.cancel_run(run_id)
        await engine.wait(run_id)
        await engine.settle()
        kinds = {spec_of(key).name for key, ttl in (await keys_of(engine)).items() if ttl < 0}
        assert not kinds & {
            "due",
            "leases",
            "waits",
            "wait_paths",
            "resumes",
            "starts",
            "ready_keys",
            "ready_fns",
        }
