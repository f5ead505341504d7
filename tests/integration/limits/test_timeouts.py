"""Timeouts(start=, finish=): runs that begin or end too late are cancelled, once, whatever else happens to them."""

import asyncio
from datetime import timedelta

import pytest

from stepwell import (
    Cancel,
    Concurrency,
    Debounce,
    Event,
    Singleton,
    Timeouts,
    TriggerEvent,
)
from stepwell.records import RunStatus
from tests.support.runs import until

pytestmark = pytest.mark.anyio

GO = TriggerEvent("t/go")
LATE_START = "timeouts: start 10m: the run had not begun by then"
LATE_END = "timeouts: finish 1m30s: the run had not ended by then"


async def test_a_run_that_does_not_begin_in_time(client, stepwell_engine):
    ends = []

    async def on_failure(ctx):
        ends.append("failed")

    @client.create_function(
        fn_id="f", trigger=GO, timeouts=Timeouts(start="10m"), on_failure=on_failure
    )
    async def f(ctx):
        return "ran"

    @client.create_function(fn_id="told", trigger=TriggerEvent("inngest/function.cancelled"))
    async def told(ctx):
        ends.append(ctx.event.data["error"]["message"])

    async with stepwell_engine(client) as engine:
        (first,) = await engine.send(Event("t/go"))
        assert (await engine.wait(first)).output == "ran"
        await engine.stop_worker()
        (late,) = await engine.send(Event("t/go"))
        await engine.advance("9m")
        (in_time,) = await engine.send(Event("t/go"))
        await engine.advance("2m")
        run = await engine.wait(late)
        assert run.status is RunStatus.CANCELLED
        assert (run.error.name, run.error.message) == ("RunCancelledError", LATE_START)
        await engine.start_worker()
        assert (await engine.wait(in_time)).output == "ran"
        await engine.advance("1h")
        assert ends == [LATE_START]


async def test_a_run_that_does_not_end_in_time(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(start="10m", finish="90s"))
    async def f(ctx):
        await ctx.step.sleep("nap", ctx.event.data["s"] * 1000)
        return "ran"

    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"s": s}) for s in (80, 100)])
        await engine.stop_worker()
        more = await engine.send([Event("t/go", {"s": s}) for s in (80, 100)])
        await engine.advance("5m")  # they have not begun: it counts from there
        await engine.start_worker()
        await engine.advance("5m")
        runs = [await engine.wait(event_id) for event_id in (*ids, *more)]
        assert runs[2].output == "ran"
        for run in (runs[1], runs[3]):
            assert (run.status, run.error.message) == (RunStatus.CANCELLED, LATE_END)


@pytest.mark.parametrize("planned", [False, True])
async def test_running_code_is_stopped(client, stepwell_engine, planned):
    began, ended = [], []

    async def work():
        began.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    limit = {"concurrency": Concurrency(limit=5)} if planned else {}

    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(finish="90s"), **limit)
    async def f(ctx):
        await ctx.group.parallel(tuple(lambda n=n: ctx.step.run(f"s{n}", work) for n in (1, 2)))

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go"))
        await until(lambda: len(began) == 2)
        engine.clock.offset_ms += 90_001
        engine.coordinator.poke()
        run = await engine.wait(go)
        assert (run.status, run.error.message) == (RunStatus.CANCELLED, LATE_END)
        await until(lambda: len(ended) == 2)
        await engine.settle()


async def test_a_crash_does_not_begin_it_anew(client, stepwell_engine):
    began = []

    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(finish="90s"))
    async def f(ctx):
        began.append(1)
        if len(began) < 3:
            await asyncio.Event().wait()
        await ctx.step.sleep("nap", "20s")

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go"))
        for crash in (1, 2):
            await until(lambda: len(began) == crash)  # noqa: B023 - awaited in this turn
            await engine.kill_worker()
            await engine.advance("40s")
            await engine.start_worker()
        await until(lambda: len(began) == 3)
        await engine.advance("20s")
        assert (await engine.wait(go)).error.message == LATE_END


async def test_a_run_set_for_later_may_begin_that_much_later(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(start="10m"))
    async def f(ctx):
        return "ran"

    async with stepwell_engine(client) as engine:
        at = int((engine.now() + timedelta(hours=1)).timestamp() * 1000)
        in_time, late = await engine.send([Event("t/go", ts=at), Event("t/go", ts=at + 60_000)])
        await engine.stop_worker()
        await engine.advance("70m")
        await engine.advance("30s")
        assert (await engine.wait(in_time)).error.message == LATE_START
        await engine.start_worker()
        assert (await engine.wait(late)).output == "ran"


