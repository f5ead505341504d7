"""Concurrency and throttle through the whole engine, on one shard and on four: nothing above a limit, nothing held back without one."""

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from stepwell import Concurrency, Priority, Throttle
from stepwell.client import Client
from stepwell.records import RunStatus
from tests.support.deploys import registered_again
from tests.support.orders import GO, TENANT, all_completed, completed, handled, order, orders
from tests.support.runs import until

pytestmark = pytest.mark.anyio


async def test_a_limit_per_key(client, engines, gauge):
    @client.create_function(fn_id="f", trigger=GO, concurrency=Concurrency(limit=2, key=TENANT))
    async def f(ctx):
        await gauge.at_work(ctx.event.data.get("tenant", "none"))

    async with engines(client) as engine:
        ids = await engine.send([*orders(7, tenant="a"), *orders(5, tenant="b"), *orders(3)])
        for name in ("a", "b", "none"):
            await gauge.reaches(name, 2)
        gauge.open.set()
        await completed(engine, ids)
    assert gauge.most == {"a": 2, "b": 2, "none": 2}


async def test_false_turns_it_off_and_null_is_a_key(client, engines, gauge):
    entry = Concurrency(limit=1, key="event.data.free ? false : event.data.tenant")

    @client.create_function(fn_id="f", trigger=GO, concurrency=entry)
    async def f(ctx):
        await gauge.at_work("free" if ctx.event.data["free"] else "null")

    async with engines(client) as engine:
        ids = await engine.send(
            [
                *orders(4, free=True, tenant="a"),
                *orders(2, free=False, tenant=None),
                *orders(2, free=False),
            ]
        )
        await gauge.reaches("free", 4)
        await gauge.reaches("null", 1)
        gauge.open.set()
        await completed(engine, ids)
    assert gauge.most["null"] == 1


async def test_no_limit(client, engines, gauge):
    @client.create_function(fn_id="f", trigger=GO, concurrency=0)
    async def f(ctx):
        await gauge.at_work("f")

    async with engines(client) as engine:
        ids = await engine.send(orders(20))
        await gauge.reaches("f", 20)
        gauge.open.set()
        await completed(engine, ids)


async def test_two_limits(client, engines, gauge):
    both = [Concurrency(limit=5), Concurrency(limit=2, key=TENANT)]

    @client.create_function(fn_id="f", trigger=GO, concurrency=both)
    async def f(ctx):
        await gauge.at_work("all", ctx.event.data["tenant"])

    async with engines(client) as engine:
        ids = await engine.send([e for t in "abcd" for e in orders(4, tenant=t)])
        await gauge.reaches("all", 5)
        gauge.open.set()
        await completed(engine, ids)
    assert gauge.most["all"] == 5
    assert max(gauge.most[t] for t in "abcd") == 2


async def test_a_sleeping_run_keeps_its_slot_at_level_run_only(client, engines):
    begun = defaultdict[str, list[int]](list)

    def define(name, level):
        entry = Concurrency(limit=1, level=level)

        @client.create_function(fn_id=name, trigger=GO, concurrency=entry)
        async def f(ctx):
            if ctx.event.data["n"] not in begun[name]:
                begun[name].append(ctx.event.data["n"])
            await ctx.step.sleep("nap", "1h")

    define("whole", "run")
    define("steps", "step")
    async with engines(client) as engine:
        await engine.send(orders(3))
        await engine.settle()
        assert (len(begun["whole"]), len(begun["steps"])) == (1, 3)
        await engine.advance("61m")
        assert len(begun["whole"]) == 2
        await engine.advance("2h")
        assert len(begun["whole"]) == 3
        assert not await engine.runs(status=RunStatus.RUNNING)


async def test_a_cancelled_run_leaves_its_slot(client, engines):
    begun = []

    @client.create_function(fn_id="f", trigger=GO, concurrency=Concurrency(limit=1, level="run"))
    async def f(ctx):
        if ctx.run_id not in begun:
            begun.append(ctx.run_id)
        await ctx.step.sleep("nap", "1h")

    async with engines(client) as engine:
        ids = await engine.send(orders(4))
        await engine.settle()
        runs = [(await engine.event(each)).outcomes[0].run_id for each in ids]
        waiting = [run for run in runs if run not in begun]
        # The one that holds it, and one that waits for it.
        await engine.client.cancel_run(begun[0])
        await engine.client.cancel_run(next(run for run in waiting if run not in begun))
        await engine.advance("3h")
        assert len(begun) >= 3
        ended = Counter(run.status for run in await engine.runs())
        assert ended == {RunStatus.COMPLETED: 2, RunStatus.CANCELLED: 2}


