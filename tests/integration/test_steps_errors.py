"""Retries, errors, on_failure, internal events, swallowed suspensions (semantics §4, §5)."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from stepwell import (
    Backoff,
    Event,
    NonRetriableError,
    Retries,
    RetryAfterError,
    StepError,
    TriggerEvent,
)
from stepwell.records import RunStatus, StepStatus
from tests.support.runs import run_of, step

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")


async def test_steps_and_body_have_attempts_of_their_own(client, stepwell_engine):
    tried = {"step": 0, "other": 0, "body": 0}

    def fails(name, times):
        tried[name] += 1
        if tried[name] <= times:
            raise RuntimeError(name)
        return name

    @client.create_function(fn_id="f", trigger=GO, retries=2)
    async def f(ctx):
        a = await ctx.step.run("step", fails, "step", 2)
        b = await ctx.step.run("other", fails, "other", 2)
        fails("body", 2)
        return [a, b]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.output == ["step", "other"]
        assert tried == {"step": 3, "other": 3, "body": 3}


async def test_a_step_that_fails_for_good_fails_the_run_at_once(client, stepwell_engine):
    bodies = []

    @client.create_function(fn_id="f", trigger=GO, retries=1)
    async def f(ctx):
        bodies.append(1)
        await ctx.step.run("bad", lambda: 1 / 0)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.status is RunStatus.FAILED
        assert run.error.name == "ZeroDivisionError"
        assert run.error.message == "division by zero"
        assert "test_steps_errors.py" in run.error.stack
        assert step(run, "bad").status is StepStatus.FAILED
        assert len(step(run, "bad").attempts) == 2
        assert len(bodies) <= 3


@pytest.mark.parametrize("sync", [False, True])
async def test_non_retriable_is_catchable_as_step_error(client, stepwell_engine, sync):
    tried = []

    def bad():
        tried.append(1)
        raise NonRetriableError("never")

    if sync:

        @client.create_function(fn_id="f", trigger=GO)
        def f(ctx):
            try:
                ctx.step.run("bad", bad)
            except StepError as error:
                ctx.step.sleep("nap", "1m")
                return [error.name, error.message, error.step_id]
    else:

        @client.create_function(fn_id="f", trigger=GO)
        async def f(ctx):
            try:
                await ctx.step.run("bad", bad)
            except StepError as error:
                await ctx.step.sleep("nap", "1m")
                return [error.name, error.message, error.step_id]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="2m")
        assert run.output == ["NonRetriableError", "never", "bad"]
        assert tried == [1]


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("30s", 30), (5_000, 5), (timedelta(hours=2), 7_200), (1, 1), ("30d", 86_400)],
)
async def test_retry_after(client, stepwell_engine, retry_after, seconds):
    at = []

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        def limited():
            at.append(engine.clock.now_ms())
            if len(at) < 2:
                raise RetryAfterError("later", retry_after)
            return "done"

        return await ctx.step.run("limited", limited)

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/go2"))
    async def g(ctx):
        at.append(engine.clock.now_ms())
        if ctx.attempt == 0:
            raise RetryAfterError("later", retry_after)
        return "done"

    async with stepwell_engine(client) as engine:
        for name in ("t/go", "t/go2"):
            at.clear()
            run = await run_of(engine, name, after="2d")
            assert run.output == "done"
            assert seconds * 1000 <= at[1] - at[0] < seconds * 1000 + 1_000


async def test_the_default_backoff(client, stepwell_engine):
    at = []

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        at.append(engine.clock.now_ms())
        raise RuntimeError("always")

    async with stepwell_engine(client) as engine:
        await run_of(engine, "t/go", after="1h")
        waits = [(b - a) / 1000 for a, b in pairwise(at)]
        for wait, base in zip(waits, (15, 30, 60, 120), strict=True):
            assert base <= wait < base + 31


async def test_a_backoff_of_ones_own(client, stepwell_engine):
    at = []

    @client.create_function(
        fn_id="f", trigger=GO, retries=Retries(attempts=4, backoff=Backoff(["1s", "10s"], jitter=0))
    )
    def f(ctx):
        def bad():
            at.append(engine.clock.now_ms())
            raise RuntimeError("always")

        ctx.step.run("bad", bad)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        waits = [(b - a) // 1000 for a, b in pairwise(at)]
        assert waits == [1, 10, 10]
        assert run.status is RunStatus.FAILED


@pytest.mark.parametrize("sync", [False, True])
async def test_on_failure(client, stepwell_engine, sync):
    told = []

    if sync:

        def on_failure(ctx):
            told.append(ctx.event.data)
            return ctx.step.run("clean", lambda: "cleaned")

        @client.create_function(fn_id="f", trigger=GO, retries=0, on_failure=on_failure)
        def f(ctx):
            raise ValueError("reason")
    else:

        async def on_failure(ctx):  # type: ignore[misc] # the same handler, async
            told.append(ctx.event.data)
            return await ctx.step.run("clean", lambda: "cleaned")

        @client.create_function(fn_id="f", trigger=GO, retries=0, on_failure=on_failure)
        async def f(ctx):
            raise ValueError("reason")

    @client.create_function(fn_id="other", trigger=GO, retries=0)
    async def other(ctx):
        raise ValueError("someone else's")

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go", {"n": 1}))
        await engine.settle()
        [failed] = await engine.runs("f")
        [handled] = await engine.runs("f-failure")
        assert handled.output == "cleaned"
        [data] = told
        assert data["function_id"] == "shop-f"
        assert data["fn_id"] == "f"
        assert data["run_id"] == failed.id
        assert data["error"]["message"] == "reason"
        assert data["error"]["name"] == "ValueError"
        assert data["event"]["name"] == "t/go"
        assert data["event"]["data"] == {"n": 1}


async def test_on_failure_is_not_for_cancelled_runs(client, stepwell_engine):
    async def on_failure(ctx):
        return None

    @client.create_function(fn_id="f", trigger=GO, on_failure=on_failure)
    async def f(ctx):
        await ctx.step.sleep("nap", "1d")

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.settle()
        [run] = await engine.runs("f")
        await engine.client.cancel_run(run.id)
        await engine.advance("1h")
        assert await engine.runs("f-failure") == []


async def test_internal_events_as_triggers(client, stepwell_engine):
    @client.create_function(fn_id="good", trigger=GO)
    async def good(ctx):
        return {"sum": 3}

    @client.create_function(fn_id="bad", trigger=GO, retries=0)
    async def bad(ctx):
        raise NonRetriableError("bad")

    @client.create_function(fn_id="long", trigger=GO)
    async def long(ctx):
        await ctx.step.sleep("nap", "30d")

    def listener(name):
        @client.create_function(
            fn_id=f"on-{name}", trigger=TriggerEvent(f"inngest/function.{name}")
        )
        async def on(ctx):
            return ctx.event.data

    for name in ("finished", "failed", "cancelled"):
        listener(name)

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go", {"n": 1}))
        await engine.settle()
        [long_run] = await engine.runs("long")
        await engine.client.cancel_run(long_run.id, reason="enough")
        await engine.settle()
        finished = [run.output for run in await engine.runs("on-finished")]
        # Every end emits it, a cancel too; of those it starts itself, only runs of .finished and .failed are silent.
        assert sorted(data["fn_id"] for data in finished) == ["bad", "good", "long", "on-cancelled"]
        by_fn = {data["fn_id"]: data for data in finished}
        assert by_fn["good"]["result"] == {"sum": 3}
        assert by_fn["bad"]["error"]["message"] == "bad"
        [failed] = [run.output for run in await engine.runs("on-failed")]
        assert (failed["function_id"], failed["error"]["message"]) == ("shop-bad", "bad")
        [cancelled] = [run.output for run in await engine.runs("on-cancelled")]
        assert cancelled["run_id"] == long_run.id
        assert cancelled["error"]["message"] == "enough"


async def test_waiting_for_the_end_of_another_run(client, stepwell_engine):
    @client.create_function(fn_id="work", trigger=GO)
    async def work(ctx):
        await ctx.step.sleep("nap", "1h")
        return 42

    @client.create_function(fn_id="watch", trigger=GO)
    async def watch(ctx):
        done = await ctx.step.wait_for_event(
            "done",
            event="inngest/function.finished",
            if_exp="async.data.fn_id == 'work'",
            timeout="1d",
        )
        return done.data["result"]

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.advance("2h")
        [run] = await engine.runs("watch")
        assert run.output == 42


@pytest.mark.parametrize("sync", [False, True])
async def test_a_swallowed_suspension_fails_the_run_with_advice(client, stepwell_engine, sync):
    if sync:

        @client.create_function(fn_id="f", trigger=GO)
        def f(ctx):
            try:
                ctx.step.sleep("nap", "1h")
            except:  # noqa: E722
                pass
            return "went on"
    else:

        @client.create_function(fn_id="f", trigger=GO)
        async def f(ctx):
            try:
                await ctx.step.sleep("nap", "1h")
            except:  # noqa: E722
                pass
            return "went on"

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.status is RunStatus.FAILED
        assert run.error.name == "SuspendSwallowedError"
        assert '"nap"' in run.error.message
        assert "except Exception" in run.error.message


@pytest.mark.parametrize("sync", [False, True])
async def test_except_exception_around_steps_is_safe(client, stepwell_engine, sync):
    finallies = []

    if sync:

        @client.create_function(fn_id="f", trigger=GO)
        def f(ctx):
            try:
                ctx.step.sleep("nap", "1h")
                return ctx.step.run("a", lambda: 1)
            except Exception:
                return "caught"
            finally:
                finallies.append(1)
    else:

        @client.create_function(fn_id="f", trigger=GO)
        async def f(ctx):
            try:
                await ctx.step.sleep("nap", "1h")
                return await ctx.step.run("a", lambda: 1)
            except Exception:
                return "caught"
            finally:
                finallies.append(1)

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go", after="1d")).output == 1
        assert len(finallies) == 2


async def test_a_finally_that_awaits_a_step_while_suspended(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        try:
            await ctx.step.sleep("nap", "1h")
        finally:
            await ctx.step.run("clean", lambda: "clean")
        return "done"

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.output == "done"
        assert step(run, "clean").output == "clean"


async def test_errors_in_a_task_group(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO, retries=1)
    async def f(ctx):
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.run("bad", lambda: 1 / 0))
            group.create_task(ctx.step.sleep("nap", "1h"))

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.status is RunStatus.FAILED
        assert run.error.name == "ZeroDivisionError"


async def test_an_error_whose_text_can_not_be_made(client, stepwell_engine):
    class Awful(Exception):  # noqa: N818
        def __str__(self):
            raise RuntimeError("no text")

    @client.create_function(fn_id="f", trigger=GO, retries=0)
    async def f(ctx):
        raise Awful

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go")
        assert run.status is RunStatus.FAILED
        assert run.error.name == "Awful"
