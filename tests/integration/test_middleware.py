"""Middleware in runs of the real engine: which hooks, in which order, on which instances, entry by entry."""

from typing import Any

import pytest

from stepwell.client import Client
from stepwell.errors import NonRetriableError, StepError
from stepwell.events import Event
from stepwell.middleware import Middleware, MiddlewareSync
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from tests.support.runs import run_of

pytestmark = pytest.mark.anyio

_HOOKS = (
    "transform_input",
    "before_execution",
    "before_step",
    "after_step",
    "before_send_events",
    "after_send_events",
    "after_execution",
    "transform_output",
    "before_response",
)


def recorder(name: str, calls: list[tuple[int, str, str]], base: Any = MiddlewareSync) -> Any:
    """A middleware that notes `(instance, name, hook)`; its instances are numbered as they are made."""
    made: list[Any] = []

    def init(self, client, raw_request=None):
        base.__init__(self, client, raw_request)
        self.serial = len(made)
        made.append(self)

    def hook(which):
        def now(self, *args):
            calls.append((self.serial, name, which))

        async def later(self, *args):
            calls.append((self.serial, name, which))

        return later if base is Middleware else now

    return type(name, (base,), {"__init__": init} | {which: hook(which) for which in _HOOKS})


def entry_of(calls, serial):
    """What happened in one entry: "ABC hook" for a hook that A, B and C had in this order."""
    told: list[str] = []
    for number, name, hook in calls:
        if number != serial:
            continue
        names, _, last = told[-1].partition(" ") if told else ("", "", "")
        if last == hook and name not in names:
            told[-1] = f"{names}{name} {hook}"
        else:
            told.append(f"{name} {hook}")
    return told


_STEP = ["ABC before_step", "CBA after_step", "CBA transform_output"]
_SEND = ["ABC before_send_events", "CBA after_send_events"]
_BEGIN = ["ABC transform_input", "ABC before_execution"]
_END = ["CBA after_execution", "CBA transform_output", "ABC before_response"]


def steps_async(client, **options):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), **options)
    async def f(ctx):
        await ctx.step.run("one", lambda: 1)
        await ctx.step.send_event("tell", Event("t/told"))
        await ctx.step.sleep("nap", "1h")
        await ctx.step.run("two", lambda: 2)
        return "done"


def steps_sync(client, **options):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), **options)
    def f(ctx):
        ctx.step.run("one", lambda: 1)
        ctx.step.send_event("tell", Event("t/told"))
        ctx.step.sleep("nap", "1h")
        ctx.step.run("two", lambda: 2)
        return "done"


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (steps_async, (Middleware, Middleware, Middleware)),
        (steps_async, (Middleware, MiddlewareSync, Middleware)),
        (steps_async, (MiddlewareSync, MiddlewareSync, MiddlewareSync)),
        (steps_sync, (MiddlewareSync, MiddlewareSync, MiddlewareSync)),
    ],
    ids=["async", "mixed", "sync hooks", "sync"],
)
async def test_order_over_two_entries(stepwell_engine, make, kinds):
    calls: list[tuple[int, str, str]] = []
    a, b, c = (recorder(name, calls, kind) for name, kind in zip("ABC", kinds, strict=True))
    client = Client(app_id="shop", middleware=[a, b])
    make(client, middleware=[c])
    async with stepwell_engine(client) as engine:
        calls.clear()
        # An instance of the client's middleware serves the test's own `send`: it is not an entry's.
        [event_id] = await engine.client.send([Event("t/go")], skip_middleware=True)
        await engine.settle()
        await engine.advance("2h")
        assert (await engine.wait(event_id)).output == "done"
    first, second = (entry_of(calls, serial) for serial in (0, 1))
    assert first[:7] == [*_BEGIN, *_STEP, *_SEND]
    assert second == [*_BEGIN, *_STEP, *_END]
    assert {serial for serial, *_ in calls} == {0, 1}


async def test_nothing_left_to_replay_is_where_execution_begins(stepwell_engine):
    told: list[str] = []

    class Tell(Middleware):
        async def before_execution(self):
            told.append("before_execution")

        async def after_execution(self):
            told.append("after_execution")

    client = Client(app_id="shop", middleware=[Tell])

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        told.append("body")
        await ctx.step.sleep("nap", "1h")
        told.append("between")
        await ctx.step.run("one", lambda: told.append("one"))

    async with stepwell_engine(client) as engine:
        await run_of(engine, "t/go", after="2h")
    again = told[told.index("body", told.index("body") + 1) :]
    assert again == ["body", "between", "before_execution", "one", "after_execution"]


