"""`stepwell.testing.mocked`: one function, no server."""

import asyncio
from dataclasses import dataclass

import pytest

from stepwell import Event, Middleware, MiddlewareSync, NonRetriableError, StepError, TriggerEvent
from stepwell.errors import ConfigError, OutputUnserializableError, StepNestedError
from stepwell.testing import mocked

client = mocked.Client(app_id="shop")
GO = TriggerEvent("t/go")
_serial = iter(range(1000))


def function(handler, **options):
    return client.create_function(fn_id=f"f{next(_serial)}", trigger=GO, **options)(handler)


@dataclass
class Charge:
    cents: int


def test_steps_run_and_sleeps_are_skipped():
    async def handler(ctx):
        a = await ctx.step.run("a", lambda: 1)
        await ctx.step.sleep("nap", "7d")
        b, c = await ctx.group.parallel(
            (lambda: ctx.step.run("b", lambda: 2), lambda: ctx.step.run("c", lambda: (3,)))
        )
        return {"sum": a + b, "c": c, "name": ctx.event.data["name"], "run": ctx.run_id}

    result = mocked.trigger(function(handler), Event("t/go", {"name": "mia"}), client)
    assert result == mocked.Result(
        mocked.Status.COMPLETED, {"sum": 3, "c": [3], "name": "mia", "run": "test"}
    )


def test_sync_functions():
    def handler(ctx):
        a = ctx.step.run("a", lambda: 1)
        ctx.step.sleep("nap", "7d")
        return [a, *ctx.group.parallel((lambda: ctx.step.run("b", lambda: 2), lambda: 3))]

    assert mocked.trigger(function(handler), Event("t/go"), client).output == [1, 2, 3]


@pytest.mark.anyio
async def test_from_async_callers():
    async def handler(ctx):
        await asyncio.sleep(0)
        return await ctx.step.run("a", lambda: 1)

    assert mocked.trigger(function(handler), Event("t/go"), client).output == 1


def test_stubs_by_id():
    ran = []

    async def handler(ctx):
        a = await ctx.step.run("a", lambda: ran.append("a"))
        news = await ctx.step.wait_for_event("news", event="t/news", timeout="1h")
        none = await ctx.step.wait_for_event("none", event="t/news", timeout="1h")
        child = await ctx.step.invoke_by_id("child", function_id="other")
        signal = await ctx.step.wait_for_signal("signal", signal="s", timeout="1h")
        return [a, news.data, none, child, signal]

    stubs = {
        "a": "stub",
        "news": Event("t/news", {"x": 1}),
        "none": mocked.Timeout,
        "child": {"y": 2},
        "signal": 3,
    }
    result = mocked.trigger(function(handler), Event("t/go"), client, step_stubs=stubs)
    assert result.output == ["stub", {"x": 1}, None, {"y": 2}, 3]
    assert ran == []


def test_an_invoke_that_times_out_or_fails():
    async def handler(ctx):
        try:
            return await ctx.step.invoke_by_id("child", function_id="other")
        except StepError as error:
            return [error.name, error.message]

    fn = function(handler)
    timed_out = mocked.trigger(fn, Event("t/go"), client, step_stubs={"child": mocked.Timeout})
    assert timed_out.output[0] == "InngestInvokeTimeoutError"
    failed = mocked.trigger(fn, Event("t/go"), client, step_stubs={"child": ValueError("no")})
    assert failed.output == ["ValueError", "no"]


def test_what_is_not_stubbed_is_said_even_when_it_is_caught():
    async def handler(ctx):
        try:
            await ctx.step.wait_for_event("news", event="t/news", timeout="1h")
        except Exception:
            return "caught"

    with pytest.raises(mocked.UnstubbedStepError, match="step news is not stubbed"):
        mocked.trigger(function(handler), Event("t/go"), client)


def test_retries_happen_at_once():
    tried, bodies = [], []

    def flaky():
        tried.append(1)
        if len(tried) < 3:
            raise RuntimeError("again")
        return len(tried)

    async def handler(ctx):
        bodies.append(ctx.attempt)
        value = await ctx.step.run("flaky", flaky)
        if ctx.attempt < 2:
            raise RuntimeError("body")
        return value

    assert mocked.trigger(function(handler), Event("t/go"), client).output == 3
    assert len(tried) == 3
    assert bodies == [0, 1, 2]


def test_failures():
    async def final(ctx):
        raise NonRetriableError("no")

    async def step(ctx):
        await ctx.step.run("bad", lambda: 1 / 0)

    async def nested(ctx):
        async def inner():
            await ctx.step.run("inner", lambda: 1)

        await ctx.step.run("outer", inner)

    async def unserializable(ctx):
        return object()

    def failure(handler):
        result = mocked.trigger(function(handler, retries=1), Event("t/go"), client)
        assert result.status is mocked.Status.FAILED
        assert result.output is None
        return result.error

    assert isinstance(failure(final), NonRetriableError)
    error = failure(step)
    assert isinstance(error, StepError)
    assert (error.name, error.step_id) == ("ZeroDivisionError", "bad")
    assert StepNestedError.__name__ in (failure(nested).name, type(error).__name__)
    assert isinstance(failure(unserializable), OutputUnserializableError)


def test_typed_results_come_back_typed():
    async def charge() -> Charge:
        return Charge(5)

    async def handler(ctx) -> Charge:
        found = await ctx.step.run("charge", charge)
        assert isinstance(found, Charge)
        return Charge(found.cents * 2)

    assert mocked.trigger(function(handler), Event("t/go"), client).output == Charge(10)


def test_race_and_send():
    async def handler(ctx):
        ids = await ctx.step.send_event("send", [Event("t/a"), Event("t/b")])
        sent = await client.send(Event("t/c"))
        first = await ctx.group.race(
            lambda: ctx.step.run("quick", lambda: "quick"), lambda: asyncio.sleep(20)
        )
        return [ids, sent, first, await ctx.step.send_signal("s", signal="s")]

    result = mocked.trigger(function(handler), Event("t/go"), client)
    assert result.output == [["0" * 26] * 2, ["0" * 26], "quick", None]


def test_middleware_hooks_run():
    order = []

    class Async(Middleware):
        async def transform_input(self, ctx, function, steps):
            ctx.extra = "from middleware"

        async def before_step(self, step):
            order.append(f"before {step.id}")

        async def transform_output(self, result):
            if result.step is None:
                result.output = [result.output, "changed"]

    class Sync(MiddlewareSync):
        def before_execution(self):
            order.append("before execution")

    async def handler(ctx):
        return [ctx.extra, await ctx.step.run("a", lambda: 1)]

    async_fn = function(handler, middleware=[Async, Sync])
    assert mocked.trigger(async_fn, Event("t/go"), client).output == [
        ["from middleware", 1],
        "changed",
    ]
    assert order == ["before execution", "before a"]
    sync_fn = function(lambda ctx: 1, middleware=[Sync])
    assert mocked.trigger(sync_fn, Event("t/go"), client).output == 1


def test_bad_arguments():
    fn = function(lambda ctx: 1)
    with pytest.raises(ConfigError, match="event="):
        mocked.trigger(fn, [], client)
    with pytest.raises(ConfigError, match="no server"):
        client.get_run_sync("01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
    client.close()
