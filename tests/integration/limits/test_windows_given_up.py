"""Open debounces and batches that somebody gives up: by hand, many at once, or with the run that invoked; and invokes that are replaced."""

import asyncio

import pytest

from stepwell import (
    Batch,
    Client,
    Context,
    Debounce,
    Event,
    RateLimit,
    Singleton,
    StepError,
    TriggerEvent,
)
from stepwell.errors import RunNotStartedError
from tests.support.orders import GO, order, outcomes

pytestmark = pytest.mark.anyio

WINDOWS = pytest.mark.parametrize(
    "options",
    [
        {"debounce": Debounce("10m")},
        {"debounce": Debounce("10m", collect=True)},
        {"batch_events": Batch(5, timeout="10m")},
    ],
    ids=["debounce", "collect", "batch"],
)


def numbers(client: Client, fn_id: str = "f", **options: object) -> None:
    async def f(ctx: Context) -> list[int]:
        return [e.data["n"] for e in ctx.events]

    client.create_function(fn_id=fn_id, **options)(f)  # type: ignore[arg-type]  # any option


@WINDOWS
async def test_the_run_of_an_open_window_is_cancelled_by_its_id(client, stepwell_engine, options):
    numbers(client, trigger=GO, **options)
    seen = []

    @client.create_function(fn_id="w", trigger=TriggerEvent("inngest/function.cancelled"))
    async def w(ctx):
        seen.append(ctx.event.data["run_id"])

    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(1), order(2)])
        await engine.settle()
        told = await outcomes(engine, ids)
        (run,) = {o.run_id for o in told}
        assert await client.cancel_run(run, reason="not today") == "cancelled"
        assert await client.cancel_run(run) == "cancelled"
        await engine.settle()
        ended = await client.wait_for_run(run)
        assert (ended.status, ended.error.message) == ("cancelled", "not today")
        assert seen == [run]
        assert await outcomes(engine, ids) == told
        # The next event opens another.
        (third,) = await engine.send(order(3))
        await engine.advance("11m")
        assert (await engine.wait(third)).output == [3]
        assert (await client.get_run(run)).started_at is None


@pytest.mark.parametrize(
    "options",
    [
        {"debounce": Debounce("10m", key="event.data.k")},
        {"debounce": Debounce("10m", key="event.data.k", collect=True)},
        {"batch_events": Batch(5, timeout="10m", key="event.data.k")},
    ],
    ids=["debounce", "collect", "batch"],
)
async def test_many_are_cancelled_with_the_runs_of_their_function(client, stepwell_engine, options):
    numbers(client, trigger=GO, **options)
    numbers(client, "g", trigger=GO, **options)
    async with stepwell_engine(client) as engine:
        ids = await engine.send([order(n, k=n) for n in range(4)])
        await engine.settle()
        told = [outcome for i in ids for outcome in (await engine.event(i)).outcomes]
        runs = {outcome.run_id for outcome in told if outcome.fn_id == "f"}
        which = {"fn_id": "f", "if_exp": "event.data.n < 3"}
        assert (await client.cancel_runs(**which, status="queued")).count == 0
        assert (await client.cancel_runs(**which, started_after="2100-01-01T00:00:00Z")).count == 0
        dry = await client.cancel_runs(**which, dry_run=True)
        assert (dry.count, set(dry.run_ids) < runs) == (3, True)
        assert (await client.cancel_runs(**which, limit=1)).count == 1
        assert (await client.cancel_runs(**which)).count == 2
        assert (await client.cancel_runs(**which)).count == 0
        await engine.advance("11m")
        ended = sorted(str(r.status) for r in await engine.runs("f"))
        assert ended == ["cancelled"] * 3 + ["completed"]
        assert {r.status for r in await engine.runs("g")} == {"completed"}