async def test_a_debounced_run_is_late_from_the_end_of_its_window(client, stepwell_engine):
    @client.create_function(
        fn_id="f", trigger=GO, timeouts=Timeouts(start="10m"), debounce=Debounce("1h")
    )
    async def f(ctx):
        return "ran"

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go"))
        await engine.advance("61m")
        [outcome] = (await engine.event(go)).outcomes
        assert (await engine.run(outcome.run_id)).output == "ran"


async def test_who_waits_for_a_slot_has_not_begun(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=GO,
        timeouts=Timeouts(start="10m"),
        concurrency=Concurrency(1, level="run"),
    )
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")

    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go")] * 3)
        await engine.advance("30m")
        runs = await engine.runs()
        assert sorted(run.status for run in runs) == sorted(
            [RunStatus.WAITING, RunStatus.CANCELLED, RunStatus.CANCELLED]
        )
        await engine.advance("1h")
        (again,) = await engine.send(Event("t/go"))
        await engine.settle()
        assert (
            await engine.run((await engine.event(again)).run_ids[0])
        ).status is RunStatus.WAITING
        assert len(ids) == 3


async def test_with_all_that_undoes_itself_at_the_end(client, stepwell_engine):
    """A singleton's lock, cancel registrations and both timeouts of one run: the audit finds nothing left."""

    @client.create_function(
        fn_id="f",
        trigger=GO,
        timeouts=Timeouts(start="10m", finish="90s"),
        cancel=[Cancel("t/stop")],
        singleton=Singleton(mode="cancel"),
    )
    async def f(ctx):
        await ctx.step.sleep("nap", ctx.event.data["s"] * 1000)
        return "ran"

    async with stepwell_engine(client) as engine:
        replaced = await engine.send(Event("t/go", {"s": 1}))
        await engine.settle()
        done = await engine.send(Event("t/go", {"s": 1}))
        await engine.advance("5s")
        late = await engine.send(Event("t/go", {"s": 100}))
        await engine.advance("95s")
        stopped = await engine.send(Event("t/go", {"s": 1}))
        await engine.settle()
        await engine.send(Event("t/stop"))
        await engine.settle()
        waiting = await engine.send(Event("t/go", {"s": 30}))
        await engine.settle()
        runs = [await engine.wait(sent[0]) for sent in (replaced, done, late, stopped)]
        assert [run.status for run in runs] == [
            RunStatus.CANCELLED, RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.CANCELLED,
        ]  # fmt: skip
        assert runs[2].error.message == LATE_END
        assert (await engine.run((await engine.event(waiting[0])).run_ids[0])).ended_at is None


@pytest.mark.parametrize("limit", [{}, {"concurrency": Concurrency(1, level="run")}])
async def test_who_is_too_late_to_begin_does_not_though_nobody_cancelled_it(
    client, stepwell_engine, limit
):
    """No coordinator was there at its moment; the worker that comes first leaves it alone."""
    began = []

    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(start="10m"), **limit)
    async def f(ctx):
        began.append(ctx.event.data["n"])

    @client.create_function(fn_id="other", trigger=TriggerEvent("t/other"))
    async def other(ctx):
        began.append("other")

    async with stepwell_engine(client) as engine:
        await engine.stop_worker()
        ids = await engine.send([Event("t/go", {"n": n}) for n in (1, 2)])
        await engine.send(Event("t/other"))
        await engine.settle()
        runs = [(await engine.event(event_id)).run_ids[0] for event_id in ids]
        await engine.stop_coordinator()
        engine.clock.offset_ms += 3_600_000
        await engine.start_worker()
        await until(lambda: began)
        async with asyncio.timeout(10):
            for run in runs:
                while "may not begin any more" not in str(await engine.client.explain(run)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await engine.start_coordinator()
        for event_id in ids:
            run = await engine.wait(event_id)
            assert (run.status, run.error.message) == (RunStatus.CANCELLED, LATE_START)
        (in_time,) = await engine.send(Event("t/go", {"n": 3}))
        assert (await engine.wait(in_time)).status is RunStatus.COMPLETED
        assert began == ["other", 3]
