"""`step.invoke` and `client.invoke`: results, failures, timeouts, unknown functions, cancelled children (semantics §4)."""

import asyncio

import pytest

from stepwell import Client, Event, NonRetriableError, StepError, TriggerEvent, reference_function
from stepwell.errors import (
    FunctionNotFoundError,
    InvokeTimeoutError,
    RunCancelledError,
    RunFailedError,
)
from stepwell.records import RunStatus
from tests.support.runs import run_of, step

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")


async def test_a_child_gives_its_result(client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx):
        assert ctx.event.name == "inngest/function.invoked"
        await ctx.step.sleep("nap", "1h")
        return {"got": ctx.event.data["n"] + 1}

    @client.create_function(fn_id="child-sync")
    def child_sync(ctx):
        ctx.step.sleep("nap", "1h")
        return ctx.event.data["n"] + 10

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        a = await ctx.step.invoke("a", function=child, data={"n": 1})
        b = await ctx.step.invoke_by_id("b", function_id="child-sync", data={"n": 1})
        return [a, b]

    @client.create_function(fn_id="parent-sync", trigger=TriggerEvent("t/go2"))
    def parent_sync(ctx):
        return ctx.step.invoke("a", function=child, data={"n": 5})

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="3h")
        assert run.output == [{"got": 2}, 11]
        assert (await run_of(engine, "t/go2", after="3h")).output == {"got": 6}
        [found] = [r for r in await engine.runs("child") if r.parent_run_id == run.id]
        assert found.status is RunStatus.COMPLETED


async def test_a_child_of_another_app(stepwell_engine):
    shop, billing = Client(app_id="shop"), Client(app_id="billing")

    @billing.create_function(fn_id="invoice")
    async def invoice(ctx):
        return f"invoice for {ctx.event.data['order']}"

    @shop.create_function(fn_id="order", trigger=GO)
    async def order(ctx):
        reference = reference_function(app_id="billing", function_id="invoice")
        return [
            await ctx.step.invoke("a", function=reference, data={"order": 7}),
            await ctx.step.invoke_by_id(
                "b", app_id="billing", function_id="invoice", data={"order": 8}
            ),
        ]

    async with stepwell_engine([shop, billing]) as engine:
        assert (await run_of(engine, "t/go")).output == ["invoice for 7", "invoice for 8"]


async def test_a_child_that_fails_raises_at_once(client, stepwell_engine):
    @client.create_function(fn_id="child", retries=0)
    async def child(ctx):
        raise ValueError("child's reason")

    @client.create_function(fn_id="catches", trigger=GO)
    async def catches(ctx):
        try:
            await ctx.step.invoke("child", function=child)
        except StepError as error:
            return [error.name, error.message, error.step_id]

    @client.create_function(fn_id="lets", trigger=TriggerEvent("t/go2"))
    async def lets(ctx):
        await ctx.step.invoke("child", function=child)

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go")).output == ["ValueError", "child's reason", "child"]
        run = await run_of(engine, "t/go2")
        assert run.status is RunStatus.FAILED
        assert run.error.message == "child's reason"


async def test_an_invoke_times_out_and_the_child_goes_on(client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("long", "1d")
        return "late"

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        try:
            return await ctx.step.invoke("child", function=child, timeout="1h")
        except StepError as error:
            return [error.name, error.message]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="2h")
        assert run.output == [
            "InngestInvokeTimeoutError",
            "Timed out waiting for invoked function to complete",
        ]
        await engine.advance("2d")
        [child_run] = await engine.runs("child")
        assert child_run.output == "late"
        assert (await engine.run(run.id)).output == run.output


async def test_an_unknown_function_is_an_error_at_once(client, stepwell_engine):
    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        try:
            await ctx.step.invoke_by_id("child", function_id="nobody")
        except StepError as error:
            return [error.name, error.message]

    async with stepwell_engine(client) as engine:
        name, message = (await run_of(engine, "t/go")).output
        assert name == "FunctionNotFoundError"
        assert "nobody" in message


