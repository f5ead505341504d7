"""`step.run`: callbacks of every kind, values, identity, limits (semantics §4)."""

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from stepwell import Client, Event, Limits, StepError, TriggerEvent
from stepwell.errors import OutputUnserializableError
from stepwell.records import RunStatus, StepStatus
from tests.support.runs import run_of, step

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")


@dataclass
class Address:
    city: str


class Order(BaseModel):
    id: int
    total: Decimal
    address: Address


async def test_async_sync_and_partial_callbacks(client, stepwell_engine):
    threads = {}

    async def asynchronous(a, b):
        threads["async"] = threading.current_thread()
        return a + b

    def synchronous(a, b):
        threads["sync"] = threading.current_thread()
        return a * b

    def gives_awaitable(a):
        return asynchronous(a, a)

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return [
            await ctx.step.run("async", asynchronous, 2, 3),
            await ctx.step.run("sync", synchronous, 2, 3),
            await ctx.step.run("partial", partial(synchronous, 4), 5),
            await ctx.step.run("lambda", lambda: asynchronous(1, 1)),
            await ctx.step.run("awaitable", gives_awaitable, 7),
        ]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go")
        assert run.output == [5, 6, 20, 2, 14]
        assert threads["async"] is threading.main_thread()
        assert threads["sync"] is not threading.main_thread()


async def test_a_sync_handler_runs_its_steps_on_its_own_thread(client, stepwell_engine):
    names: list[Any] = []

    @client.create_function(fn_id="f", trigger=GO)
    def f(ctx):
        names.append(threading.current_thread())
        names.append(ctx.step.run("a", threading.current_thread) is None)
        return "never"

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/go2"))
    def g(ctx):
        def where():
            names.append(threading.current_thread())
            return 1

        names.append(threading.current_thread())
        a = ctx.step.run("a", where)
        ctx.step.sleep("nap", "1m")
        return a + ctx.step.run("b", lambda: 2)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go")
        assert run.status is RunStatus.FAILED
        assert run.error.name == "OutputUnserializableError"
        names.clear()
        run = await run_of(engine, "t/go2", after="2m")
        assert run.output == 3
        assert names[0] is names[1]


async def test_values_come_back_as_they_went_in(client, stepwell_engine):
    value = {
        "datetime": datetime(2027, 1, 2, 3, 4, 5, 678000, UTC),
        "date": date(2027, 1, 2),
        "bytes": b"\x00\xff",
        "decimal": Decimal("1.10"),
        "uuid": UUID(int=7),
        "set": {1, 2},
        "nested": [{"a": None, "b": [True, 1.5, "ü"]}],
        "big": 2**63,
    }

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        found = await ctx.step.run("value", lambda: value)
        assert found == value
        await ctx.step.sleep("nap", "1m")
        return found

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="2m")
        assert run.output == value
        assert step(run, "value").output == value


async def test_dataclasses_and_models_by_annotation_and_by_output_type(client, stepwell_engine):
    def annotated() -> Address:
        return Address("Bern")

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx) -> Order:
        address = await ctx.step.run("annotated", annotated)
        assert isinstance(address, Address)
        order = await ctx.step.run(
            "typed", lambda: Order(id=1, total=Decimal("2.50"), address=address), output_type=Order
        )
        assert isinstance(order, Order)
        orders = await ctx.step.run("list", lambda: [order, order], output_type=list[Order])
        assert all(isinstance(o, Order) for o in orders)
        await ctx.step.sleep("nap", "1m")
        return order

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="2m")
        assert run.status is RunStatus.COMPLETED, run.error
        assert Order.model_validate(run.output).address.city == "Bern"
        typed = await client.invoke(f, timeout="10s") if False else None
        assert typed is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "output"),
        ({"items": [1, {"price": float("nan")}]}, "output.items[1].price"),
        ({"when": datetime(2027, 1, 1)}, "output.when"),  # noqa: DTZ001
        ({1: 2}, "output"),
        ([2**64], "output[0]"),
    ],
)
async def test_what_can_not_be_stored_fails_naming_its_path(client, stepwell_engine, value, path):
    tried = []

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        def bad():
            tried.append(1)
            return value

        await ctx.step.run("bad", bad)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.status is RunStatus.FAILED
        assert run.error.name == "OutputUnserializableError"
        assert '"bad" returned unserializable data' in run.error.message
        assert path in run.error.message
        assert tried == [1]


