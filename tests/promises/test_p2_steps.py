"""P2: a step's callback runs at least once, its result is recorded once, and a recorded step never runs again."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from stepwell.events import Event
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from tests.support.runs import run_of, step, until

pytestmark = pytest.mark.anyio


async def test_recorded_steps_stay_recorded_over_sleeps_waits_and_retries(client, stepwell_engine):
    ran: Counter[str] = Counter()

    def work(name):
        ran[name] += 1
        return f"{name}{ran[name]}"

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        ran["body"] += 1
        a = await ctx.step.run("a", work, "a")
        await ctx.step.sleep("nap", "1h")
        b = await ctx.step.run("b", work, "b")
        await ctx.step.wait_for_event("news", event="t/news", timeout="1d")
        if ran["body"] < 5:
            raise RuntimeError("the body fails after its steps")
        c = await ctx.step.run("c", work, "c")
        return [a, b, c]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="3d")
        assert run.output == ["a1", "b1", "c1"]
        assert {k: v for k, v in ran.items() if k != "body"} == {"a": 1, "b": 1, "c": 1}
        assert len(run.attempts) == ran["body"] - 3  # entries: first, after the nap, after the wait


async def test_a_step_cut_off_by_a_crash_runs_again_and_those_before_it_do_not(
    client, stepwell_engine
):
    ran: Counter[str] = Counter()
    hang = True

    async def slow():
        ran["slow"] += 1
        if hang:
            await asyncio.Event().wait()
        return "slow"

    def quick():
        ran["quick"] += 1
        return "quick"

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return [await ctx.step.run("quick", quick), await ctx.step.run("slow", slow)]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await until(lambda: ran["slow"])
        await engine.kill_worker()
        hang = False
        await engine.start_worker()
        await engine.advance("1m")
        run = await engine.wait(event_id)
        assert run.output == ["quick", "slow"]
        assert ran == {"quick": 1, "slow": 2}
        assert run.attempts == ()  # a lost worker is no attempt of the user's code
        assert step(run, "slow").attempts == ()


async def test_a_deploy_loses_nothing(client, stepwell_engine):
    ran: Counter[Any] = Counter()

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        n = ctx.event.data["n"]

        async def work(part):
            ran[n, part] += 1
            await asyncio.sleep(0)
            return part

        return [await ctx.step.run(f"s{part}", work, part) for part in range(10)]

    async with stepwell_engine(client, concurrency=5) as engine:
        ids = await engine.send([Event("t/go", {"n": n}) for n in range(30)])
        await until(lambda: len(ran) > 20)
        await engine.restart_worker()
        runs = [await engine.wait(event_id) for event_id in ids]
        assert all(run.output == list(range(10)) for run in runs)
        assert set(ran.values()) == {1}  # a drain lets steps in flight end and be recorded


async def test_what_a_step_returned_is_what_replay_returns(client, stepwell_engine):
    seen = []

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        value = await ctx.step.run("tuple", lambda: {"t": (1, 2), "s": {3}})
        seen.append(value)
        await ctx.step.sleep("nap", "1m")
        return value

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="2m")
        assert seen == [{"t": [1, 2], "s": {3}}] * 2
        assert run.output == seen[0]


async def test_a_step_that_succeeds_after_failures_is_recorded_once(client, stepwell_engine):
    ran: Counter[str] = Counter()

    def flaky():
        ran["flaky"] += 1
        if ran["flaky"] < 4:
            raise RuntimeError(f"attempt {ran['flaky']}")
        return ran["flaky"]

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return await ctx.step.run("flaky", flaky)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.status is RunStatus.COMPLETED
        assert run.output == 4
        record = step(run, "flaky")
        assert [a.error.message for a in record.attempts] == ["attempt 1", "attempt 2", "attempt 3"]
        assert [a.number for a in record.attempts] == [0, 1, 2]
