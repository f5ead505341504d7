"""Why a run is not running now, for every reason there is (semantics §9)."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from stepwell import (
    Backoff,
    Batch,
    Client,
    Concurrency,
    Debounce,
    Event,
    Explanation,
    RateLimit,
    Retries,
    Singleton,
    Throttle,
    Timeouts,
    TriggerEvent,
)
from stepwell.errors import RunNotFoundError
from stepwell.events import encode_event
from stepwell.records import RunStatus
from stepwell_engine.gateway import StoreGateway
from tests.support.runs import until

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")
START = datetime(2030, 1, 1, tzinfo=UTC)


async def start(engine, data=None, name="t/go", **more):
    [event_id] = await engine.send(Event(name, data or {}, **more))
    await engine.settle()
    return event_id


async def run_id_of(engine, event_id):
    [run] = (await engine.event(event_id)).run_ids
    return run


async def why(engine, event_id):
    return await engine.client.explain(await run_id_of(engine, event_id))


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


async def found_when(client, run_id, reason):
    """The explanation once it is that."""
    async with asyncio.timeout(10):
        while True:
            try:
                found = await client.explain(run_id)
            except RunNotFoundError:
                found = None
            if found is not None and found.reason == reason:
                return found
            await asyncio.sleep(0.002)


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
