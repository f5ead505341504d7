"""Middleware at the ends of entries: suspended, failed by a hook of its own, refused; and what it attaches to a context."""

from typing import Any

import pytest

from stepwell.client import Client
from stepwell.events import Event
from stepwell.limits import Limits
from stepwell.middleware import Middleware, MiddlewareSync
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from tests.support.runs import run_of

pytestmark = pytest.mark.anyio


def handlers(client, kind, **options):
    """A function that sleeps twice and then returns what the middleware attached to its context."""

    async def handler(ctx):
        await ctx.step.run("one", lambda: 1)
        await ctx.step.sleep("nap", "1h")
        await ctx.step.sleep("again", "1h")
        return ctx.attached

    def handler_sync(ctx):
        ctx.step.run("one", lambda: 1)
        ctx.step.sleep("nap", "1h")
        ctx.step.sleep("again", "1h")
        return ctx.attached

    handle = handler if kind == "async" else handler_sync
    client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), **options)(handle)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_entry_that_is_suspended_has_an_end_too(stepwell_engine, kind):
    made: list[Any] = []

    class Session(MiddlewareSync):
        def __init__(self, client, raw_request=None):
            super().__init__(client, raw_request)
            self.told: list[str] = []
            made.append(self)

        def transform_input(self, ctx, function, steps):
            ctx.attached = f"entry {len(made)}"
            self.told.append("transform_input")

        def before_execution(self):
            self.told.append("before_execution")

        def after_execution(self):
            self.told.append("after_execution")

        def before_response(self):
            self.told.append("before_response")

    client = Client(app_id="shop")
    handlers(client, kind, middleware=[Session])
    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="3h")
    assert run.output == "entry 3"
    whole = ["transform_input", "before_execution", "after_execution", "before_response"]
    assert [session.told for session in made] == [whole] * 3


_CALLED = ("transform_input", "before_execution", "after_execution", "transform_output")


@pytest.mark.parametrize("hook", [*_CALLED, "before_response", "__init__"])
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_hook_that_raises_is_the_runs_error_and_the_run_is_tried_again(
    stepwell_engine, kind, hook
):
    raised: list[int] = []

    def fail(self, *args):
        raised.append(1)
        raise RuntimeError(f"{hook} is broken")

    class Attach(MiddlewareSync):
        def transform_input(self, ctx, function, steps):
            ctx.attached = 1

    broken = type("Broken", (MiddlewareSync,), {hook: fail})
    client = Client(app_id="shop")
    handlers(client, kind, retries=1, middleware=[Attach, broken])
    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="6h")
    assert run.status is RunStatus.FAILED
    assert run.error.message == f"{hook} is broken"
    assert len(raised) >= 2


async def test_async_middleware_is_refused_for_a_sync_function(stepwell_engine):
    client = Client(app_id="shop", middleware=[Middleware])
    handlers(client, "sync")
    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
    assert run.status is RunStatus.FAILED
    assert "encountered async middleware in non-async context" in run.error.message


async def test_a_send_that_fails_is_told_with_its_error(stepwell_engine):
    results: list[tuple[list[str], str]] = []

    class Told(Middleware):
        async def after_send_events(self, result):
            results.append((result.ids, result.error))

    client = Client(app_id="shop", limits=Limits(run_state=300))

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), middleware=[Told], retries=0)
    async def f(ctx):
        await ctx.step.run("fills", lambda: "x" * 200)
        await ctx.step.send_event("tell", [Event("t/told") for _ in range(9)])

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go")
    assert run.status is RunStatus.FAILED
    [(ids, error)] = results
    assert ids == []
    assert "run_state" in error
