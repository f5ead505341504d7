"""P5: a cancel accepted after the trigger always cancels, whichever was handled first; of several ends one is."""

import asyncio
from collections import Counter
from random import Random

import pytest

from stepwell import Cancel, Debounce, Event, Timeouts, TriggerEvent
from stepwell.records import RunStatus
from stepwell.testing.engine import Engine
from tests.support.cancels import BY_ID, GO, handle, sleeper, was_cancelled_by

pytestmark = pytest.mark.anyio


async def test_what_was_accepted_before_the_trigger_or_with_it_does_not_count(
    client, stepwell_engine
):
    sleeper(client, cancel=[Cancel("t/stop"), Cancel("t/go")])
    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/stop"))
        await engine.advance("1s")  # further than a Cluster's clocks may differ
        ids = await engine.send([Event("t/go"), Event("t/stop")])
        await engine.settle()
        [run] = await engine.runs()
        assert run.status is RunStatus.WAITING, "nor does the trigger itself"
        await engine.advance("1s")
        (again,) = await engine.send(Event("t/go"))
        await engine.settle()
        assert was_cancelled_by(await engine.wait(ids[0]), again, "t/go")
        assert (await engine.runs())[-1].status is RunStatus.WAITING


async def test_a_cancel_that_is_handled_before_the_run_is_created(client, stepwell_engine):
    sleeper(client, cancel=[BY_ID])
    async with stepwell_engine(client) as engine:
        await engine.settle()
        await engine.stop_coordinator()
        pairs: list[tuple[str, str]] = []
        for n in range(8):  # wherever the two events are, and the function
            (early,) = await engine.send(Event("t/stop", {"id": n}))
            engine.clock.offset_ms += 1_000  # further than a Cluster's clocks may differ
            (go,) = await engine.send(Event("t/go", {"id": n}))
            (stop,) = await engine.send(Event("t/stop", {"id": n}))
            (other,) = await engine.send(Event("t/go", {"id": -n - 1}))
            await handle(engine, early, stop, go, other)
            pairs.append((go, stop))
        await engine.start_coordinator()
        await engine.settle()
        for go, stop in pairs:
            assert was_cancelled_by(await engine.wait(go), stop)
        runs = await engine.runs()
        assert Counter(run.status for run in runs) == {RunStatus.CANCELLED: 8, RunStatus.WAITING: 8}


async def test_a_cancel_that_is_handled_first_is_for_its_own_runs_only(client, stepwell_engine):
    sleeper(client, cancel=[BY_ID, Cancel("t/halt", if_exp="async.data.n == event.data.id")])
    async with stepwell_engine(client) as engine:
        await engine.settle()
        await engine.stop_coordinator()
        goes = await engine.send([Event("t/go", {"id": n}) for n in range(8)])
        engine.clock.offset_ms += 1_000
        (stop,) = await engine.send(Event("t/stop", {"id": 3}))
        (halt,) = await engine.send(Event("t/halt", {"n": 5}))
        await handle(engine, stop, halt, *goes[:1])
        await engine.start_coordinator()
        await engine.advance("2h")
        runs = [await engine.wait(go) for go in goes]
        assert [n for n in range(8) if runs[n].status is RunStatus.CANCELLED] == [3, 5]
        assert was_cancelled_by(runs[3], stop)
        assert was_cancelled_by(runs[5], halt, "t/halt")


async def test_a_cancel_in_the_debounce_window_cancels_the_run_when_the_window_closes(
    client, stepwell_engine
):
    sleeper(client, cancel=[BY_ID], debounce=Debounce("1m", key="event.data.id"))
    async with stepwell_engine(client) as engine:
        kept = await engine.send(Event("t/go", {"id": 1, "n": 1}))
        await engine.advance("1s")
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        restarted = await engine.send([Event("t/go", {"id": 2, "n": 1})])
        await engine.advance("1s")
        await engine.send(Event("t/stop", {"id": 2}))
        await engine.advance("1s")
        await engine.send(Event("t/go", {"id": 2, "n": 2}))  # a newer trigger than that cancel
        await engine.advance("5m")
        (told,) = (await engine.event(kept[0])).outcomes
        assert was_cancelled_by(await engine.run(told.run_id), stop)
        (told,) = (await engine.event(restarted[0])).outcomes
        assert (await engine.run(told.run_id)).status is RunStatus.WAITING


