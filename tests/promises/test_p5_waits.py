"""P5: a wait sees an event iff it was accepted at or after the wait's registration; match and timeout never both apply."""

import asyncio
from collections import Counter

import pytest

from stepwell.events import Event
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from tests.support.runs import run_of, step, until

pytestmark = pytest.mark.anyio


async def test_an_event_accepted_before_the_wait_is_not_seen(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        await ctx.step.sleep("late", "1m")
        found = await ctx.step.wait_for_event("news", event="t/news", timeout="1h")
        return None if found is None else found.data["n"]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send(Event("t/news", {"n": "early"}))
        await engine.advance("2m")
        await engine.send(Event("t/news", {"n": "after"}))
        assert (await engine.wait(event_id)).output == "after"


async def test_every_wait_of_many_sees_the_event(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        found = await ctx.step.wait_for_event("news", event="t/news", timeout="1h")
        return None if found is None else found.data["n"]

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/go"))
    async def g(ctx):
        found = await ctx.step.wait_for_event(
            "news", event="t/news", match="data.key", timeout="1h"
        )
        return None if found is None else found.data["n"]

    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go", {"key": n % 2}) for n in range(60)])
        await engine.settle()
        await engine.send(Event("t/news", {"n": "x", "key": 1}))
        await engine.advance("2h")
        told = Counter((run.fn_id, run.output) for run in await engine.runs())
        assert told == {("f", "x"): 60, ("g", "x"): 30, ("g", None): 30}


async def test_match_and_timeout_never_both_apply(client, stepwell_engine):
    seen: dict[int, set[str]] = {}

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        found = await ctx.step.wait_for_event("news", event="t/news", match="data.n", timeout="10s")
        result = "timeout" if found is None else "match"
        seen.setdefault(ctx.event.data["n"], set()).add(result)
        await ctx.step.sleep("replay", "1s")
        return result

    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"n": n}) for n in range(100)])
        await engine.settle()
        # At the very time when all of them fall due, their events come in.
        engine.clock.offset_ms += 10_000
        engine.coordinator.poke()
        await asyncio.gather(*(engine.send(Event("t/news", {"n": n})) for n in range(100)))
        await engine.advance("1m")
        runs = [await engine.wait(event_id) for event_id in ids]
        assert all(run.status is RunStatus.COMPLETED for run in runs)
        for n, run in enumerate(runs):
            assert seen[n] == {run.output}
            assert step(run, "news").ended_at is not None


async def test_an_event_sent_by_the_waiting_run_itself_is_seen(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        async def ask():
            await ctx.step.send_event("ask", Event("t/question", {"id": ctx.run_id}))

        async def answer():
            return await ctx.step.wait_for_event(
                "answer", event="t/answer", if_exp=f"async.data.id == '{ctx.run_id}'", timeout="1h"
            )

        _, found = await ctx.group.parallel((ask, answer))
        return found.data["text"]

    @client.create_function(fn_id="oracle", trigger=TriggerEvent("t/question"))
    async def oracle(ctx):
        await ctx.step.sleep("think", "1s")
        await ctx.step.send_event(
            "say", Event("t/answer", {"id": ctx.event.data["id"], "text": "42"})
        )

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1m")
        assert run.output == "42"


async def test_cancel_always_cancels_wherever_the_run_is(client, stepwell_engine):
    inside: list[str] = []
    cleaned: list[str] = []

    async def slow():
        inside.append("slow")
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("slow")

    @client.create_function(fn_id="sleeps", trigger=TriggerEvent("t/go"))
    async def sleeps(ctx):
        await ctx.step.sleep("nap", "1d")

    @client.create_function(fn_id="waits", trigger=TriggerEvent("t/go"))
    async def waits(ctx):
        await ctx.step.wait_for_event("news", event="t/news", timeout="1d")

    @client.create_function(fn_id="runs", trigger=TriggerEvent("t/go"))
    async def runs(ctx):
        await ctx.step.run("slow", slow)

    @client.create_function(fn_id="retries", trigger=TriggerEvent("t/go"))
    async def retries(ctx):
        raise RuntimeError("again")

    @client.create_function(fn_id="later", trigger=TriggerEvent("t/later"))
    async def later(ctx):
        inside.append("later")

    async with stepwell_engine(client) as engine:
        at = engine.clock.now_ms() + 3_600_000
        [first, second] = await engine.send([Event("t/go"), Event("t/later", ts=at)])
        await until(lambda: inside)
        ids = (await engine.event(first)).run_ids + (await engine.event(second)).run_ids
        assert len(ids) == 5
        before = [await engine.run(run_id) for run_id in ids]
        assert {r.fn_id: r.status for r in before}["later"] is RunStatus.SCHEDULED
        for run_id in ids:
            await engine.client.cancel_run(run_id, reason="enough")
            await engine.client.cancel_run(run_id)
        ended = [await engine.wait(run_id) for run_id in ids]
        assert {run.status for run in ended} == {RunStatus.CANCELLED}
        assert {run.error.message for run in ended} == {"enough"}
        assert cleaned == ["slow"]
        await engine.send(Event("t/news"))
        await engine.advance("3d")
        assert [await engine.run(run_id) for run_id in ids] == ended
        assert inside == ["slow"]
