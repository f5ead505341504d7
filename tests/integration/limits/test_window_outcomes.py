"""What the events of debounces and batches came to: refused at the end, told of, and for how long it can be looked up."""

import asyncio

import pytest

from stepwell import Batch, Debounce, Event, RateLimit, TriggerEvent
from stepwell.errors import RunNotStartedError
from tests.support.orders import EVENT, order, outcomes
from tests.support.windows import counting

pytestmark = pytest.mark.anyio

WINDOWS = pytest.mark.parametrize(
    "options",
    [{"debounce": Debounce("2m", collect=True)}, {"batch_events": Batch(5, timeout="2m")}],
    ids=["debounce", "batch"],
)


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


@WINDOWS
async def test_its_run_may_be_refused(client, stepwell_engine, options):
    counting(client, rate_limit=RateLimit(1, "1d"), **options)
    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.settle()
        await engine.advance("2m")
        (event,) = await engine.send(Event("t/go"))
        (run,) = (await engine.event(event)).run_ids
        waiting = asyncio.create_task(client.wait_for_run(run))
        await engine.settle()
        await engine.advance("2m")
        with pytest.raises(RunNotStartedError, match="the rate limit was reached"):
            await waiting
        with pytest.raises(RunNotStartedError, match="the rate limit was reached"):
            await client.get_run(run)


@pytest.mark.parametrize(
    "options",
    [
        {"debounce": Debounce("1m", collect=True)},
        {"batch_events": Batch(2)},
    ],
    ids=["debounce", "batch"],
)
async def test_a_refused_window_tells_all_its_events(client, stepwell_engine, options):
    counting(client, rate_limit=RateLimit(1, "1d"), **options)
    told = []

    @client.create_function(fn_id="w", trigger=TriggerEvent("inngest/function.skipped"))
    async def w(ctx):
        told.append(ctx.event.data)

    async with stepwell_engine(client) as engine:
        for first in (0, 2):
            await engine.send([Event("t/go", {"n": first}), Event("t/go", {"n": first + 1})])
            await engine.settle()
            await engine.advance("2m")
        (skip,) = told
        assert [e["data"]["n"] for e in skip["events"]] == [2, 3]
        assert skip["event"] == skip["events"][-1 if "debounce" in options else 0]


async def test_a_skip_tells_of_its_one_event_as_of_many(client, stepwell_engine):
    counting(client, rate_limit=RateLimit(1, "1d"))
    told = []

    @client.create_function(fn_id="w", trigger=TriggerEvent("inngest/function.skipped"))
    async def w(ctx):
        told.append(ctx.event.data)

    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go", {"n": 1}), Event("t/go", {"n": 2})])
        await engine.settle()
        (skip,) = told
        assert skip["events"] == [skip["event"]]
        assert skip["event"]["data"] == {"n": 2}


@pytest.mark.parametrize("collect", [False, True])
async def test_an_event_whose_record_is_gone_is_not_told_as_another(
    client, stepwell_engine, collect
):
    counting(client, debounce=Debounce("1m", collect=collect))
    async with stepwell_engine(client) as engine:
        ids = []
        for n in (1, 2):
            ids += await engine.send(Event("t/go", {"n": n}))
            await engine.settle()
        await engine.advance("2m")
        for keys in (shard.keys for shard in engine.store.shards):
            for name, event in ((name, i) for name in ("record", "outcome") for i in ids):
                key = keys.build(name, event)
                await engine.store.server.call(key, "DEL", key)
        told = await client.get_event(ids[0])
        assert told.event is None or (collect and told.event.data == {"n": 1})
        assert (told.event is None) == (not collect)


@pytest.mark.parametrize(
    "options",
    [
        {"debounce": Debounce("3d")},
        {"debounce": Debounce("1m", timeout="3d")},
        {"batch_events": Batch(5, timeout="3d")},
    ],
    ids=["period", "timeout", "batch"],
)
@pytest.mark.parametrize("shards", [1, 4])
async def test_records_outlive_a_long_window(client, stepwell_engine, options, shards):
    counting(client, **options)
    async with stepwell_engine(client, shards=shards) as engine:
        events = [Event("t/go", id=f"x{n}") for n in range(4)]
        ids = await engine.send([*events, Event("t/other")])
        await engine.settle()
        left = []
        for event in ids:
            keys = [shard.keys.build("record", event) for shard in engine.store.shards]
            left.append(max([await engine.store.server.call(k, "PTTL", k) for k in keys]))
        assert min(left[:4]) > 5 * 86_400_000 - 60_000
        assert left[4] <= 2 * 86_400_000
        await engine.advance("4d")
