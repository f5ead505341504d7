"""client.cancel_run with children, client.cancel_runs, and their blocking twins."""

import asyncio
from datetime import timedelta

import pytest

from stepwell import Client, Event, TriggerEvent
from stepwell.errors import (
    ConfigError,
    DurationError,
    ExpressionError,
    FunctionNotFoundError,
    StepError,
)
from stepwell.records import RunStatus
from stepwell_engine.bulk import _PAGE
from stepwell_engine.listing import next_places

pytestmark = pytest.mark.anyio

GO = TriggerEvent("t/go")


async def seen(engine, true, fn="f"):
    """Look until a run of `fn` is as `true` says."""
    async with asyncio.timeout(10):
        while not [run for run in await engine.runs(fn) if true(run)]:  # noqa: ASYNC110 - it is to be seen from outside
            await asyncio.sleep(0.002)


def family(client: Client) -> None:
    """f invokes two g, each of which invokes an h that sleeps."""

    @client.create_function(fn_id="h")
    async def h(ctx):
        await ctx.step.sleep("nap", "1h")
        return "slept"

    @client.create_function(fn_id="g")
    async def g(ctx):
        return await ctx.step.invoke("down", function=h)

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        calls = tuple(lambda n=n: ctx.step.invoke(f"call {n}", function=g) for n in (1, 2))
        return await ctx.group.parallel(calls)


async def test_children_are_cancelled_with_their_parent(client, stepwell_engine):
    family(client)
    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go"), Event("t/go")])
        await engine.settle()
        gone, kept = await engine.runs("f")
        status = await client.cancel_run(gone.id, reason="enough", children=True)
        assert status is RunStatus.CANCELLED
        await engine.settle()
        runs = {run.id: run for run in await engine.runs()}
        mine = {run.id for run in runs.values() if root(run, runs) == gone.id}
        assert len(mine) == 5
        for run in runs.values():
            expected = RunStatus.CANCELLED if run.id in mine else RunStatus.WAITING
            assert run.status is expected, run.fn_id
        why = {run.fn_id: run.error.message for run in runs.values() if run.id in mine}
        assert why["f"] == "enough"
        assert why["h"] == why["g"] == "the run that invoked it has ended"
        assert await client.cancel_run(gone.id, children=True) is RunStatus.CANCELLED
        await engine.advance("2h")
        assert (await engine.run(kept.id)).output == ["slept", "slept"]


def root(run, runs):
    while run.parent_run_id:
        run = runs[run.parent_run_id]
    return run.id


async def test_without_children_they_go_on(client, stepwell_engine):
    family(client)
    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await engine.settle()
        [run] = await engine.runs("f")
        await client.cancel_run(run.id)
        await engine.advance("2h")
        assert [r.status for r in await engine.runs("g")] == [RunStatus.COMPLETED] * 2


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_children_of_a_run_that_has_ended_already(client, stepwell_engine, how):
    family(client)

    @client.create_function(fn_id="fails", trigger=TriggerEvent("t/fail"), retries=0)
    async def fails(ctx):
        async def broken():
            raise ValueError("broken")

        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.invoke("call", function=client.functions["g"]))
            group.create_task(ctx.step.run("broken", broken))

    async with stepwell_engine(client) as engine:
        fn, event = ("f", "t/go") if how == "cancelled" else ("fails", "t/fail")
        await engine.send(Event(event))
        await engine.settle()
        [run] = await engine.runs(fn)
        if how == "cancelled":
            await client.cancel_run(run.id)
        await engine.settle()
        assert (await engine.run(run.id)).status == how
        living = [r for fn in "gh" for r in await engine.runs(fn)]
        assert living
        assert {r.status for r in living} == {RunStatus.WAITING}
        # It stays as it ended; the runs that it left behind end now.
        assert await client.cancel_run(run.id, children=True) == how
        await engine.settle()
        for each in living:
            assert (await engine.run(each.id)).status is RunStatus.CANCELLED
        assert await client.cancel_run(run.id, children=True) == how
        await engine.settle()
        assert len([r for fn in "gh" for r in await engine.runs(fn)]) == len(living)