async def test_a_limit_shared_by_functions_and_apps(client, engines, gauge):
    other = Client(app_id="depot")
    shared = Concurrency(limit=3, key="'printer'", scope="env")

    def define(app, name):
        @app.create_function(fn_id=name, trigger=GO, concurrency=shared)
        async def f(ctx):
            await gauge.at_work("printer", name)

    for app, name in ((client, "one"), (client, "two"), (other, "three"), (other, "four")):
        define(app, name)
    async with engines([client, other]) as engine:
        await engine.send(orders(10))
        await gauge.reaches("printer", 3)
        gauge.open.set()
        await all_completed(engine, 40)
    assert gauge.most["printer"] == 3
    assert len(gauge.order) == 40


@pytest.mark.parametrize("scope", ["fn", "account"])
async def test_a_changed_limit_holds_for_what_is_queued(engines, gauge, scope):
    def app(limit):
        made = Client(app_id="shop")
        entry = Concurrency(limit=limit, key="'all'", scope=scope)

        @made.create_function(fn_id="f", trigger=GO, concurrency=entry)
        async def f(ctx):
            await gauge.at_work("f")

        return made

    async with engines(app(1)) as engine:
        ids = await engine.send(orders(12))
        await gauge.reaches("f", 1)
        async with registered_again(engine, app(4)):
            await gauge.reaches("f", 4)
            async with registered_again(engine, app(2)):
                # What began keeps its slot; nobody comes after it before there are less than two.
                await asyncio.sleep(0.3)
                assert gauge.now["f"] == 4
                gauge.most.clear()
                gauge.open.set()
                await until(lambda: gauge.now["f"] <= 2)
                gauge.most.clear()
                await completed(engine, ids)
                assert gauge.most["f"] <= 2


@pytest.mark.parametrize("scope", ["fn", "env"])
@pytest.mark.parametrize("level", ["step", "run"])
async def test_a_limit_where_there_was_none_holds_for_what_is_queued(engines, gauge, scope, level):
    def app(limit):
        made = Client(app_id="shop")
        entry = Concurrency(limit=limit, key=TENANT, scope=scope, level=level)

        @made.create_function(fn_id="f", trigger=GO, concurrency=entry)
        async def f(ctx):
            await gauge.at_work("f")

        return made

    async with engines(app(0)) as engine:
        later = engine.clock.now_ms() + 3_600_000
        ids = await engine.send([replace(e, ts=later) for e in orders(8, tenant="a")])
        await engine.settle()
        async with registered_again(engine, app(2)):
            await engine.stop_worker()
            await engine.settle()
            hour = asyncio.create_task(engine.advance("1h"))
            await gauge.reaches("f", 2)
            gauge.open.set()
            await hour
            await completed(engine, ids)
            assert gauge.most["f"] == 2


@pytest.mark.parametrize("levels", [("step", "step"), ("run", "step"), ("run", "run")])
async def test_two_limits_that_functions_share(client, engines, gauge, levels):
    """Whatever shards they, their tenants and the printer are at home on."""
    both = [
        Concurrency(limit=2, key=TENANT, scope="env", level=levels[0]),
        Concurrency(limit=3, key="'printer'", scope="account", level=levels[1]),
    ]

    async def work(ctx):
        await gauge.at_work("printer", ctx.event.data["tenant"])

    for name in "abcd":
        entries = both if name in "ac" else both[::-1]
        client.create_function(fn_id=name, trigger=GO, concurrency=entries)(work)
    async with engines(client) as engine:
        await engine.send([e for t in "rstuvw" for e in orders(2, tenant=t)])
        await gauge.reaches("printer", 3)
        gauge.open.set()
        await all_completed(engine, 48)
    assert gauge.most["printer"] == 3
    assert max(gauge.most[t] for t in "rstuvw") <= 2


