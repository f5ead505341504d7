"""P5: a cancel accepted after the trigger always cancels, wherever its run is."""

import asyncio
import threading
from datetime import timedelta

import pytest

from stepwell import Cancel, Concurrency, Event, NonRetriableError, TriggerEvent
from stepwell.errors import StepError
from stepwell.records import RunStatus
from tests.support.cancels import BY_ID, GO, sleeper, was_cancelled_by
from tests.support.runs import until

pytestmark = pytest.mark.anyio


async def test_an_event_cancels_the_runs_it_is_for(client, stepwell_engine):
    sleeper(client, cancel=[BY_ID])
    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"id": n}) for n in range(6)])
        await engine.settle()
        (stop,) = await engine.send(Event("t/stop", {"id": 2}))
        await engine.send([Event("t/stop", {"id": 4.0}), Event("t/stop", {"ID": 3})])
        await engine.advance("2h")
        runs = [await engine.wait(event_id) for event_id in ids]
        ended = [run.status is RunStatus.CANCELLED for run in runs]
        assert ended == [n in (2, 4) for n in range(6)]
        assert was_cancelled_by(runs[2], stop)
        assert runs[2].error.name == "RunCancelledError"


async def test_without_a_condition_every_run_of_the_function_is_cancelled(client, stepwell_engine):
    sleeper(client, cancel=[Cancel("t/stop")])

    @client.create_function(fn_id="g", trigger=GO)
    async def g(ctx):
        await ctx.step.sleep("nap", "1h")

    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go", {"id": n}) for n in range(700)])
        await engine.settle()
        (stop,) = await engine.send(Event("t/stop"))
        await engine.settle()
        assert all(was_cancelled_by(run, stop) for run in await engine.runs("f"))
        assert {run.status for run in await engine.runs("g")} == {RunStatus.WAITING}


async def test_a_run_that_is_scheduled_queued_sleeping_waiting_or_in_backoff(
    client, stepwell_engine
):
    @client.create_function(fn_id="f", trigger=GO, cancel=[BY_ID], retries=3)
    async def f(ctx):
        how = ctx.event.data["how"]
        if how == "sleeping":
            await ctx.step.sleep("s", "1h")
        elif how == "waiting":
            await ctx.step.wait_for_event("w", event="t/news", timeout="1h")
        elif how == "signal":
            await ctx.step.wait_for_signal("s", signal="sig", timeout="1h")
        elif how == "step":
            await ctx.step.run("r", broken)
        elif how == "retry":
            broken()

    def broken():
        raise ValueError("not yet")

    hows = ["sleeping", "waiting", "signal", "step", "retry", "scheduled", "queued"]
    async with stepwell_engine(client) as engine:
        later = int((engine.now() + timedelta(hours=1)).timestamp() * 1000)
        ids = [
            (
                await engine.send(
                    Event("t/go", {"id": 1, "how": how}, ts=later * (how == "scheduled"))
                )
            )[0]
            for how in hows[:-1]
        ]
        await engine.settle()
        await engine.stop_worker()
        ids += await engine.send(Event("t/go", {"id": 1, "how": "queued"}))
        await engine.settle()
        before = {run.status for run in await engine.runs()}
        assert before == {RunStatus.WAITING, RunStatus.SCHEDULED, RunStatus.QUEUED}
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        await engine.settle()
        for event_id in ids:
            assert was_cancelled_by(await engine.wait(event_id), stop)
        await engine.start_worker()
        await engine.advance("3h")
        assert all(was_cancelled_by(run, stop) for run in await engine.runs())


@pytest.mark.parametrize("kind", ["async", "sync", "parallel", "planned"])
async def test_running_code_is_told_at_its_next_await(client, stepwell_engine, kind):
    began, torn_down, ended = [], [], []
    go_on, release = asyncio.Event(), threading.Event()

    async def work(n=0):
        began.append(n)
        try:
            await asyncio.Event().wait()
        finally:
            torn_down.append(n)

    if kind == "sync":

        @client.create_function(fn_id="f", trigger=GO, cancel=[BY_ID])
        def f(ctx):
            def blocking():
                began.append(0)
                release.wait(10)

            ctx.step.run("one", blocking)
            ctx.step.run("two", lambda: ended.append("ran on"))

    else:
        options = {"concurrency": Concurrency(limit=9)} if kind == "planned" else {}

        @client.create_function(fn_id="f", trigger=GO, cancel=[BY_ID], **options)
        async def f(ctx):
            if kind == "async":
                await ctx.step.run("one", work)
            else:
                await ctx.group.parallel(
                    tuple(lambda n=n: ctx.step.run(f"s{n}", work, n) for n in range(3))
                )
            ended.append("ran on")

    @client.create_function(
        fn_id="told", trigger=TriggerEvent("inngest/function.cancelled", "event.data.fn_id == 'f'")
    )
    async def told(ctx):
        ended.append(ctx.event.data["error"]["message"])
        go_on.set()

    async with stepwell_engine(client) as engine:
        (event_id,) = await engine.send(Event("t/go", {"id": 1}))
        count = 3 if kind in ("parallel", "planned") else 1
        await until(lambda: len(began) == count)
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        run = await engine.wait(event_id)
        assert was_cancelled_by(run, stop)
        await go_on.wait()
        release.set()
        assert ended == [f"cancelled by event 't/stop' ({stop})"]
        await until(lambda: len(torn_down) == (0 if kind == "sync" else count))
        await engine.settle()