@pytest.mark.parametrize("make", ["async", "sync"])
async def test_what_the_function_raises_is_no_execution_that_ended(stepwell_engine, make):
    calls: list[tuple[int, str, str]] = []
    client = Client(app_id="shop", middleware=[recorder("A", calls), recorder("B", calls)])

    async def fails(ctx):
        raise NonRetriableError("no")

    def fails_too(ctx):
        raise NonRetriableError("no")

    handler = fails if make == "async" else fails_too
    client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))(handler)
    async with stepwell_engine(client) as engine:
        calls.clear()
        [event_id] = await engine.client.send([Event("t/go")], skip_middleware=True)
        assert (await engine.wait(event_id)).status is RunStatus.FAILED
    assert entry_of(calls, 0) == [
        "AB transform_input",
        "AB before_execution",
        "BA transform_output",
        "AB before_response",
    ]


@pytest.mark.parametrize("make", ["async", "sync"])
async def test_each_attempt_of_a_step_has_its_hooks_and_replay_has_none(stepwell_engine, make):
    seen: list[tuple[str, str, object]] = []
    tried: list[int] = []

    class Watch(MiddlewareSync):
        def before_step(self, step):
            seen.append(("before", step.id, str(step.op)))

        def after_step(self, result):
            seen.append(("after", result.step.id, result.output or type(result.error).__name__))

    client = Client(app_id="shop", middleware=[Watch])

    def flaky():
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("once")
        return "fine"

    async def handler(ctx):
        await ctx.step.run("first", lambda: 1)
        return await ctx.step.run("flaky", flaky)

    def handler_sync(ctx):
        ctx.step.run("first", lambda: 1)
        return ctx.step.run("flaky", flaky)

    client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))(
        handler if make == "async" else handler_sync
    )
    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go", after="5m")).output == "fine"
    assert seen == [
        ("before", "first", "StepRun"),
        ("after", "first", 1),
        ("before", "flaky", "StepRun"),
        ("after", "flaky", "RuntimeError"),
        ("before", "flaky", "StepRun"),
        ("after", "flaky", "fine"),
    ]


@pytest.mark.parametrize("make", ["async", "sync"])
async def test_what_hooks_change_is_what_is_recorded(stepwell_engine, make):
    class Change(MiddlewareSync):
        def transform_input(self, ctx, function, steps):
            ctx.event.data["n"] = ctx.event.data["n"] * 10

        def transform_output(self, result):
            if result.step is not None and result.error is not None:
                result.error = NonRetriableError(f"hidden: {result.step.id}")
            elif result.output is not None:
                result.output += 1

    client = Client(app_id="shop", middleware=[Change])

    def fail():
        raise RuntimeError("secret")

    async def handler(ctx):
        n = await ctx.step.run("n", lambda: ctx.event.data["n"])
        await ctx.step.sleep("nap", "1h")
        with pytest.raises(StepError, match="hidden: fails"):
            await ctx.step.run("fails", fail)
        return n

    def handler_sync(ctx):
        n = ctx.step.run("n", lambda: ctx.event.data["n"])
        ctx.step.sleep("nap", "1h")
        with pytest.raises(StepError, match="hidden: fails"):
            ctx.step.run("fails", fail)
        return n

    client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))(
        handler if make == "async" else handler_sync
    )
    async with stepwell_engine(client) as engine:
        run = await run_of(engine, Event("t/go", {"n": 3}), after="2h")
    assert run.output == 32  # 3 * 10, + 1 as the step's output, + 1 as the function's


async def test_a_send_by_a_step_is_changed_and_told_of(stepwell_engine):
    results: list[object] = []

    class Stamp(Middleware):
        async def before_send_events(self, events):
            for event in events:
                event.data["by"] = "middleware"
            events.append(Event("t/extra", {}))

        async def after_send_events(self, result):
            results.append((len(result.ids), result.error))

    client = Client(app_id="shop")

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), middleware=[Stamp])
    async def f(ctx):
        return len(await ctx.step.send_event("tell", Event("t/told", {})))

    @client.create_function(fn_id="heard", trigger=TriggerEvent("t/told"))
    async def heard(ctx):
        return ctx.event.data

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go")).output == 2
        await engine.settle()
        [run] = await engine.runs("heard")
    assert run.output == {"by": "middleware"}
    assert results == [(2, None)]


async def test_a_client_outside_a_run_has_its_own_hooks_only(stepwell_engine):
    calls: list[tuple[int, str, str]] = []
    client = Client(app_id="shop", middleware=[recorder("A", calls), recorder("B", calls)])
    steps_async(client, middleware=[recorder("C", calls)])
    async with stepwell_engine(client) as engine:
        calls.clear()
        await engine.client.send(Event("t/nobody"))
        assert entry_of(calls, 0) == ["AB before_send_events", "BA after_send_events"]
