"""Why a run that flow control holds back is not running now (semantics §9)."""

import asyncio
import re
from datetime import timedelta

import pytest

from stepwell import (
    Batch,
    Concurrency,
    Debounce,
    Event,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    TriggerEvent,
)
from stepwell.events import encode_event
from stepwell.records import RunStatus
from stepwell_engine.gateway import StoreGateway
from tests.support.explained import GO, START, found_when, run_id_of, start, why
from tests.support.runs import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine_at(stepwell_engine):
    return lambda client, **more: stepwell_engine(client, start=START, **more)


async def test_concurrency(client, engine_at):
    limit = Concurrency(limit=1, key="event.data.tenant", level="run")

    @client.create_function(fn_id="f", trigger=GO, concurrency=limit)
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")

    async with engine_at(client) as engine:
        first = await start(engine, {"tenant": "t1"})
        others = [await start(engine, {"tenant": "t1"}) for _ in range(2)]
        free = await start(engine, {"tenant": "t2"})
        assert (await why(engine, free)).reason == "sleep"
        holder = await run_id_of(engine, first)
        found = await why(engine, others[1])
        assert (found.reason, found.status, found.runs) == (
            "concurrency", RunStatus.QUEUED, (holder,),
        )  # fmt: skip
        text = str(found)
        assert 'concurrency limit of 1 run of event.data.tenant = "t1"' in text
        assert f"held by run {holder} of shop/f since 2030-01-01 00:00:0" in text
        assert text.endswith("1 run of its queue before it.")
        assert "first of its queue" in str(await why(engine, others[0]))
        await engine.advance("70m")
        assert (await why(engine, others[0])).reason == "sleep"
        await engine.advance("3h")


async def test_a_limit_that_events_give(client, engine_at):
    limit = Concurrency("event.data.most", key="event.data.tenant", level="run")

    @client.create_function(fn_id="f", trigger=GO, concurrency=limit)
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")

    async with engine_at(client) as engine:
        for _ in range(3):
            last = await start(engine, {"tenant": "t1", "most": 2})
        assert "concurrency limit of 2 runs of event.data.tenant" in str(await why(engine, last))
        await start(engine, {"tenant": "t1", "most": 1})
        assert "concurrency limit of 1 run of event.data.tenant" in str(await why(engine, last))
        await start(engine, {"tenant": "t2"})
        never = await start(engine, {"tenant": "t2", "most": "many"})
        assert "concurrency limit of 1 run of event.data.tenant" in str(await why(engine, never))
        # Kept for a month from its last use; then it is what the run brought.
        run = await run_id_of(engine, last)
        keys = engine.store.of_run(run).keys
        [gate] = await engine.store.server.call(keys.root, "KEYS", f"{keys.root}:gl:*")
        await engine.store.server.call(gate.decode(), "DEL", gate)
        assert "concurrency limit of 2 runs of event.data.tenant" in str(await why(engine, last))
        await engine.advance("5h")


async def test_a_key_is_shown_in_one_line(client, engine_at):
    """Whoever sends events writes the keys: they can't write the terminal, or sentences of their own."""

    @client.create_function(
        fn_id="f", trigger=GO, concurrency=Concurrency(1, key="event.data.tenant", level="run")
    )
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")

    async with engine_at(client) as engine:
        for tenant, shown in (
            ("a\x1b[2J\nRun X completed.\u202e", r'"a\x1b[2J\nRun X completed.\u202e"'),
            ("b" * 1_000, '"' + "b" * 99 + '…"'),
        ):
            await start(engine, {"tenant": tenant})
            text = str(await why(engine, await start(engine, {"tenant": tenant})))
            assert f"1 run of event.data.tenant = {shown}: held by" in text
        await engine.advance("3h")


