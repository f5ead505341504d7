"""Flow control at run creation, through the whole engine on four shards: outcomes, what invokers hear, what functions get."""

import asyncio

import pytest

import stepwell
from stepwell import Batch, Debounce, Priority, RateLimit, Singleton, TriggerEvent
from stepwell.client import Client
from stepwell.errors import RunNotFoundError, RunNotStartedError, StepError
from stepwell.events import Event
from stepwell.ids import function_shard
from stepwell.records import RunStatus

pytestmark = pytest.mark.anyio

EVENT = "shop/order"


def order(n: int, **more):
    return Event(EVENT, {"n": n, **more})


async def outcomes(engine, event_ids):
    """The outcome of each event that one function wants."""
    records = [await engine.event(event_id) for event_id in event_ids]
    return [record.outcomes[0] for record in records]


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


async def test_a_debounce_runs_with_the_last_event(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent(EVENT),
        debounce=Debounce(period="10s", key="event.data.user"),
    )
    async def f(ctx):
        return [e.data["n"] for e in ctx.events]

    async with stepwell_engine(client) as engine:
        ids = []
        for n in range(3):
            ids += await engine.send(order(n, user="a"))
            await engine.settle()
            await engine.advance("8s")
        assert await engine.runs() == []
        await engine.advance("3s")
        run = await engine.wait(ids[0])
        assert run.output == [2]
        assert {(o.outcome, o.run_id) for o in await outcomes(engine, ids)} == {
            ("debounced", run.id)
        }
        assert run.created_at < run.queued_at


async def test_an_older_event_takes_no_place_but_puts_the_end_off(client, stepwell_engine):
    @client.create_function(
        fn_id="f", trigger=TriggerEvent(EVENT), debounce=Debounce(period="10s", timeout="15s")
    )
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        now = int(engine.now().timestamp() * 1000)
        (first,) = await engine.send(Event(EVENT, {"n": 1}, ts=now))
        await engine.settle()
        await engine.advance("8s")
        await engine.send(Event(EVENT, {"n": 0}, ts=now - 5_000))
        await engine.settle()
        await engine.advance("4s")
        assert await engine.runs() == []
        await engine.advance("4s")  # the timeout, 15 s after the first
        assert (await engine.wait(first)).output == 1


async def test_a_collecting_debounce_has_all_by_time(client, stepwell_engine):
    @client.create_function(
        fn_id="f", trigger=TriggerEvent(EVENT), debounce=Debounce(period="10s", collect=True)
    )
    async def f(ctx):
        await ctx.step.sleep("nap", "1s")  # entered again, it has them still
        return [ctx.event.data["n"], [e.data["n"] for e in ctx.events]]

    async with stepwell_engine(client) as engine:
        now = int(engine.now().timestamp() * 1000)
        ids = []
        for n in (2, 3, 1):
            ids += await engine.send(Event(EVENT, {"n": n}, ts=now - 10_000 + n))
            await engine.settle()
        await engine.advance("12s")
        run = await engine.wait(ids[0])
        assert run.output == [3, [1, 2, 3]]
        assert [e.data["n"] for e in run.events] == [1, 2, 3]
        assert run.event_name == EVENT


async def test_a_batch_is_full_or_over(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent(EVENT),
        batch_events=Batch(
            max_size=3, timeout="30s", key="event.data.user", if_exp="event.data.n < 100"
        ),
    )
    async def f(ctx):
        return [e.data["n"] for e in ctx.events]

    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(n, user="a") for n in range(4)] + [order(100, user="a")])
        await engine.settle()
        found = await outcomes(engine, ids)
        assert [o.outcome for o in found] == ["batched"] * 4 + ["started"]
        assert (await engine.wait(ids[0])).output == [0, 1, 2]
        assert (await engine.wait(ids[4])).output == [100]
        assert len(await engine.runs()) == 2
        await engine.advance("31s")
        assert (await engine.wait(ids[3])).output == [3]


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