@WINDOWS
@pytest.mark.parametrize("how", ["cancel_child", "children"])
async def test_a_cancelled_parent_takes_its_child_out(client, stepwell_engine, options, how):
    numbers(client, "child", **options)

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        return await ctx.step.invoke_by_id(
            "i",
            app_id="shop",
            function_id="child",
            data=ctx.event.data,
            cancel_child=how == "cancel_child",
        )

    async with stepwell_engine(client) as engine:
        ids = []
        for n in range(3):
            ids += await engine.send(order(n))
            await engine.settle()
        parents = [o.run_id for o in await outcomes(engine, ids)]
        assert "is not there yet: its" in (await client.explain(parents[2])).text
        for run in parents[1:]:
            await client.cancel_run(run, children=how == "children")
        await engine.settle()
        if "batch_events" in options or options["debounce"].collect:
            await engine.advance("11m")
            assert (await client.get_run(parents[0])).output == [0]
        else:
            # The first two were replaced; the burst's one event is gone.
            await engine.advance("11m")
            (run,) = await engine.runs("child")
            assert run.status == "cancelled"


async def test_a_batch_of_one_parents_invokes_ends_with_it(client, stepwell_engine):
    numbers(client, "child", batch_events=Batch(9, timeout="10m"))

    @client.create_function(fn_id="parent", trigger=GO)
    async def parent(ctx):
        def call(n):
            return lambda: ctx.step.invoke_by_id(
                f"i{n}", app_id="shop", function_id="child", data={"n": n}, cancel_child=True
            )

        return await ctx.group.parallel(tuple(call(n) for n in range(3)))

    async with stepwell_engine(client) as engine:
        (event,) = await engine.send(order(0))
        await engine.settle()
        (outcome,) = await outcomes(engine, [event])
        await client.cancel_run(outcome.run_id)
        await engine.settle()
        (run,) = await engine.runs("child")
        assert (run.status, len(run.events)) == ("cancelled", 1)


@pytest.mark.parametrize("invoked_first", [True, False])
async def test_a_client_whose_invoke_is_replaced_hears_of_it_at_once(
    client, stepwell_engine, invoked_first
):
    @client.create_function(fn_id="f", trigger=GO, debounce=Debounce("1m"))
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        if not invoked_first:
            await engine.send(order(0))
            await engine.settle()
        calls = []
        for n in (1, 2):
            calls.append(asyncio.create_task(client.invoke(f, data={"n": n})))
            await asyncio.sleep(0.05)
            await engine.settle()
        with pytest.raises(
            RunNotStartedError, match="a later event took its place in the debounce"
        ):
            await asyncio.wait_for(calls[0], 5)
        assert not calls[1].done()
        await engine.advance("2m")
        assert await calls[1] == 2


async def test_a_client_whose_invoke_stands_hears_of_a_refusal(client, stepwell_engine):
    @client.create_function(fn_id="f", debounce=Debounce("1m"), rate_limit=RateLimit(1, "1d"))
    async def f(ctx):
        return 1

    async with stepwell_engine(client) as engine:
        for what in ("runs", "is refused"):
            call = asyncio.create_task(client.invoke(f))
            await asyncio.sleep(0.05)
            await engine.settle()
            await engine.advance("2m")
            if what == "runs":
                assert await call == 1
            else:
                with pytest.raises(RunNotStartedError, match="the rate limit was reached"):
                    await call


async def test_a_window_that_is_cancelled_takes_nobodys_place(client, stepwell_engine):
    @client.create_function(
        fn_id="f", trigger=GO, debounce=Debounce("1m"), singleton=Singleton("cancel")
    )
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")

    async with stepwell_engine(client) as engine:
        (first,) = await engine.send(order(1))
        await engine.advance("2m")
        (second,) = await engine.send(order(2))
        await engine.settle()
        (outcome,) = await outcomes(engine, [second])
        assert await client.cancel_run(outcome.run_id) == "cancelled"
        await engine.advance("2h")
        assert (await engine.wait(first)).status == "completed"


async def test_an_invoke_of_a_cancelled_window_fails(client, stepwell_engine):
    numbers(client, "child", trigger=GO, debounce=Debounce("1m", collect=True))

    @client.create_function(fn_id="parent", trigger=TriggerEvent("t/parent"))
    async def parent(ctx):
        try:
            return await ctx.step.invoke_by_id(
                "i", app_id="shop", function_id="child", data={"n": 1}
            )
        except StepError as error:
            return error.name

    async with stepwell_engine(client) as engine:
        (event,) = await engine.send(Event("t/parent"))
        await engine.settle()
        assert (await client.cancel_runs(fn_id="child")).count == 1
        assert (await engine.wait(event)).output == "RunCancelledError"