async def test_a_cancelled_child_ends_the_wait(client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("long", "1d")

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        try:
            await ctx.step.invoke("child", function=child)
        except StepError as error:
            return error.name

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        [child_run] = await engine.runs("child")
        await engine.client.cancel_run(child_run.id)
        assert (await engine.wait(event_id)).output == "RunCancelledError"


@pytest.mark.parametrize("cancel_child", [True, False])
async def test_children_of_a_cancelled_parent(client, stepwell_engine, cancel_child):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("long", "1d")
        return "survived"

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        await ctx.step.invoke("child", function=child, cancel_child=cancel_child)

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.settle()
        [parent_run] = await engine.runs("parent")
        await engine.client.cancel_run(parent_run.id)
        await engine.advance("2d")
        [child_run] = await engine.runs("child")
        expected = RunStatus.CANCELLED if cancel_child else RunStatus.COMPLETED
        assert child_run.status is expected
        assert (await engine.run(parent_run.id)).status is RunStatus.CANCELLED


@pytest.mark.parametrize("cancel_child", [True, False])
async def test_children_whose_parent_gave_up(client, stepwell_engine, cancel_child):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("long", "1d")
        return "survived"

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        try:
            await ctx.step.invoke("child", function=child, timeout="1h", cancel_child=cancel_child)
        except StepError as error:
            await ctx.step.sleep("on", "7d")
            return error.name

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.advance("2d")
        [child_run] = await engine.runs("child")
        expected = RunStatus.CANCELLED if cancel_child else RunStatus.COMPLETED
        assert child_run.status is expected
        await engine.advance("7d")
        assert (await engine.wait(event_id)).output == "InngestInvokeTimeoutError"


async def test_many_children_at_once(client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("nap", 1000 * (ctx.event.data["n"] % 5 + 1))
        return ctx.event.data["n"] ** 2

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        return await asyncio.gather(
            *(ctx.step.invoke(f"child {n}", function=child, data={"n": n}) for n in range(40))
        )

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1m")
        assert run.output == [n**2 for n in range(40)]


async def test_a_function_that_invokes_itself(client, stepwell_engine):
    @client.create_function(fn_id="fib")
    async def fib(ctx):
        n = ctx.event.data["n"]
        if n < 2:
            return n
        a, b = await ctx.group.parallel(
            (
                lambda: ctx.step.invoke_by_id("a", function_id="fib", data={"n": n - 1}),
                lambda: ctx.step.invoke_by_id("b", function_id="fib", data={"n": n - 2}),
            )
        )
        return a + b

    async with stepwell_engine(client, concurrency=2) as engine:
        # Waiting holds no slot: more runs wait than there are slots.
        assert await engine.client.invoke(fib, data={"n": 6}, timeout="10s") == 8


async def test_client_invoke(client, stepwell_engine):
    @client.create_function(fn_id="child", retries=0)
    async def child(ctx):
        what = ctx.event.data.get("what")
        if what == "fail":
            raise NonRetriableError("refused")
        if what == "sleep":
            await ctx.step.sleep("long", "1d")
        return what

    async with stepwell_engine(client) as engine:
        assert await client.invoke(child, data={"what": "hello"}) == "hello"
        assert await client.invoke("shop-child") is None
        with pytest.raises(RunFailedError, match="refused") as failed:
            await client.invoke(child, data={"what": "fail"})
        assert failed.value.name == "NonRetriableError"
        with pytest.raises(InvokeTimeoutError):
            await client.invoke(child, data={"what": "sleep"}, timeout="100ms")
        with pytest.raises(FunctionNotFoundError, match="nobody"):
            await client.invoke("shop-nobody")
        invoking = asyncio.create_task(client.invoke(child, data={"what": "sleep"}))
        await engine.settle()
        for run in await engine.runs("child"):
            if not run.status.ended:
                await client.cancel_run(run.id)
        with pytest.raises(RunCancelledError):
            await invoking


async def test_what_a_parent_shows_while_it_waits(client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("long", "1d")

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        await ctx.step.invoke("child", function=child)

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        [run] = await engine.runs("parent")
        assert run.status is RunStatus.WAITING
        assert step(run, "child").op == "invoke"
        assert step(run, "child").details["fn"] == "child"
        await engine.advance("2d")
        await engine.wait(event_id)