async def test_the_event_that_a_run_waits_for_and_that_cancels_it_cancels_it(
    client, stepwell_engine
):
    seen = []

    @client.create_function(fn_id="f", trigger=GO, cancel=[BY_ID])
    async def f(ctx):
        seen.append(await ctx.step.wait_for_event("w", event="t/stop", timeout="1h"))

    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"id": 1})] * 50)
        await engine.settle()
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        for event_id in ids:
            assert was_cancelled_by(await engine.wait(event_id), stop)
        assert seen == []


async def test_a_cancel_handled_twice_and_a_second_one_change_nothing(client, stepwell_engine):
    sleeper(client, cancel=[BY_ID])
    ends = []

    @client.create_function(fn_id="told", trigger=TriggerEvent("inngest/function.cancelled"))
    async def told(ctx):
        ends.append(ctx.event.data["run_id"])

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go", {"id": 1}))
        await engine.settle()
        await engine.stop_coordinator()
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        await engine.send(Event("t/stop", {"id": 1}))
        stream = [engine.store.keys(n).events for n in range(len(engine.store.shards))]
        rows = [await engine.store.server.call(s, "XRANGE", s, "-", "+") for s in stream]
        await handle(engine, stop)
        for key, found in zip(stream, rows, strict=True):
            for _, flat in found:
                await engine.store.server.call(key, "XADD", key, "*", *flat)
        await engine.start_coordinator()
        run = await engine.wait(go)
        assert was_cancelled_by(run, stop)
        await engine.settle()
        assert ends == [run.id]


async def test_cancels_are_remembered_no_longer_than_they_can_be_asked_for(client, stepwell_engine):
    sleeper(client, cancel=[BY_ID])
    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/stop", {"id": n}) for n in range(10)])
        await engine.settle()
        kept = [engine.store.keys(n).build("recent", "t/stop") for n in range(4)]
        count = engine.store.server.call
        assert sum([await count(key, "ZCARD", key) for key in kept]) == 10
        coordinator = engine.coordinator
        for _ in range(3):
            await engine.advance("2m")
            await coordinator._upkeep()  # its own period is in real time
        assert sum([await count(key, "ZCARD", key) for key in kept]) == 0


async def until_idle(engine: Engine) -> None:
    """Let the events be handled; what they wake may still be at work."""
    async with asyncio.timeout(10):
        while not await engine.coordinator.idle():  # noqa: ASYNC110 - other processes could not tell either
            await asyncio.sleep(0.002)


async def test_match_cancel_timeout_and_return_race_and_one_of_them_wins(client, stepwell_engine):
    seen: list[tuple[str, str]] = []

    @client.create_function(
        fn_id="f", trigger=GO, cancel=[BY_ID], timeouts=Timeouts(start="30s", finish="60s")
    )
    async def f(ctx):
        news = await ctx.step.wait_for_event("w", event="t/news", match="data.id", timeout="59s")
        await ctx.step.sleep("nap", ctx.event.data["nap"])
        return news and news.data["n"]

    for end in ("finished", "cancelled"):

        @client.create_function(
            fn_id=end, trigger=TriggerEvent(f"inngest/function.{end}", "event.data.fn_id == 'f'")
        )
        async def told(ctx, end=end):
            seen.append((end, ctx.event.data["run_id"]))

    random = Random(7)
    async with stepwell_engine(client) as engine:
        naps = [random.choice([1, 300, 900, 2_000]) for _ in range(60)]
        starts = [Event("t/go", {"id": n, "nap": nap}) for n, nap in enumerate(naps)]
        ids = await engine.send(starts)
        await engine.advance("57400ms")
        for moment in range(5):
            news = [Event("t/news", {"id": n, "n": moment}) for n in range(60)]
            stops = [Event("t/stop", {"id": n}) for n in range(60)]
            events = random.sample([*random.sample(news, 20), *random.sample(stops, 6)], 26)
            sent = asyncio.gather(*(engine.send(event) for event in events))
            engine.clock.offset_ms += 600
            engine.coordinator.poke()
            await sent
            await until_idle(engine)
        await engine.advance("5m")
        runs = [await engine.wait(event_id) for event_id in ids]
        assert {run.status for run in runs} == {RunStatus.COMPLETED, RunStatus.CANCELLED}
        reasons = {run.error.message[:16] for run in runs if run.error}
        assert reasons == {"cancelled by eve", "timeouts: finish"}
        await engine.settle()
        ended = Counter(seen)
        assert set(ended.values()) == {1}
        assert {run for end, run in ended if end == "finished"} == {run.id for run in runs}
        assert {run for end, run in ended if end == "cancelled"} == {
            run.id for run in runs if run.status is RunStatus.CANCELLED
        }