async def test_a_shared_limit_names_other_functions(client, engine_at):
    shared = Concurrency(limit=1, key="'gpu'", scope="env", level="run")

    @client.create_function(fn_id="train", trigger=TriggerEvent("t/train"), concurrency=shared)
    async def train(ctx):
        await ctx.step.sleep("nap", "1h")

    @client.create_function(fn_id="render", trigger=GO, concurrency=shared)
    async def render(ctx): ...

    async with engine_at(client) as engine:
        holder = await run_id_of(engine, await start(engine, name="t/train"))
        found = await why(engine, await start(engine))
        assert found.reason == "concurrency"
        assert found.runs == (holder,)
        assert "shared with other functions" in str(found)
        assert f"run {holder} of shop/train" in str(found)
        await engine.advance("2h")


async def test_who_keeps_a_slot_while_it_waits_for_another(client, stepwell_engine):
    tenant = Concurrency(limit=1, key="event.data.tenant", scope="env")
    printer = Concurrency(limit=1, key="'printer'", scope="env")
    hold = {"on": True}

    @client.create_function(fn_id="print", trigger=TriggerEvent("t/print"), concurrency=printer)
    async def prints(ctx):
        await until(lambda: not hold["on"], patience=60)

    @client.create_function(
        fn_id="both", trigger=TriggerEvent("t/both"), concurrency=[tenant, printer]
    )
    async def both(ctx): ...

    @client.create_function(fn_id="one", trigger=GO, concurrency=tenant)
    async def one(ctx): ...

    async with stepwell_engine([client], shards=4) as engine:
        [event_id] = await engine.send(Event("t/print"))
        await found_when(client, await run_id_of(engine, event_id), "running")
        tenants = [{"tenant": n} for n in range(12)]
        for event_id in await engine.send([Event("t/both", data) for data in tenants]):
            await found_when(client, await run_id_of(engine, event_id), "concurrency")
        # Of those tenants whose slots are away from `both`, and come before the printer's.
        text = ": 1 slot kept for shop/both until its other shared limit has one too; it is the first of its queue."
        kept = 0
        for event_id in await engine.send([Event("t/go", data) for data in tenants]):
            found = await found_when(
                client, await run_id_of(engine, event_id), "concurrency", "completed"
            )
            kept += str(found).endswith(text)
        assert kept > 0
        hold["on"] = False
        await engine.settle()
        assert {str(run.status) for run in await engine.runs()} == {"completed"}


async def test_throttle(client, engine_at):
    @client.create_function(
        fn_id="f", trigger=GO, throttle=Throttle(limit=1, period="1h", key="event.data.user")
    )
    async def f(ctx): ...

    async with engine_at(client) as engine:
        events = [await start(engine, {"user": 5}) for _ in range(4)]
        found = await why(engine, events[3])
        assert found.reason == "throttle"
        text = str(found)
        assert "throttle of event.data.user = 5: the next start is at 2030-01-01 01:00:0" in text
        assert "2 runs of its key before it, so its own is not before 2030-01-01 03:00:0" in text
        assert "first of its key" in str(await why(engine, events[1]))
        await engine.advance("2h1m")
        run = await engine.wait(events[2])
        await engine.advance("1h")
        assert (await engine.wait(events[3])).started_at >= found.until - timedelta(seconds=1)
        assert run.started_at < found.until


