"""Branches: `group.parallel`, `group.race`, gather, task groups, `distribute=True` (semantics §4)."""

import asyncio
import threading
from collections import Counter

import anyio
import pytest

from stepwell import Event, ParallelMode, StepError, TriggerEvent
from stepwell.records import RunStatus
from tests.support.runs import run_of, step, until

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")


@pytest.mark.parametrize("distribute", [False, True])
async def test_parallel_in_order_each_step_once(client, stepwell_engine, distribute):
    ran: Counter[str] = Counter()

    def work(name):
        ran[name] += 1
        return name

    @client.create_function(fn_id="f", trigger=GO, distribute=distribute)
    async def f(ctx):
        async def chain(n):
            a = await ctx.step.run(f"a{n}", work, f"a{n}")
            b = await ctx.step.run(f"b{n}", work, f"b{n}")
            return a + b

        found = await ctx.group.parallel(tuple(lambda n=n: chain(n) for n in range(10)))
        return [type(found).__name__, *found]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1m")
        assert run.output == ["tuple", *(f"a{n}b{n}" for n in range(10))]
        assert set(ran.values()) == {1}
        assert len(run.steps) == 20


@pytest.mark.parametrize("distribute", [False, True])
async def test_sync_parallel(client, stepwell_engine, distribute):
    ran: Counter[str] = Counter()

    def work(name):
        ran[name] += 1
        return name

    @client.create_function(fn_id="f", trigger=GO, distribute=distribute)
    def f(ctx):
        def chain(n):
            a = ctx.step.run(f"a{n}", work, f"a{n}")
            ctx.step.sleep(f"nap{n}", "1s")
            return a + ctx.step.run(f"b{n}", work, f"b{n}")

        return list(ctx.group.parallel(tuple(lambda n=n: chain(n) for n in range(5))))

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1m")
        assert run.output == [f"a{n}b{n}" for n in range(5)]
        assert set(ran.values()) == {1}


async def test_branches_run_concurrently(client, stepwell_engine):
    barrier = asyncio.Barrier(5)
    thread_barrier = threading.Barrier(5)

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        async def meet():
            async with asyncio.timeout(5):
                await barrier.wait()

        await ctx.group.parallel(tuple(lambda n=n: ctx.step.run(f"a{n}", meet) for n in range(5)))
        await asyncio.gather(*(ctx.step.run(f"t{n}", thread_barrier.wait, 5) for n in range(5)))
        return "met"

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/go2"))
    def g(ctx):
        ctx.group.parallel(
            tuple(lambda n=n: ctx.step.run(f"t{n}", thread_barrier.wait, 5) for n in range(5))
        )
        return "met"

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go")).output == "met"
        assert (await run_of(engine, "t/go2")).output == "met"


@pytest.mark.parametrize("distribute", [False, True])
async def test_gather_and_task_groups_of_all_kinds_of_steps(client, stepwell_engine, distribute):
    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("nap", "1m")
        return "child"

    @client.create_function(fn_id="f", trigger=GO, distribute=distribute)
    async def f(ctx):
        first = await asyncio.gather(
            ctx.step.run("run", lambda: "run"),
            ctx.step.sleep("sleep", "5m"),
            ctx.step.wait_for_event("wait", event="t/news", timeout="10m"),
            ctx.step.invoke("invoke", function=child),
            ctx.step.wait_for_signal("signal", signal="s", timeout="10m"),
            ctx.step.send_event("send", Event("t/other")),
        )
        results = {}

        async def branch(n):
            results[n] = await ctx.step.run(f"r{n}", lambda: n)
            await ctx.step.sleep(f"z{n}", "1s")

        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(branch(n))
        async with anyio.create_task_group() as tasks:
            for n in range(3, 6):
                tasks.start_soon(branch, n)
        return [first[0], first[2].data if first[2] else None, first[3], first[4], results[5]]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.advance("2m")
        await engine.send(Event("t/news", {"n": 1}))
        await engine.client.send_signal("s", "signal")
        await engine.advance("10m")
        run = await engine.wait(event_id)
        assert run.output == ["run", {"n": 1}, "child", "signal", 5]


@pytest.mark.parametrize("distribute", [False, True])
async def test_a_failed_branch_raises_and_the_others_finish(client, stepwell_engine, distribute):
    done = []

    def bad():
        raise ValueError("bad")

    @client.create_function(fn_id="f", trigger=GO, retries=1, distribute=distribute)
    async def f(ctx):
        async def slow():
            await ctx.step.sleep("nap", "1h")
            return await ctx.step.run("good", lambda: done.append("good"))

        try:
            await ctx.group.parallel((lambda: ctx.step.run("bad", bad), slow))
        except StepError as error:
            return [error.step_id, error.name]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="3h")
        assert run.output == ["bad", "ValueError"]
        assert done == ["good"]
        assert len(step(run, "bad").attempts) == 2


