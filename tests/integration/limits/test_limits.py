"""Limits that events give, through the whole engine on one shard and on four (docs/flow)."""

from datetime import UTC, datetime, timedelta

import pytest

from stepwell import Concurrency, Debounce, RateLimit, Throttle
from stepwell.client import Client
from tests.support.deploys import registered_again
from tests.support.orders import GO, TENANT, all_completed, completed, handled, orders
from tests.support.runs import until

pytestmark = pytest.mark.anyio

PLAN = "event.data.plan == 'pro' ? 4 : 2"
START = datetime(2030, 1, 1, tzinfo=UTC)


async def test_an_upgrade_takes_effect_with_the_next_event(client, engines, gauge):
    @client.create_function(fn_id="f", trigger=GO, concurrency=Concurrency(PLAN, key=TENANT))
    async def f(ctx):
        await gauge.at_work(ctx.event.data["tenant"])

    async with engines(client) as engine:
        ids = await engine.send([*orders(6, tenant="a", plan="free"), *orders(6, tenant="b")])
        await gauge.reaches("a", 2)
        await gauge.reaches("b", 2)
        ids += await engine.send(orders(1, tenant="a", plan="pro"))
        await gauge.reaches("a", 4)
        await gauge.reaches("b", 2)
        # Downgraded: who began goes on, nobody begins before there are less than two.
        ids += await engine.send(orders(1, tenant="a", plan="free"))
        await engine.event(ids[-1])
        gauge.open.set()
        await until(lambda: gauge.now["a"] <= 2)
        gauge.most.clear()
        await completed(engine, ids)
    assert gauge.most["a"] <= 2


async def test_a_limit_without_a_value_stays_and_is_told(client, engines, gauge):
    limit = Concurrency("event.data.most", key=TENANT)

    @client.create_function(fn_id="f", trigger=GO, concurrency=limit)
    async def f(ctx):
        await gauge.at_work(ctx.event.data["tenant"])

    async with engines(client) as engine:
        ids = await engine.send(orders(1, tenant="a", most=3))
        ids += await engine.send(orders(2, tenant="a"))
        bad = await engine.send(orders(2, tenant="a", most="many"))
        ids += await engine.send(orders(3, tenant="b", most=-1))
        off = await engine.send(orders(3, tenant="b", most=False))
        await gauge.reaches("a", 3)
        # One by its limit, and those that have none.
        await gauge.reaches("b", 1 + 3)
        gauge.open.set()
        runs = await completed(engine, [*bad, *ids, *off])
        assert runs[0].warnings == (
            "concurrency: limit='event.data.most' is 'many' here, no whole number from 0 to 1,000,000,000",
        )
        assert runs[2].warnings == ()
        assert runs[3].warnings == ("concurrency: expression 'event.data.most' is null here",)
        assert {run.warnings for run in runs[-3:]} == {()}
        labels = {"app": "shop", "function": "f", "option": "concurrency"}
        metrics = engine.coordinator.metrics.registry
        assert metrics.get_sample_value("stepwell_flow_key_errors_total", labels) == 2 + 2 + 3
    assert gauge.most["a"] == 3


async def test_none_for_some(client, engines, gauge):
    limit = Concurrency("event.data.plan == 'team' ? 0 : 1", key=TENANT, level="run")

    @client.create_function(fn_id="f", trigger=GO, concurrency=limit)
    async def f(ctx):
        await gauge.at_work(ctx.event.data["tenant"])

    async with engines(client) as engine:
        ids = await engine.send(orders(5, tenant="a", plan="solo"))
        await gauge.reaches("a", 1)
        ids += await engine.send(orders(2, tenant="a", plan="team"))
        await gauge.reaches("a", 7)
        gauge.open.set()
        await completed(engine, ids)


async def test_a_deploy_from_a_number_to_an_expression_and_back(engines, gauge):
    def app(limit):
        made = Client(app_id="shop")

        @made.create_function(fn_id="f", trigger=GO, concurrency=Concurrency(limit, key=TENANT))
        async def f(ctx):
            await gauge.at_work("f")

        return made

    async with engines(app(3)) as engine:
        ids = await engine.send(orders(12))
        await gauge.reaches("f", 3)
        async with registered_again(engine, app("event.data.most")):
            # What waits was queued under the number, and keeps it until an event says otherwise.
            await gauge.reaches("f", 3)
            ids += await engine.send(orders(1, most=5))
            await gauge.reaches("f", 5)
            async with registered_again(engine, app(7)):
                await gauge.reaches("f", 7)
                gauge.open.set()
                await completed(engine, ids)