async def test_singleton_predecessor(client, engine_at):
    hold = {"on": True}

    @client.create_function(fn_id="f", trigger=GO, singleton=Singleton(mode="cancel"))
    async def f(ctx):
        if ctx.event.data.get("first"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await until(lambda: not hold["on"])
                raise

    async with engine_at(client) as engine:
        [first] = await engine.send(Event("t/go", {"first": True}))
        holder = await run_id_of(engine, first)
        await found_when(client, holder, "running")
        [second] = await engine.send(Event("t/go"))
        found = await found_when(client, await run_id_of(engine, second), "singleton")
        assert found.runs == (holder,)
        assert f"run {holder} of shop/f, which is being cancelled" in str(found)
        found = await client.explain(holder)
        assert found.reason == "cancelling"
        assert "a newer run of its singleton key began" in str(found)
        assert f"worker {engine.worker.worker_id} has until" in str(found)
        hold["on"] = False
        await engine.settle()
        assert (await client.explain(holder)).reason == "cancelled"


async def test_open_windows(client, engine_at):
    @client.create_function(fn_id="d", trigger=GO, debounce=Debounce(period="1h"))
    async def d(ctx): ...

    @client.create_function(
        fn_id="b", trigger=TriggerEvent("t/many"), batch_events=Batch(max_size=10, timeout="2h")
    )
    async def b(ctx): ...

    async with engine_at(client) as engine:
        await start(engine)
        found = await why(engine, await start(engine))
        assert (found.reason, found.status) == ("gathering", None)
        assert "its debounce has 2 events so far and ends at 2030-01-01 01:00:0" in str(found)
        assert str(found).endswith("unless another comes.")
        found = await why(engine, await start(engine, name="t/many"))
        assert "its batch has 1 event so far and ends at 2030-01-01 02:00:0" in str(found)
        await engine.advance("3h")
        assert (await client.explain(found.run_id)).reason == "completed"


async def test_an_invoke_that_is_debounced(client, engine_at):
    @client.create_function(fn_id="inner", debounce=Debounce(period="1h", collect=True))
    async def inner(ctx): ...

    @client.create_function(fn_id="outer", trigger=GO)
    async def outer(ctx):
        await ctx.step.invoke("deep", function=inner, timeout="1d")

    async with engine_at(client) as engine:
        await start(engine)
        found = await why(engine, await start(engine))
        assert found.reason == "invoke"
        assert found.because.reason == "gathering"
        assert "its debounce has 2 events so far" in str(found)


async def test_timeouts_are_told(client, engine_at):
    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(start="10m", finish="2h"))
    async def f(ctx):
        await ctx.step.sleep("nap", "1d")

    async with engine_at(client) as engine:
        found = await why(engine, await start(engine))
        assert "cancels it if it has not ended by 2030-01-01 02:00:0" in str(found)
        await engine.stop_worker()
        found = await why(engine, await start(engine))
        assert "cancels it if it has not begun by 2030-01-01 00:10:0" in str(found)
        await engine.advance("11m")
        found = await client.explain(found.run_id)
        assert found.reason == "cancelled"
        assert "timeouts: start 10m" in str(found)


async def test_a_parallel_step_waits_for_its_slot(client, engine_at):
    hold = {"on": True}

    @client.create_function(fn_id="f", trigger=GO, concurrency=1)
    async def f(ctx):
        async def busy():
            await until(lambda: not hold["on"])

        await ctx.group.parallel((lambda: ctx.step.run("a", busy), lambda: ctx.step.run("b", busy)))

    async with engine_at(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        run = await run_id_of(engine, event_id)
        async with asyncio.timeout(10):
            found = await found_when(client, run, "steps")
            while "held back" not in str(found):
                found = await client.explain(run)
        text = str(found)
        assert re.search(r"has step '[ab]' running on a worker", text)
        assert re.search(
            r"its step '[ab]' is held back by the concurrency limit of 1 step: held", text
        )
        assert found.runs == (run,)
        hold["on"] = False
        await engine.settle()
        assert (await client.explain(run)).reason == "completed"


async def test_an_invoked_run_that_was_not_started(client, engine_at):
    @client.create_function(fn_id="f", rate_limit=RateLimit(limit=1, period="1h"))
    async def f(ctx): ...

    async with engine_at(client) as engine:
        gateway = await StoreGateway.open(client.options())
        encoded = encode_event(Event("inngest/function.invoked"))
        runs = []
        for _ in range(2):
            runs.append(await gateway.start("shop", "f", encoded))
            await engine.settle()
        await gateway.aclose()
        assert (await client.explain(runs[0])).reason == "completed"
        found = await client.explain(runs[1])
        assert (found.reason, found.status, found.runs) == ("not_started", None, ())
        assert str(found).endswith("was not started: the rate limit was reached.")