async def test_all_invokes_of_a_batch_get_its_result(client, stepwell_engine):
    @client.create_function(fn_id="sum", batch_events=Batch(max_size=3))
    async def total(ctx):
        return sum(e.data["n"] for e in ctx.events)

    @client.create_function(fn_id="parent", trigger=TriggerEvent(EVENT))
    async def parent(ctx):
        return await ctx.step.invoke("call", function=total, data={"n": ctx.event.data["n"]})

    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(1), order(2)])
        result = asyncio.create_task(engine.client.invoke(total, data={"n": 4}))
        assert await result == 7
        parents = [await engine.wait(i) for i in ids]
        assert [p.output for p in parents] == [7, 7]
        (run,) = await engine.runs("sum")
        assert run.parent_run_id in {p.id for p in parents}
        assert run.parent_step_key == parents[0].steps[0].key


async def test_the_invoke_of_a_replaced_event_fails(client, stepwell_engine):
    @client.create_function(fn_id="child", debounce=Debounce(period="10s"))
    async def child(ctx):
        return "done"

    @client.create_function(fn_id="parent", trigger=TriggerEvent(EVENT))
    async def parent(ctx):
        try:
            return await ctx.step.invoke("call", function=child)
        except StepError as error:
            return error.name

    async with stepwell_engine(client) as engine:
        (first,) = await engine.send(Event(EVENT))
        await engine.settle()
        (second,) = await engine.send(Event(EVENT))
        await engine.settle()
        assert (await engine.wait(first)).output == "RunNotStartedError"
        await engine.advance("11s")
        assert (await engine.wait(second)).output == "done"


async def test_a_window_may_be_refused_when_it_ends(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent(EVENT),
        batch_events=Batch(max_size=2),
        rate_limit=RateLimit(limit=1, period="1h"),
    )
    async def f(ctx):
        return len(ctx.events)

    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(n) for n in range(4)])
        await engine.settle()
        found = await outcomes(engine, ids)
        assert [o.outcome for o in found] == ["batched"] * 2 + ["rate_limited"] * 2
        assert found[3].reason == "the rate limit was reached when the batch closed"


@pytest.mark.parametrize(
    ("option", "word", "what"),
    [
        ({"debounce": Debounce(period="10m")}, "debounced", "debounce"),
        ({"batch_events": Batch(max_size=3, timeout="10m")}, "batched", "batch"),
    ],
    ids=["debounce", "batch"],
)
async def test_while_a_window_is_open_everyone_is_told_of_it(
    client, stepwell_engine, option, word, what
):
    @client.create_function(fn_id="f", trigger=TriggerEvent(EVENT), **option)
    async def f(ctx):
        return len(ctx.events)

    async with stepwell_engine(client) as engine:
        first = asyncio.create_task(client.invoke(f))
        while not await engine.store.server.call(key := _due(engine), "ZCARD", key):
            await engine.settle()
        (event_id,) = await engine.send(order(1))
        await engine.settle()
        (outcome,) = (await engine.event(event_id)).outcomes
        assert (outcome.outcome, outcome.app_id, outcome.fn_id) == (word, "shop", "f")
        told = await client.explain(outcome.run_id)
        assert (told.reason, told.status) == ("gathering", None)
        assert f"its {what} has 2 events so far" in told.text
        with pytest.raises(RunNotFoundError, match=r"client\.explain tells"):
            await client.get_run(outcome.run_id)
        with pytest.raises(RunNotFoundError, match=r"client\.explain tells"):
            await client.wait_for_run(outcome.run_id)
        assert not first.done()
        await engine.advance("11m")
        assert await first == (2 if what == "batch" else 1)
        assert (await engine.wait(event_id)).id == outcome.run_id


def _due(engine):
    return engine.store.keys(function_shard("shop", "f", len(engine.store.shards))).build("due")


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
