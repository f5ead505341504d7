"""P1: an event whose `send` returned is never dropped, and what it came to is recorded for every function."""

from collections import Counter

import pytest

from stepwell.client import Client
from stepwell.events import Event
from stepwell.triggers import TriggerEvent

pytestmark = pytest.mark.anyio


def outcomes(record):
    return {o.fn_id: o.outcome for o in record.outcomes}


async def test_every_function_gets_exactly_one_outcome(client, stepwell_engine):
    @client.create_function(fn_id="plain", trigger=TriggerEvent("shop/order"))
    async def plain(ctx):
        return "plain"

    @client.create_function(
        fn_id="big", trigger=TriggerEvent("shop/order", "event.data.total > 100")
    )
    async def big(ctx):
        return "big"

    @client.create_function(
        fn_id="small", trigger=TriggerEvent("shop/order", "event.data.total <= 100")
    )
    async def small(ctx):
        return "small"

    @client.create_function(fn_id="other", trigger=TriggerEvent("shop/refund"))
    async def other(ctx):
        return "other"

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("shop/order", {"total": 150}))
        record = await engine.event(event_id)
        assert outcomes(record) == {"plain": "started", "big": "started", "small": "filtered"}
        assert len(record.run_ids) == 2
        runs = [await engine.wait(run_id) for run_id in record.run_ids]
        assert sorted(run.output for run in runs) == ["big", "plain"]
        assert len(await engine.runs()) == 2


async def test_an_event_nobody_wants_is_recorded_too(client, stepwell_engine):
    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("shop/unheard", {"a": 1}))
        record = await engine.event(event_id)
        assert record.outcomes == ()
        assert not record.pending
        assert record.event is not None
        assert record.event.data == {"a": 1}


async def test_a_filter_that_fails_is_an_outcome(client, stepwell_engine, caplog):
    @client.create_function(
        fn_id="broken", trigger=TriggerEvent("shop/order", "json_parse(event.data.text).a == 1")
    )
    async def broken(ctx):
        return None

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("shop/order", {"text": "{not json"}))
        record = await engine.event(event_id)
        assert outcomes(record) == {"broken": "filter_error"}
        await engine.event(*await engine.send(Event("shop/order", {"text": "{not json"})))
        told = [r.getMessage() for r in caplog.records if "no value" in r.getMessage()]
        assert len(told) == 1
        assert told[0].startswith("function shop-broken: its trigger's expression has no value")
        assert await engine.runs() == []


async def test_events_wait_for_a_coordinator(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("shop/order"))
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        await engine.stop_coordinator()
        ids = await engine.send([Event("shop/order", {"n": n}) for n in range(20)])
        record = await engine.client.get_event(ids[0])
        assert record is not None
        assert record.pending
        await engine.start_coordinator()
        runs = [await engine.wait(event_id) for event_id in ids]
        assert [run.output for run in runs] == list(range(20))


async def test_events_wait_for_a_worker(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("shop/order"))
    async def f(ctx):
        return "done"

    async with stepwell_engine(client) as engine:
        await engine.stop_worker()
        [event_id] = await engine.send(Event("shop/order"))
        assert outcomes(await engine.event(event_id)) == {"f": "started"}
        await engine.start_worker()
        assert (await engine.wait(event_id)).output == "done"


async def test_many_events_one_run_each(client, stepwell_engine):
    seen: Counter[tuple[str, int]] = Counter()

    @client.create_function(fn_id="a", trigger=TriggerEvent("shop/order"))
    async def a(ctx):
        seen["a", ctx.event.data["n"]] += 1

    @client.create_function(fn_id="b", trigger=TriggerEvent("shop/*"))
    async def b(ctx):
        seen["b", ctx.event.data["n"]] += 1

    async with stepwell_engine(client) as engine:
        for start in range(0, 300, 100):
            await engine.send([Event("shop/order", {"n": n}) for n in range(start, start + 100)])
        await engine.settle()
        assert seen == {(fn, n): 1 for fn in "ab" for n in range(300)}
        runs = await engine.runs()
        assert Counter(str(run.status) for run in runs) == {"completed": 600}
        assert len({run.id for run in runs}) == 600


async def test_a_duplicate_id_starts_nothing_and_returns_the_first_id(client, stepwell_engine):
    @client.create_function(
        fn_id="f", trigger=[TriggerEvent("shop/order"), TriggerEvent("shop/other")]
    )
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        [first] = await engine.send(Event("shop/order", {"n": 1}, id="order-7"))
        [again] = await engine.send(Event("shop/order", {"n": 2}, id="order-7"))
        [other_name] = await engine.send(Event("shop/other", {"n": 3}, id="order-7"))
        assert first == again == other_name
        await engine.settle()
        assert [run.output for run in await engine.runs()] == [1]
        await engine.advance("25h")
        [later] = await engine.send(Event("shop/order", {"n": 4}, id="order-7"))
        assert later != first
        await engine.settle()
        assert [run.output for run in await engine.runs()] == [1, 4]


async def test_one_call_is_accepted_whole_or_not_at_all(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("shop/order"))
    async def f(ctx):
        return None

    async with stepwell_engine(client) as engine:
        with pytest.raises(ValueError, match="inngest/"):
            await engine.send([Event("shop/order"), Event("inngest/function.failed")])
        await engine.settle()
        assert await engine.runs() == []


async def test_several_apps_each_get_the_event(stepwell_engine):
    one, two = Client(app_id="one"), Client(app_id="two")

    @one.create_function(fn_id="f", trigger=TriggerEvent("shop/order"))
    async def first(ctx):
        return ctx.app_id

    @two.create_function(fn_id="f", trigger=TriggerEvent("shop/order"))
    async def second(ctx):
        return ctx.app_id

    async with stepwell_engine([one, two]) as engine:
        [event_id] = await engine.send(Event("shop/order"))
        record = await engine.event(event_id)
        runs = [await engine.wait(run_id) for run_id in record.run_ids]
        assert sorted(run.output for run in runs) == ["one", "two"]