@pytest.mark.parametrize("scope", ["env", "account"])
async def test_a_limit_shared_by_functions(client, engines, gauge, scope):
    shared = Concurrency("event.data.most", key="'printer'", scope=scope)

    def define(name):
        @client.create_function(fn_id=name, trigger=GO, concurrency=shared)
        async def f(ctx):
            await gauge.at_work("printer")

    for name in ("one", "two", "three", "four"):
        define(name)
    async with engines(client) as engine:
        ids = await engine.send(orders(4, most=3))
        await gauge.reaches("printer", 3)
        ids += await engine.send(orders(1, most=6))
        await gauge.reaches("printer", 6)
        ids += await engine.send(orders(1, most=2))
        await handled(engine, ids)
        gauge.open.set()
        await until(lambda: gauge.now["printer"] <= 2)
        gauge.most.clear()
        await all_completed(engine, 24)
    assert gauge.most["printer"] <= 2


async def test_a_throttle_by_plan(client, engines):
    begun = []
    throttle = Throttle("event.data.plan == 'pro' ? 6 : 1", period="1h", key=TENANT)

    @client.create_function(fn_id="f", trigger=GO, throttle=throttle)
    async def f(ctx):
        begun.append(ctx.event.data["n"])

    async with engines(client, start=START) as engine:
        ids = await engine.send(orders(4, tenant="a", plan="free"))
        await engine.settle()
        assert len(begun) == 1
        await engine.advance("30m")
        assert len(begun) == 1
        found = await engine.client.explain((await engine.event(ids[-1])).run_ids[0])
        assert "so its own is not before 2030-01-01 03:00:0" in str(found)
        # Half of an hour is still owed: half of ten minutes.
        ids += await engine.send(orders(1, tenant="a", plan="pro"))
        await engine.settle()
        assert len(begun) == 1
        found = await engine.client.explain((await engine.event(ids[-1])).run_ids[0])
        assert "the next start is at 2030-01-01 00:35:0" in str(found)
        assert "so its own is not before 2030-01-01 01:05:0" in str(found)
        for minutes, count in ((6, 2), (8, 2), (2, 3), (10, 4), (10, 5)):
            await engine.advance(timedelta(minutes=minutes))
            assert len(begun) == count
        await completed(engine, ids)


async def test_a_rate_limit_judges_each_event_by_its_own(client, engines):
    rate = RateLimit("event.data.most", period="1h", key=TENANT)

    @client.create_function(fn_id="f", trigger=GO, rate_limit=rate)
    async def f(ctx): ...

    async def come_to(engine, **data):
        [event] = await engine.send(orders(1, tenant="a", **data))
        await engine.settle()
        [outcome] = (await engine.event(event)).outcomes
        return outcome.outcome

    async with engines(client) as engine:
        assert [await come_to(engine, most=2) for _ in range(3)] == ["started"] * 2 + [
            "rate_limited"
        ]
        assert await come_to(engine, most=3) == "started"
        assert await come_to(engine, most=3) == "rate_limited"
        assert await come_to(engine, most=1) == "rate_limited"
        # Losing it would be worse.
        assert await come_to(engine) == "started"
        assert await come_to(engine, most=0) == "started"
        assert await come_to(engine, most=False) == "started"
        [last] = [run for run in await engine.runs() if run.warnings and "is 0" in run.warnings[0]]
        assert last.warnings == (
            "rate_limit: limit='event.data.most' is 0 here, no whole number from 1 to 1,000,000",
        )
        assert await come_to(engine, most=4) == "started", (
            "those of which it was off are not counted"
        )


async def test_a_debounced_run_gives_the_limit_of_its_last_event(client, engines):
    begun = []

    @client.create_function(
        fn_id="f",
        trigger=GO,
        concurrency=Concurrency("event.data.most", level="run"),
        debounce=Debounce("10s", key=TENANT),
    )
    async def f(ctx):
        begun.append(ctx.event.data["tenant"])
        await ctx.step.sleep("nap", "1h")

    async with engines(client) as engine:
        for most in (1, 3):
            for tenant in ("a", "b", "c", "d"):
                await engine.send(orders(1, tenant=tenant, most=most))
        await engine.advance("11s")
        assert len(set(begun)) == 3
        await engine.advance("3h")
        assert len(set(begun)) == 4