async def test_children_of_a_run_whose_worker_is_asked_to_stop(client, stepwell_engine):
    stop = asyncio.Event()

    @client.create_function(fn_id="g")
    async def g(ctx):
        await ctx.step.sleep("nap", "1h")

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        async def busy():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await stop.wait()
                raise

        await ctx.group.parallel(
            (lambda: ctx.step.invoke("call", function=g), lambda: ctx.step.run("busy", busy))
        )

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await seen(engine, lambda run: run.status is RunStatus.WAITING, fn="g")
        [run] = await engine.runs("f")
        assert await client.cancel_run(run.id, children=True) is RunStatus.CANCELLING
        [child] = await engine.runs("g")
        assert (await engine.wait(child.id)).status is RunStatus.CANCELLED, "it need not wait"
        stop.set()
        assert (await engine.wait(run.id)).status is RunStatus.CANCELLED
        await engine.settle()


async def test_a_child_that_is_not_created_yet(client, stepwell_engine):
    @client.create_function(fn_id="g")
    async def g(ctx):
        raise AssertionError("it was cancelled before it was")

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        try:
            await ctx.step.invoke("call", function=g)
        except StepError:
            raise AssertionError("nobody is left to hear of it") from None

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go"))
        await seen(engine, lambda run: True)
        [run] = await engine.runs("f")
        await engine.stop_coordinator()
        await seen(engine, lambda run: run.status is not RunStatus.RUNNING)
        await client.cancel_run(run.id, children=True)
        await engine.start_coordinator()
        await engine.settle()
        assert (await engine.run(run.id)).status is RunStatus.CANCELLED
        assert {r.status for r in await engine.runs("g")} <= {RunStatus.CANCELLED}


def tenants(client: Client, fn_id: str = "f") -> None:
    @client.create_function(fn_id=fn_id, trigger=GO)
    async def f(ctx):
        if ctx.event.data.get("wait"):
            await ctx.step.sleep("nap", "1h")


def go(n: int) -> Event:
    return Event("t/go", {"n": n, "tenant": f"t{n % 3}", "wait": n % 2 == 0})


