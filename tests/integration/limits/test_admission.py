"""Flow control at run creation, through the whole engine on four shards: outcomes, what invokers hear, what functions get."""

import asyncio

import pytest

import stepwell
from stepwell import Priority, RateLimit, Singleton, TriggerEvent
from stepwell.client import Client
from stepwell.errors import RunNotStartedError, StepError
from stepwell.events import Event
from stepwell.records import RunStatus
from tests.support.orders import EVENT, order, outcomes

pytestmark = pytest.mark.anyio


async def test_a_rate_limit_drops_and_tells(client, stepwell_engine):
    seen = []

    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent(EVENT),
        rate_limit=RateLimit(limit=2, period="1m", key="event.data.user"),
    )
    async def f(ctx):
        return ctx.event.data["n"]

    @client.create_function(fn_id="skips", trigger=TriggerEvent("inngest/function.skipped"))
    async def skips(ctx):
        seen.append(
            (
                ctx.event.data["fn_id"],
                ctx.event.data["reason"],
                ctx.event.data["event"]["data"]["n"],
            )
        )

    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(n, user="a") for n in range(4)] + [order(4, user="b")])
        await engine.settle()
        found = await outcomes(engine, ids)
        assert [o.outcome for o in found] == ["started"] * 2 + ["rate_limited"] * 2 + ["started"]
        assert found[2].run_id is None
        assert found[2].reason == "the rate limit was reached"
        record = await engine.event(ids[2])
        assert record.event.data == {"n": 2, "user": "a"}
        await engine.advance("61s")
        ids = await engine.send([order(5, user="a")])
        await engine.settle()
        assert [o.outcome for o in await outcomes(engine, ids)] == ["started"]
        assert sorted(seen) == [("f", "rate_limited", 2), ("f", "rate_limited", 3)]


async def test_one_run_per_idempotency_key_and_day(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent(EVENT), idempotency="event.data.key")
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        first, second = await engine.send([order(1, key="x"), order(2, key="x")])
        await engine.settle()
        run = await engine.wait(first)
        (duplicate,) = await outcomes(engine, [second])
        assert (duplicate.outcome, duplicate.run_id) == ("duplicate", run.id)
        await engine.advance("24h")
        third = await engine.send(order(3, key="x"))
        assert (await engine.wait(third[0])).output == 3


async def test_a_singleton_skips_while_a_run_is_there(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent(EVENT),
        singleton=Singleton(mode="skip", key="event.data.user"),
    )
    async def f(ctx):
        await ctx.step.sleep("nap", "1m")
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        (first,) = await engine.send(order(1, user="a"))
        await engine.settle()
        (second,) = await engine.send(order(2, user="a"))
        await engine.settle()
        (skipped,) = await outcomes(engine, [second])
        (run,) = await engine.runs()
        assert (skipped.outcome, skipped.run_id) == ("skipped", run.id)
        await engine.advance("61s")
        assert (await engine.wait(first)).output == 1
        (third,) = await engine.send(order(3, user="a"))
        await engine.settle()
        await engine.advance("61s")
        assert (await engine.wait(third)).output == 3


async def test_a_newer_singleton_cancels_the_older(client, stepwell_engine):
    begun = asyncio.Event()

    @client.create_function(
        fn_id="f", trigger=TriggerEvent(EVENT), singleton=Singleton(mode="cancel")
    )
    async def f(ctx):
        if ctx.event.data["n"] == 1:
            begun.set()
            await asyncio.Event().wait()
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        (first,) = await engine.send(order(1))
        await begun.wait()
        (second,) = await engine.send(order(2))
        assert (await engine.wait(second)).output == 2
        cancelled = await engine.wait(first)
        assert cancelled.status is RunStatus.CANCELLED
        assert "singleton" in cancelled.error.message


async def test_priority_goes_ahead(client, stepwell_engine):
    ran = []

    @client.create_function(
        fn_id="f", trigger=TriggerEvent(EVENT), priority=Priority(run="event.data.ahead")
    )
    async def f(ctx):
        ran.append(ctx.event.data["n"])

    async with stepwell_engine(client, concurrency=1) as engine:
        await engine.stop_worker()
        ids = []
        for n, ahead in enumerate((0, 10, -10, 500_000)):
            ids += await engine.send(order(n, ahead=ahead))
        await engine.settle()
        await engine.start_worker()
        runs = [await engine.wait(event_id) for event_id in ids]
        assert ran == [3, 1, 0, 2]
        created = [r.created_at for r in runs]
        assert created == sorted(created)  # priority changes their place, not their creation