async def test_one_branch_retries_while_others_go_on(client, stepwell_engine):
    order = []

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        def flaky():
            order.append(f"flaky {ctx.attempt}")
            if ctx.attempt < 2:
                raise RuntimeError("again")
            return "flaky"

        async def other():
            for n in range(3):
                await ctx.step.run(f"o{n}", order.append, f"o{n}")
            return "other"

        return await asyncio.gather(ctx.step.run("flaky", flaky), other())

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.output == ["flaky", "other"]
        assert Counter(order) == Counter(["flaky 0", "flaky 1", "flaky 2", "o0", "o1", "o2"])
        assert order.index("o2") < order.index("flaky 1")


@pytest.mark.parametrize("sync", [False, True])
async def test_a_race_of_a_wait_and_a_sleep(client, stepwell_engine, sync):
    if sync:

        @client.create_function(fn_id="f", trigger=GO)
        def f(ctx):
            winner = ctx.group.race(
                lambda: ctx.step.wait_for_event("paid", event="t/paid", timeout="2d") and "paid",
                lambda: ctx.step.sleep("late", "1d") or "late",
            )
            ctx.step.sleep("after", "3d")
            return winner
    else:

        @client.create_function(fn_id="f", trigger=GO)
        async def f(ctx):
            async def paid():
                await ctx.step.wait_for_event("paid", event="t/paid", timeout="2d")
                return "paid"

            async def late():
                await ctx.step.sleep("late", "1d")
                return "late"

            winner = await ctx.group.race(paid, late)
            await ctx.step.sleep("after", "3d")
            return winner

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go", after="7d")).output == "late"
        [event_id] = await engine.send(Event("t/go"))
        await engine.advance("1h")
        await engine.send(Event("t/paid"))
        await engine.advance("7d")
        assert (await engine.wait(event_id)).output == "paid"


async def test_a_race_cancels_the_running_loser(client, stepwell_engine):
    cut = []

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        async def slow():
            try:
                await asyncio.Event().wait()
            finally:
                cut.append(1)

        found = await ctx.group.race(
            lambda: ctx.step.run("slow", slow), lambda: ctx.step.run("quick", lambda: "quick")
        )
        return [found, await ctx.step.run("after", lambda: "after")]

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go")).output == ["quick", "after"]
        assert cut == [1]


async def test_distributed_steps_are_shared_by_workers(client, stepwell_engine):
    from stepwell_workers.worker import Worker

    @client.create_function(fn_id="f", trigger=GO, distribute=True)
    async def f(ctx):
        async def work():
            await asyncio.sleep(0.02)
            return 1

        return sum(await asyncio.gather(*(ctx.step.run(f"s{n}", work) for n in range(12))))

    async with stepwell_engine(client, concurrency=2) as engine:
        second = Worker(
            [client],
            url=engine.url,
            namespace=engine.namespace,
            shards=4,
            concurrency=2,
            clock=engine.clock,
        )
        await second.start()
        try:
            run = await run_of(engine, "t/go")
            assert run.output == 12
            workers = {entry.worker for entry in run.entries if entry.step_key}
            assert workers == {engine.worker.worker_id, second.worker_id}
        finally:
            await second.stop()


@pytest.mark.parametrize("mode", [ParallelMode.WAIT, ParallelMode.RACE])
async def test_distributed_chains_in_both_modes(client, stepwell_engine, mode):
    @client.create_function(fn_id="f", trigger=GO, distribute=True)
    async def f(ctx):
        async def chain(n):
            total = 0
            for m in range(3):
                total += await ctx.step.run(f"{n}-{m}", lambda n=n, m=m: n * m)
            return total

        return list(
            await ctx.group.parallel(
                tuple(lambda n=n: chain(n) for n in range(4)), parallel_mode=mode
            )
        )

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go", after="1m")).output == [0, 3, 6, 9]


@pytest.mark.parametrize("distribute", [False, True])
async def test_a_hundred_parallel_steps(client, stepwell_engine, distribute):
    @client.create_function(fn_id="f", trigger=GO, distribute=distribute)
    async def f(ctx):
        return sum(
            await asyncio.gather(*(ctx.step.run(f"s{n}", lambda n=n: n) for n in range(100)))
        )

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go")).output == sum(range(100))


async def test_a_cancel_in_the_midst_of_branches(client, stepwell_engine):
    inside = []

    @client.create_function(fn_id="f", trigger=GO, distribute=True)
    async def f(ctx):
        async def hang():
            inside.append(1)
            await asyncio.Event().wait()

        await asyncio.gather(*(ctx.step.run(f"s{n}", hang) for n in range(5)))

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await until(lambda: len(inside) == 5)
        [run] = await engine.runs()
        await engine.client.cancel_run(run.id)
        assert (await engine.wait(event_id)).status is RunStatus.CANCELLED
        await engine.settle()