async def test_many_are_cancelled_by_what_their_events_say(client, stepwell_engine):
    tenants(client)
    tenants(client, "other")
    many = 6 * _PAGE
    async with stepwell_engine(client) as engine:
        for start in range(0, many, 300):
            await engine.send([go(n) for n in range(start, start + 300)])
        await engine.settle(patience=60)
        which = {"fn_id": "f", "if_exp": "event.data.tenant == 't1'", "reason": "t1 left"}
        looked = await client.cancel_runs(**which, dry_run=True)
        assert (looked.count, looked.dry_run, len(looked.run_ids)) == (many // 6, True, many // 6)
        assert {r.status for r in await engine.runs("f")} == {
            RunStatus.WAITING, RunStatus.COMPLETED,
        }  # fmt: skip
        done = await client.cancel_runs(**which, limit=7)
        assert done.count == 7
        done = await client.cancel_runs(**which)
        assert done.count == many // 6 - 7
        assert (await client.cancel_runs(**which)).count == 0
        await engine.settle()
        for run in await engine.runs("f"):
            event = run.events[0].data
            if event["wait"] and event["tenant"] == "t1":
                assert (run.status, run.error.message) == (RunStatus.CANCELLED, "t1 left")
            else:
                assert run.status in (RunStatus.WAITING, RunStatus.COMPLETED)
        assert not [r for r in await engine.runs("other") if r.status is RunStatus.CANCELLED]


async def test_by_time_status_and_app(stepwell_engine):
    shop, bank = Client(app_id="shop"), Client(app_id="bank")
    tenants(shop)
    tenants(bank)
    async with stepwell_engine([shop, bank]) as engine:
        moments = []
        for n in range(4):
            await engine.advance("1m")
            moments.append(engine.now())
            await engine.send(go(2 * n))
        await engine.settle()
        found = await shop.cancel_runs(
            app_id="shop", started_after=moments[1], started_before=moments[3]
        )
        assert found.count == 2
        late = (moments[3] + timedelta(seconds=30)).isoformat()
        found = await shop.cancel_runs(fn_id="f", started_before=late, dry_run=True)
        assert found.count == 6, "of both apps"
        assert (await shop.cancel_runs(fn_id="f", status="queued")).count == 0
        await engine.stop_worker()
        await engine.send(go(0))
        await engine.settle()
        assert (await shop.cancel_runs(app_id="bank", status="queued")).count == 1
        assert (await shop.cancel_runs(app_id="bank")).count == 4
        assert (await shop.cancel_runs(app_id="none")).count == 0


async def test_with_children(client, stepwell_engine):
    family(client)
    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go")] * 3)
        await engine.settle()
        assert (await client.cancel_runs(fn_id="f", children=True)).count == 3
        await engine.settle()
        runs = await engine.runs()
        assert (len(runs), {run.status for run in runs}) == (15, {RunStatus.CANCELLED})


async def test_a_look_that_is_broken_off_goes_on_when_it_is_repeated(
    client, stepwell_engine, monkeypatch
):
    tenants(client)
    async with stepwell_engine(client) as engine:
        await engine.send([go(0) for _ in range(3 * _PAGE)])
        await engine.settle()
        left = 2

        async def dies(*args):
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionError("the process died here")
            return await next_places(*args)

        monkeypatch.setattr("stepwell_engine.bulk.next_places", dies)
        with pytest.raises(ConnectionError):
            await client.cancel_runs(fn_id="f")
        monkeypatch.undo()
        assert (await client.cancel_runs(fn_id="f")).count == _PAGE


async def test_the_blocking_twins(client, stepwell_engine):
    family(client)
    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go")] * 2)
        await engine.settle()
        [first, _] = await engine.runs("f")

        def blocking():
            client.cancel_run_sync(first.id, children=True)
            return client.cancel_runs_sync(fn_id="f").count

        assert await asyncio.to_thread(blocking) == 1
        await engine.settle()


@pytest.mark.parametrize(
    ("which", "error", "text"),
    [
        ({}, ConfigError, "neither fn_id= nor app_id="),
        ({"fn_id": ""}, ConfigError, r"cancel_runs\(fn_id=\)"),
        ({"fn_id": "f", "status": "failed"}, ConfigError, "have ended"),
        ({"fn_id": "f", "status": "nope"}, ConfigError, r"cancel_runs\(status=\)"),
        ({"fn_id": "f", "limit": 0}, ConfigError, r"cancel_runs\(limit=\)"),
        ({"fn_id": "f", "if_exp": ""}, ConfigError, r"cancel_runs\(if_exp=\)"),
        ({"fn_id": "f", "started_after": "2030-01-01T00:00:00"}, DurationError, "started_after"),
        ({"fn_id": "f", "nope": 1}, TypeError, "nope"),
        ({"fn_id": "typo"}, FunctionNotFoundError, "has registered function 'typo';"),
        ({"fn_id": "f", "app_id": "none"}, FunctionNotFoundError, "'f' of app 'none';"),
        ({"fn_id": "f", "if_exp": "async.data.id == 1"}, ExpressionError, "async"),
        ({"fn_id": "f", "if_exp": "event.data. =="}, ExpressionError, "expression"),
    ],
)
async def test_what_it_refuses(client, stepwell_engine, which, error, text):
    async with stepwell_engine(client):
        with pytest.raises(error, match=text):
            await client.cancel_runs(**which)