async def test_a_cancel_has_a_time_limit(client, stepwell_engine):
    sleeper(client, cancel=[Cancel("t/stop", match="data.id", timeout="10m")])
    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"id": n}) for n in (1, 2)])
        await engine.advance("9m")
        await engine.send(Event("t/stop", {"id": 1}))
        await engine.advance("2m")
        await engine.send(Event("t/stop", {"id": 2}))
        await engine.advance("1h")
        assert (await engine.wait(ids[0])).status is RunStatus.CANCELLED
        assert (await engine.wait(ids[1])).output == "slept"


async def test_five_cancels_of_every_form(client, stepwell_engine):
    sleeper(
        client,
        cancel=[
            Cancel("t/a", if_exp="async.data.n > event.data.n"),
            Cancel("t/a", match="data.id"),
            Cancel("t/b", if_exp="event.data.id == async.data.id && async.data.n > event.data.n"),
            Cancel("t/b", if_exp="event.data.id == async.data.id && event.data.n == async.data.n"),
            Cancel("t/c", if_exp="async.data.all == true"),
        ],
    )
    tries = [
        (Event("t/a", {"n": 5, "id": 9}), False),
        (Event("t/a", {"n": 6}), True),
        (Event("t/a", {"id": 1}), True),
        (Event("t/b", {"id": 1, "n": 4}), False),
        (Event("t/b", {"id": 1, "n": 6}), True),
        (Event("t/b", {"id": 2, "n": 6}), False),
        (Event("t/b", {"id": 1, "n": 5}), True),
        (Event("t/c", {"all": "true"}), False),
        (Event("t/c", {"all": True}), True),
        (Event("t/d", {"all": True}), False),
    ]
    async with stepwell_engine(client) as engine:
        for event, cancels in tries:
            (go,) = await engine.send(Event("t/go", {"id": 1, "n": 5}))
            await engine.settle()
            await engine.send(event)
            await engine.settle()
            [run_id] = (await engine.event(go)).run_ids
            found = (await engine.run(run_id)).status is RunStatus.CANCELLED
            assert found == cancels, event
            await engine.client.cancel_run(run_id)
            await engine.advance("1s")  # further than a Cluster's clocks may differ


async def test_the_run_of_an_event_without_the_field_can_not_match(client, stepwell_engine):
    sleeper(client, cancel=[BY_ID])
    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send([Event("t/stop"), Event("t/stop", {"id": None})])
        await engine.advance("2h")
        assert (await engine.wait(go)).output == "slept"


async def test_a_worker_killed_while_its_run_is_being_cancelled(client, stepwell_engine):
    began, entered = [], []

    async def stubborn():
        began.append(1)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                entered.append("asked")
                await asyncio.Event().wait()

    @client.create_function(fn_id="f", trigger=GO, cancel=[BY_ID])
    async def f(ctx):
        await ctx.step.run("one", stubborn)

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go", {"id": 1}))
        await until(lambda: began)
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        await until(lambda: entered)
        await engine.kill_worker()
        [run] = await engine.runs("f")
        assert run.status is RunStatus.CANCELLING
        await engine.advance("11s")
        assert was_cancelled_by(await engine.wait(go), stop)
        await engine.start_worker()
        await engine.advance("5m")
        assert began == [1]


async def test_no_failure_handler_and_an_error_for_who_invoked_it(client, stepwell_engine):
    failed = []

    async def on_failure(ctx):
        failed.append(ctx.run_id)

    @client.create_function(fn_id="child", cancel=[Cancel("t/stop")], on_failure=on_failure)
    async def child(ctx):
        await ctx.step.sleep("nap", "1h")

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        try:
            await ctx.step.invoke("call", function=child)
        except StepError as error:
            raise NonRetriableError(f"heard: {error.message}") from None

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go"))
        await engine.settle()
        (stop,) = await engine.send(Event("t/stop"))
        run = await engine.wait(go)
        assert run.error.message == f"heard: cancelled by event 't/stop' ({stop})"
        await engine.settle()
        assert failed == []


async def test_an_end_of_another_run_can_cancel(client, stepwell_engine):
    sleeper(client, cancel=[Cancel("inngest/function.finished", "async.data.fn_id == 'g'")])

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/other"))
    async def g(ctx):
        return 1

    async with stepwell_engine(client) as engine:
        (go,) = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send(Event("t/other"))
        assert (await engine.wait(go)).status is RunStatus.CANCELLED
