"""Debounce and batch: what their run has, what becomes of invokes, and an open one, known by the id of the run that it will be."""

import asyncio

import pytest

from stepwell import Batch, Debounce, Event, TriggerEvent
from stepwell.errors import RunGatheringError, RunNotFoundError, RunNotStartedError, StepError
from stepwell.ids import function_shard
from stepwell.testing.engine import EngineError
from tests.support.orders import EVENT, order, outcomes
from tests.support.windows import GO, counting

pytestmark = pytest.mark.anyio

WINDOWS = pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"debounce": Debounce("2m", collect=True)}, "debounce has 2 events so far and ends at"),
        ({"batch_events": Batch(5, timeout="2m")}, "batch has 2 events so far and ends at"),
    ],
    ids=["debounce", "batch"],
)


@WINDOWS
async def test_its_run_can_be_waited_for(client, stepwell_engine, options, what):
    counting(client, **options)
    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go"), Event("t/go")])
        (run,) = {r for i in ids for r in (await engine.event(i)).run_ids}
        await engine.settle()
        with pytest.raises(RunGatheringError, match=f"is not there yet: its {what}") as early:
            await client.get_run(run)
        assert early.value.until == (await client.explain(run)).until
        assert isinstance(early.value, RunNotFoundError)
        waiting = asyncio.create_task(client.wait_for_run(run))
        with pytest.raises(EngineError, match=r"is not there yet.*engine\.advance"):
            await engine.wait(ids[0], timeout=0.2)
        assert not waiting.done()
        await engine.advance("2m")
        ended = await waiting
        assert (ended.id, ended.output) == (run, 2)
        assert (await client.get_run(run)).output == 2


async def test_a_window_that_stays_open_for_days(client, stepwell_engine):
    """What says that it is open lives longer than what says what its events came to."""
    counting(client, debounce=Debounce("7d"))
    async with stepwell_engine(client) as engine:
        (event,) = await engine.send(Event("t/go"))
        (run,) = (await engine.event(event)).run_ids
        keys = engine.store.of_run(run).keys
        key = keys.build("outcome", run)
        assert await engine.store.server.call(key, "PTTL", key) > 7 * 86_400_000
        await engine.advance("6d")
        await engine.send(Event("t/go"))
        await engine.settle()
        assert await engine.store.server.call(key, "PTTL", key) > 7 * 86_400_000
        await engine.advance("6d")
        with pytest.raises(RunGatheringError):
            await client.get_run(run)
        await engine.advance("1d")
        assert (await client.wait_for_run(run)).output == 1
        assert await engine.store.server.call(key, "EXISTS", key) == 0


async def test_ids_that_mean_nothing(client, stepwell_engine):
    counting(client)
    async with stepwell_engine(client):
        for ask in (client.get_run, client.wait_for_run, client.explain):
            with pytest.raises(RunNotFoundError, match="there is no run") as unknown:
                await ask("01J8ZQ4Y9V2D6N3X5K7M1C0000")
            assert not isinstance(unknown.value, RunGatheringError)


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


@pytest.mark.parametrize("was", [False, True])
async def test_a_deploy_changes_no_open_window(client, stepwell_engine, was):
    def define(app, collect):
        @app.create_function(fn_id="f", trigger=GO, debounce=Debounce("10m", collect=collect))
        async def f(ctx):
            return [e.data["n"] for e in ctx.events]

    define(client, was)
    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go", {"n": n}) for n in (1, 2)])
        await engine.settle()
        await engine.stop_worker()
        client._functions.pop("f")
        define(client, not was)
        await engine.start_worker()
        await engine.send(Event("t/go", {"n": 3}))
        await engine.advance("11m")
        (run,) = await engine.runs("f")
        assert run.output == ([1, 2, 3] if was else [3])
        # The next one has the new form.
        await engine.send([Event("t/go", {"n": n}) for n in (4, 5)])
        await engine.advance("11m")
        outputs = [r.output for r in await engine.runs("f")]
        assert sorted(outputs) == [run.output, [5] if was else [4, 5]]


@pytest.mark.parametrize(
    "options",
    [{"batch_events": Batch(20)}, {"debounce": Debounce("1m", collect=True)}],
    ids=["batch", "collect"],
)
async def test_events_of_one_send_keep_their_order(client, stepwell_engine, options):
    """Those with an id go by other shards than those without."""

    @client.create_function(fn_id="f", trigger=GO, **options)
    async def f(ctx):
        return [e.data["n"] for e in ctx.events]

    async with stepwell_engine(client) as engine:
        now = int(engine.now().timestamp() * 1000)
        events = [Event("t/go", {"n": n}, id=f"x{n}" if n % 2 else "", ts=now) for n in range(8)]
        ids = await engine.send(events)
        await engine.settle()
        ids += await engine.send([Event("t/go", {"n": n}, id=f"x{n}", ts=now) for n in (8, 9)])
        await engine.advance("2m")
        assert (await engine.wait(ids[0])).output == list(range(10))


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
        with pytest.raises(RunGatheringError, match=f"its {what} has 2 events so far"):
            await client.get_run(outcome.run_id)
        assert first.done() == (what == "debounce")
        if what == "debounce":
            with pytest.raises(RunNotStartedError, match="a later event took its place"):
                await first
        await engine.advance("11m")
        if what == "batch":
            assert await first == 2
        assert (await engine.wait(event_id)).id == outcome.run_id


def _due(engine):
    return engine.store.keys(function_shard("shop", "f", len(engine.store.shards))).build("due")