async def test_each_branch_holds_a_slot(client, engines, gauge):
    @client.create_function(fn_id="f", trigger=GO, concurrency=3)
    async def f(ctx):
        async def branch(n):
            await gauge.at_work("branch")
            return n

        steps = (lambda n=n: ctx.step.run(f"b{n}", branch, n) for n in range(8))
        return sum(await ctx.group.parallel(tuple(steps)))

    async with engines(client) as engine:
        ids = await engine.send(orders(2))
        await gauge.reaches("branch", 3)
        gauge.open.set()
        assert [run.output for run in await completed(engine, ids)] == [28, 28]
    assert gauge.most["branch"] == 3


async def test_turns_by_weight(client, engines, gauge):
    weighted = [
        Concurrency(limit=1),
        Concurrency(limit=9, key=TENANT, weight="event.data.tenant == 'pro' ? 3 : 1"),
    ]

    @client.create_function(fn_id="f", trigger=GO, concurrency=weighted)
    async def f(ctx):
        await gauge.at_work(ctx.event.data["tenant"])

    async with engines(client) as engine:
        ids = await engine.send([*orders(30, tenant="free"), *orders(30, tenant="pro")])
        await until(lambda: gauge.order)
        await handled(engine, ids)
        gauge.open.set()
        await completed(engine, ids)
    taken = Counter(gauge.order[2:38])
    assert 25 <= taken["pro"] <= 29, taken


async def test_priority_goes_first(client, engines, gauge):
    @client.create_function(
        fn_id="f", trigger=GO, concurrency=1, priority=Priority(run="event.data.urgent")
    )
    async def f(ctx):
        await gauge.at_work(ctx.event.data["urgent"])

    async with engines(client) as engine:
        first = await engine.send(order(0, urgent=0))
        await until(lambda: gauge.order)
        later = await engine.send([order(n, urgent=u) for n, u in enumerate((-60, 0, 60, 600), 1)])
        await handled(engine, later)
        gauge.open.set()
        await completed(engine, [*first, *later])
    assert gauge.order == [0, 600, 60, 0, -60]


async def test_a_killed_worker_blocks_nobody_for_long(client, engines, gauge):
    @client.create_function(fn_id="f", trigger=GO, concurrency=Concurrency(limit=2, key=TENANT))
    async def f(ctx):
        await gauge.at_work(ctx.event.data["tenant"])

    async with engines(client) as engine:
        ids = await engine.send([*orders(4, tenant="a"), *orders(3, tenant="b")])
        await gauge.reaches("a", 2)
        await gauge.reaches("b", 2)
        await engine.kill_worker()
        await until(lambda: not gauge.now["a"] and not gauge.now["b"])
        gauge.most.clear()
        gauge.open.set()
        await engine.start_worker()
        await engine.advance("1m")
        await completed(engine, ids)
    assert max(gauge.most.values()) <= 2


async def test_a_throttle_with_burst_in_every_window(client, engines):
    starts = defaultdict[str, list[tuple[int, int]]](list)
    throttle = Throttle(limit=6, period="1m", burst=3, key=TENANT)

    @client.create_function(fn_id="f", trigger=GO, throttle=throttle)
    async def f(ctx):
        if ctx.event.data["n"] not in [n for n, _ in starts[ctx.event.data["tenant"]]]:
            moment = (ctx.event.data["n"], engine.clock.now_ms())
            starts[ctx.event.data["tenant"]].append(moment)
        await ctx.step.sleep("nap", "7s")

    async with engines(client) as engine:
        ids = await engine.send([*orders(10, tenant="a"), *orders(5, tenant="b")])
        await engine.settle()
        assert (len(starts["a"]), len(starts["b"])) == (3, 3)
        await engine.advance("3m")
        await completed(engine, ids)
    interval = 10_000
    for times in starts.values():
        moments = [at for _, at in times]
        for i, first in enumerate(moments):
            for j, last in enumerate(moments[i:], 1):
                # A worker notes a start some milliseconds after its lease.
                assert j <= throttle.burst + (last - first + 250) // interval
        assert moments[-1] - moments[0] <= (len(moments) - throttle.burst) * interval + 1_000
