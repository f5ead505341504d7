"""Why a run is not running now: what it waits for itself, and who could run it (semantics §9)."""

import asyncio
import re
from datetime import timedelta

import pytest

from stepwell import (
    Backoff,
    Client,
    Event,
    Explanation,
    Retries,
)
from stepwell.errors import RunNotFoundError
from stepwell.records import RunStatus
from tests.support.explained import GO, START, found_when, run_id_of, start, why
from tests.support.runs import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine_at(stepwell_engine):
    return lambda client, **more: stepwell_engine(client, start=START, **more)


async def test_ends(client, engine_at):
    @client.create_function(fn_id="f", trigger=GO, retries=0)
    async def f(ctx):
        if ctx.event.data.get("fail"):
            raise ValueError("no such thing\nand more")

    async with engine_at(client) as engine:
        found = await why(engine, await start(engine))
        assert (found.reason, found.status, found.function_id) == (
            "completed", RunStatus.COMPLETED, "shop-f",
        )  # fmt: skip
        assert re.search(r"of shop/f completed at 2030-01-01 00:00:0\d UTC", str(found))
        found = await why(engine, await start(engine, {"fail": True}))
        assert found.reason == "failed"
        assert str(found).endswith(": ValueError: no such thing.")
        with pytest.raises(RunNotFoundError, match="no run"):
            await client.explain(found.run_id[:10] + "0" * 16)


async def test_sleeping_and_scheduled(client, engine_at):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await ctx.step.sleep("nap", "7d")

    async with engine_at(client) as engine:
        found = await why(engine, await start(engine))
        assert found.reason == "sleep"
        assert "sleeps in step 'nap' until 2030-01-08 00:00:0" in str(found)
        assert str(found).endswith("UTC (in 7d).")
        assert timedelta(days=7) <= found.until - START < timedelta(days=7, seconds=30)
        later = int((START + timedelta(days=2)).timestamp() * 1000)
        found = await why(engine, await start(engine, ts=later))
        assert (found.reason, found.status) == ("scheduled", RunStatus.SCHEDULED)
        assert "it starts at 2030-01-03 00:00:00 UTC" in str(found)


async def test_waits(client, engine_at):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        kind = ctx.event.data["kind"]
        if kind == "signal":
            await ctx.step.wait_for_signal("ok", signal="approve-7", timeout="1h")
        if_exp = {"if": "async.data.n > 5", "none": "event.data.gone == async.data.gone"}.get(kind)
        match = "data.id" if kind == "match" else None
        await ctx.step.wait_for_event(
            "news", event="t/news", timeout="1h", match=match, if_exp=if_exp
        )

    async with engine_at(client) as engine:
        wanted = {
            "any": "waits in step 'news' for event 't/news' until 2030-01-01 01:00:0",
            "match": "for event 't/news' with data.id == \"o-7\" until",
            "if": "for event 't/news' if async.data.n > 5 until",
            "none": "none can match: event.data.gone == async.data.gone needs a field",
            "signal": "waits in step 'ok' for signal 'approve-7' until",
        }
        for kind, text in wanted.items():
            found = await why(engine, await start(engine, {"kind": kind, "id": "o-7"}))
            assert found.reason == ("signal" if kind == "signal" else "wait")
            assert text in str(found), str(found)


async def test_several_steps_at_once(client, engine_at):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await ctx.group.parallel(
            (
                lambda: ctx.step.sleep("nap", "2h"),
                lambda: ctx.step.wait_for_event("news", event="t/news", timeout="1h"),
            )
        )

    async with engine_at(client) as engine:
        found = await why(engine, await start(engine))
        assert found.reason == "steps"
        assert "waits for 2 steps at once: " in str(found)
        assert "sleeps in step 'nap'" in str(found)
        assert "for event 't/news'" in str(found)
        assert found.until - START < timedelta(hours=1, minutes=1)


async def test_an_invoked_run_is_followed(client, engine_at):
    @client.create_function(fn_id="inner")
    async def inner(ctx):
        await ctx.step.sleep("nap", "3h")

    @client.create_function(fn_id="middle")
    async def middle(ctx):
        await ctx.step.invoke("deeper", function=inner, timeout="1d")

    @client.create_function(fn_id="outer", trigger=GO)
    async def outer(ctx):
        await ctx.step.invoke("deep", function=middle, timeout="1d")

    async with engine_at(client) as engine:
        found = await why(engine, await start(engine))
        assert found.reason == found.because.reason == "invoke"
        assert found.because.because.reason == "sleep"
        assert found.runs == (found.because.run_id, found.because.because.run_id)
        assert "waits in step 'deep' for the run of shop/middle that it invoked" in str(found)
        assert "sleeps in step 'nap'" in str(found)
        assert str(found).count(".") == 1