@pytest.mark.parametrize(
    "option",
    [
        {"rate_limit": RateLimit(limit=1, period="1h")},
        {"idempotency": "'k'"},
        {"singleton": Singleton(mode="skip")},
    ],
    ids=["rate_limit", "idempotency", "singleton"],
)
async def test_an_invoke_of_what_never_starts_fails_at_once(client, stepwell_engine, option):
    @client.create_function(fn_id="child", **option)
    async def child(ctx):
        await ctx.step.sleep("nap", "10m")

    @client.create_function(fn_id="parent", trigger=TriggerEvent(EVENT))
    async def parent(ctx):
        try:
            await ctx.step.invoke("call", function=child)
        except StepError as error:
            return f"{error.name}: {error.message}"

    async with stepwell_engine(client) as engine:
        await engine.send(Event(EVENT))
        await engine.settle()
        (second,) = await engine.send(Event(EVENT))
        run = await engine.wait(second)
        assert run.output.startswith("RunNotStartedError: the function was not started: ")


async def test_a_client_that_invokes_hears_of_it_too(client, stepwell_engine):
    @client.create_function(fn_id="f", rate_limit=RateLimit(limit=1, period="1h"))
    async def f(ctx):
        return 1

    async with stepwell_engine(client) as engine:
        assert await engine.client.invoke(f) == 1
        with pytest.raises(RunNotStartedError, match="the rate limit was reached"):
            await engine.client.invoke(f)


async def test_a_bad_key_warns_and_loses_nothing(client, stepwell_engine, caplog):
    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent(EVENT),
        rate_limit=RateLimit(limit=1, period="1h", key="event.data.user"),
    )
    async def f(ctx):
        return "ran"

    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(1), order(2), order(3, user=False), order(4, user=False)])
        runs = [await engine.wait(event_id) for event_id in ids]
        assert [r.output for r in runs] == ["ran"] * 4
        assert runs[0].warnings == ("rate_limit: expression 'event.data.user' is null here",)
        assert runs[2].warnings == ()
        assert sum("rate_limit" in r.message for r in caplog.records) == 1
        metrics = engine.coordinator.metrics.registry
        labels = {"app": "shop", "function": "f", "option": "rate_limit"}
        assert metrics.get_sample_value("stepwell_flow_key_errors_total", labels) == 2


async def test_skips_of_those_who_watch_skips_end(client, stepwell_engine):
    """Two functions that watch skips, and are skipped themselves, come to rest."""

    def watcher(fn_id):
        @client.create_function(
            fn_id=fn_id,
            trigger=[
                TriggerEvent("inngest/function.skipped"),
                TriggerEvent("inngest/function.finished"),
            ],
            singleton=Singleton(mode="skip"),
        )
        async def watch(ctx):
            await ctx.step.sleep("nap", "1s")

    watcher("one")
    watcher("two")

    @client.create_function(fn_id="f", trigger=TriggerEvent(EVENT))
    async def f(ctx):
        return 1

    async with stepwell_engine(client) as engine:
        await engine.send([order(n) for n in range(3)])
        await engine.settle()
        await engine.advance("10s")
        assert len(await engine.runs("one")) < 6


async def test_events_of_other_shards_are_decided_where_the_function_lives(stepwell_engine):
    client = Client(app_id="spread")

    @client.create_function(
        fn_id="limited", trigger=TriggerEvent(EVENT), rate_limit=RateLimit(limit=3, period="1h")
    )
    async def limited(ctx):
        return 1

    for n in range(6):

        @client.create_function(fn_id=f"plain-{n}", trigger=TriggerEvent(EVENT))
        async def plain(ctx):
            return 2

    async with stepwell_engine(client) as engine:
        ids = [i for n in range(8) for i in await engine.send(order(n))]
        await engine.settle()
        assert len(await engine.runs("limited")) == 3
        records = [await engine.event(i) for i in ids]
        told = [o.outcome for r in records for o in r.outcomes if o.fn_id == "limited"]
        assert sorted(told) == ["rate_limited"] * 5 + ["started"] * 3


def test_the_options_are_public():
    for name in ("Batch", "Debounce", "Priority", "RateLimit", "Singleton"):
        assert hasattr(stepwell, name)