async def test_an_unserializable_step_can_be_caught(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        try:
            await ctx.step.run("bad", lambda: object())
        except (StepError, OutputUnserializableError) as error:
            return type(error).__name__
        return "went on"

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1m")
        assert run.output in ("StepError", "OutputUnserializableError")


async def test_limits_of_outputs_state_and_steps(stepwell_engine):
    client = Client(app_id="shop", limits=Limits(step_output=1000, run_state=5000, steps=20))

    @client.create_function(fn_id="output", trigger=TriggerEvent("t/output"))
    async def output(ctx):
        await ctx.step.run("big", lambda: "x" * 2000)

    @client.create_function(fn_id="result", trigger=TriggerEvent("t/result"))
    async def result(ctx):
        return "x" * 2000

    @client.create_function(fn_id="state", trigger=TriggerEvent("t/state"))
    async def state(ctx):
        for n in range(10):
            await ctx.step.run(f"s{n}", lambda: "x" * 900)

    @client.create_function(fn_id="steps", trigger=TriggerEvent("t/steps"))
    async def steps(ctx):
        for n in range(30):
            await ctx.step.run(f"s{n}", lambda n=n: n)

    async with stepwell_engine(client) as engine:
        for name in ("output", "result", "state", "steps"):
            run = await run_of(engine, f"t/{name}", after="1d")
            assert run.status is RunStatus.FAILED, name
            assert run.error.name == "LimitExceededError", name
            assert "Limits(" in run.error.message, run.error.message


async def test_repeated_ids_are_steps_of_their_own(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        found = []
        for n in range(3):
            found.append(await ctx.step.run("same", lambda n=n: n))
            await ctx.step.sleep("nap", "1m")
        found.append(await ctx.step.run("same:1", lambda: "other"))
        return found

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="5m")
        assert run.output == [0, 1, 2, "other"]
        assert len({s.key for s in run.steps}) == 7


async def test_a_step_in_a_step_is_an_error(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        async def outer():
            return await ctx.step.run("inner", lambda: 1)

        await ctx.step.run("outer", outer)

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/go2"))
    def g(ctx):
        ctx.step.run("outer", lambda: ctx.step.sleep("inner", "1s"))

    async with stepwell_engine(client) as engine:
        for name in ("t/go", "t/go2"):
            run = await run_of(engine, name, after="1d")
            assert run.status is RunStatus.FAILED
            assert run.error.message == "Nested steps are not supported."
            assert len(step(run, "outer").attempts) == 1


@pytest.mark.parametrize("step_id", ["", "x" * 256, None, 7])
async def test_bad_step_ids(client, stepwell_engine, step_id):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await ctx.step.run(step_id, lambda: 1)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.status is RunStatus.FAILED
        assert "step_id" in run.error.message
        assert len(run.attempts) == 1


async def test_attempt_numbers_and_context(client, stepwell_engine):
    seen: list[Any] = []

    @client.create_function(fn_id="f", trigger=GO, retries=2)
    async def f(ctx):
        def flaky():
            seen.append(("step", ctx.attempt))
            if ctx.attempt < 2:
                raise RuntimeError("again")

        await ctx.step.run("flaky", flaky)
        seen.append(("body", ctx.attempt, ctx.max_attempts))
        if ctx.attempt < 1:
            raise RuntimeError("body")
        return [ctx.run_id, ctx.function_id, ctx.fn_id, ctx.app_id, ctx.event.name, len(ctx.events)]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, Event("t/go"), after="1h")
        assert run.output == [run.id, "shop-f", "f", "shop", "t/go", 1]
        assert seen == [("step", 0), ("step", 1), ("step", 2), ("body", 0, 3), ("body", 1, 3)]
        record = step(run, "flaky")
        assert record.status is StepStatus.COMPLETED
        assert len(record.attempts) == 2


async def test_a_slow_sync_step_does_not_block_the_loop(client, stepwell_engine):
    release = threading.Event()

    @client.create_function(fn_id="slow", trigger=GO)
    async def slow(ctx):
        return await ctx.step.run("slow", lambda: release.wait(10))

    @client.create_function(fn_id="quick", trigger=TriggerEvent("t/quick"))
    async def quick(ctx):
        return await ctx.step.run("quick", lambda: "quick")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        [quick_id] = await engine.send(Event("t/quick"))
        assert (await engine.wait(quick_id)).output == "quick"
        release.set()
        assert (await engine.wait(event_id)).output is True


async def test_a_step_timeout_ends_a_hung_step(client, stepwell_engine):
    tried = []

    @client.create_function(fn_id="f", trigger=GO, step_timeout="1s", retries=1)
    async def f(ctx):
        async def hang():
            tried.append(1)
            await asyncio.Event().wait()

        await ctx.step.run("hang", hang)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.status is RunStatus.FAILED
        assert len(tried) == 2
        assert "1s" in run.error.message or "step_timeout" in run.error.message