async def test_retries(client, engine_at):
    hourly = Retries(attempts=3, backoff=Backoff.constant("1h"))

    @client.create_function(fn_id="f", trigger=GO, retries=hourly)
    async def f(ctx):
        def broken():
            raise ValueError("down")

        if ctx.event.data.get("body"):
            broken()
        await ctx.step.run("try", broken)

    async with engine_at(client) as engine:
        step = await start(engine)
        body = await start(engine, {"body": True})
        found = await why(engine, step)
        assert found.reason == "retry"
        assert "retries step 'try' at 2030-01-01 01:00:0" in str(found)
        assert str(found).endswith("after ValueError: down (attempt 2 of 3).")
        found = await why(engine, body)
        assert (found.reason, found.status) == ("retry", RunStatus.WAITING)
        assert "(attempt 2 of 3 of the function's body)" in str(found)
        await engine.advance("61m")
        assert "attempt 3 of 3" in str(await why(engine, step))
        assert "attempt 3 of 3" in str(await why(engine, body))


async def test_no_worker(client, engine_at):
    other = Client(app_id="other")

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx): ...

    @other.create_function(fn_id="g")
    async def g(ctx): ...

    async with engine_at([client, other]) as engine:
        await engine.stop_worker()
        first = await start(engine)
        second = await start(engine)
        await engine.advance("1m")
        found = await why(engine, first)
        assert (found.reason, found.status) == ("no_worker", RunStatus.QUEUED)
        assert "is queued first in line; no worker is alive: start one" in str(found)
        assert "behind 1 run;" in str(await why(engine, second))
        engine.clients.remove(client)
        await engine.start_worker()
        found = await why(engine, first)
        assert found.reason == "no_worker"
        assert "1 worker is alive, and none of them serves app 'shop'" in str(found)


async def test_busy_workers_and_running(client, engine_at):
    hold = {"on": True}

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await until(lambda: not hold["on"], patience=30)

    async with engine_at(client, concurrency=1) as engine:
        await engine.send([Event("t/go"), Event("t/go")])
        async with asyncio.timeout(10):
            reasons: dict[str, Explanation] = {}
            while set(reasons) != {"running", "queued"}:
                await asyncio.sleep(0.002)
                runs = (await client.list_runs()).items
                reasons = {
                    found.reason: found for r in runs if (found := await client.explain(r.id))
                }
        running, queued = reasons["running"], reasons["queued"]
        assert f"is running on worker {engine.worker.worker_id} since" in str(running)
        assert f"busy ({engine.worker.worker_id} holds 1 item)" in str(queued)
        hold["on"] = False
        await engine.settle()


async def test_a_dead_worker_and_its_suspect(client, engine_at):
    hold = {"on": True}

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await until(lambda: not hold["on"], patience=60)

    async with engine_at(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        run = await run_id_of(engine, event_id)
        await found_when(client, run, "running")
        await engine.kill_worker()
        # The process' word ends a quarter before its leases do.
        engine.clock.offset_ms += 16_000
        found = await client.explain(run)
        assert found.reason == "running"
        assert "that worker is not heard of any more, and goes to another when" in str(found)
        await engine.advance("1m")
        found = await client.explain(run)
        assert (found.reason, found.status) == ("suspect", RunStatus.QUEUED)
        assert "its worker died with it" in str(found)
        assert "no worker is alive" in str(found)
        hold["on"] = False
        await engine.start_worker()
        await engine.settle()


async def test_a_step_of_its_own_item_is_held_back(client, engine_at):
    @client.create_function(
        fn_id="f", trigger=GO, concurrency=1, retries=Retries(2, Backoff.constant("1h"))
    )
    async def f(ctx):
        def broken():
            raise ValueError("down")

        await ctx.group.parallel(
            (lambda: ctx.step.run("a", broken), lambda: ctx.step.run("b", broken))
        )

    async with engine_at(client) as engine:
        event_id = await start(engine)
        found = await why(engine, event_id)
        assert found.reason == "retry"
        assert "retries step 'a' at" in str(found)
        assert "retries step 'b' at" in str(found)
        await engine.stop_worker()
        await engine.advance("2h")
        found = await why(engine, event_id)
        assert found.reason == "no_worker"
        assert "its step 'a' is queued" in str(found)
