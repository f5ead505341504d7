"""Runs that are cancelled are counted by what asked for it (docs/running.md)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from stepwell import Cancel, Client, Context, Event, Singleton, Timeouts, TriggerEvent
from stepwell.testing.engine import Engine

pytestmark = pytest.mark.anyio

GO = TriggerEvent("t/go")
Act = Callable[[Engine], Awaitable[object]]


async def stop(engine: Engine) -> None:
    await engine.send(Event("t/stop"))


async def by_id(engine: Engine) -> None:
    (run,) = await engine.runs("f")
    await engine.client.cancel_run(run.id)


async def pass_time(engine: Engine) -> None:
    await engine.advance("1h")


async def again(engine: Engine) -> None:
    await engine.send(Event("t/go"))


async def all_of_it(engine: Engine) -> None:
    await engine.client.cancel_runs(fn_id="f")


async def remove(engine: Engine) -> None:
    await engine.client.remove_function("f", runs="cancel")


def counted(engine: Engine) -> dict[tuple[str, str], float]:
    (family,) = engine.coordinator.metrics.runs_cancelled.collect()
    return {
        (s.labels["function"], s.labels["reason"]): s.value
        for s in family.samples
        if s.name.endswith("_total")
    }


@pytest.mark.parametrize(
    ("reason", "options", "act"),
    [
        ("event", {"cancel": [Cancel(event="t/stop")]}, stop),
        ("timeout_finish", {"timeouts": Timeouts(finish="10m")}, pass_time),
        ("singleton", {"singleton": Singleton(mode="cancel")}, again),
        ("api", {}, by_id),
        ("bulk", {}, all_of_it),
        ("removed", {}, remove),
    ],
)
async def test_a_cancelled_run_is_counted(client: Client, stepwell_engine, reason, options, act):
    seen: list[str] = []

    @client.create_function(fn_id="f", trigger=GO, **options)
    async def f(ctx: Context) -> None:
        await ctx.step.sleep("nap", "3h")

    @client.create_function(fn_id="hears", trigger=TriggerEvent("inngest/function.cancelled"))
    async def hears(ctx: Context) -> None:
        seen.append(ctx.event.data["error"]["reason"])

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.settle()
        await act(engine)
        await engine.settle()
        assert counted(engine) == {("f", reason): 1}
        assert seen == [reason]


async def test_one_that_did_not_begin_in_time(client: Client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO, timeouts=Timeouts(start="10m"))
    async def f(ctx: Context) -> None:
        raise AssertionError("nobody runs it")

    async with stepwell_engine(client) as engine:
        await engine.stop_worker()
        await engine.send(Event("t/go"))
        await engine.settle()
        await engine.advance("11m")
        await engine.settle()
        assert counted(engine) == {("f", "timeout_start"): 1}


async def test_one_that_executes_is_counted_when_it_has_stopped(client: Client, stepwell_engine):
    begun = asyncio.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    @client.create_function(fn_id="f", trigger=GO, cancel=[Cancel(event="t/stop")])
    async def f(ctx: Context) -> None:
        await ctx.step.run("forever", forever)

    async with stepwell_engine(client) as engine:
        (event,) = await engine.send(Event("t/go"))
        await begun.wait()
        await engine.send(Event("t/stop"))
        await engine.wait(event)
        await engine.settle()
        assert counted(engine) == {("f", "event"): 1}


async def test_one_that_tells_nobody_of_its_end_is_counted_too(client: Client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx: Context) -> None:
        pass

    @client.create_function(fn_id="after", trigger=TriggerEvent("inngest/function.finished"))
    async def after(ctx: Context) -> None:
        await ctx.step.sleep("nap", "3h")

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.settle()
        (run,) = await engine.runs("after")
        await engine.client.cancel_run(run.id)
        await engine.settle()
        assert counted(engine) == {("after", "api"): 1}


async def test_a_child_that_goes_with_its_parent(client: Client, stepwell_engine):
    @client.create_function(fn_id="child")
    async def child(ctx: Context) -> None:
        await ctx.step.sleep("nap", "3h")

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx: Context) -> None:
        await ctx.step.invoke("call", function=child)

    async with stepwell_engine(client) as engine:
        (event,) = await engine.send(Event("t/go"))
        await engine.settle()
        (run,) = (await engine.event(event)).run_ids
        await engine.client.cancel_run(run, children=True)
        await engine.settle()
        assert counted(engine) == {("f", "api"): 1, ("child", "parent"): 1}
