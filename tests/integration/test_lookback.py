"""Waits that look back: `wait_for_event(lookback=True)` also sees events since the run was created (semantics §4)."""

import pytest

from stepwell import Client, Event, TriggerEvent
from stepwell.records import RunStatus
from stepwell.testing import mocked
from stepwell_engine.recent import MAX_AGE_MS, MAX_EVENTS
from stepwell_engine.store.store import Store
from tests.support.runs import run_of

pytestmark = pytest.mark.anyio

GO = TriggerEvent("t/go")
AGE_US = MAX_AGE_MS * 1000


def payments(client, *, lookback=("t/paid",), match="data.id"):
    """Sleeps for an hour, then waits for a payment that may have come meanwhile."""

    @client.create_function(fn_id="f", trigger=GO, lookback=lookback)
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")
        paid = await ctx.step.wait_for_event(
            "paid", event="t/paid", match=match, timeout="1h", lookback=True
        )
        return paid and paid.data["n"]


async def test_an_event_before_the_wait_is_seen(client, stepwell_engine):
    payments(client)
    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"id": n}) for n in range(8)])
        await engine.settle()
        # One a call, so that they are spread over the shards.
        for n in range(0, 8, 2):
            await engine.send(Event("t/paid", {"id": n, "n": f"paid {n}"}))
        await engine.advance("1h")
        await engine.settle()
        for n, event_id in enumerate(ids):
            if n % 2 == 0:
                assert (await engine.wait(event_id)).output == f"paid {n}"
        await engine.send(Event("t/paid", {"id": 1, "n": "late"}))
        assert (await engine.wait(ids[1])).output == "late"
        await engine.advance("2h")
        assert (await engine.wait(ids[3])).output is None


async def test_the_first_that_matches_is_taken(client, stepwell_engine):
    payments(client)
    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/paid", {"id": 1, "n": "before the run"}))
        await engine.settle()
        await engine.advance("1s")
        [event_id] = await engine.send(Event("t/go", {"id": 1}))
        await engine.settle()
        for n, id_ in enumerate((2, 1, 1)):
            await engine.send(Event("t/paid", {"id": id_, "n": n}))
            await engine.advance("1s")
        await engine.advance("1h")
        assert (await engine.wait(event_id)).output == 1


async def test_an_expression_is_checked_in_full(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO, lookback=["t/paid"])
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")
        paid = await ctx.step.wait_for_event(
            "paid",
            event="t/paid",
            if_exp="event.data.id == async.data.id && async.data.n >= event.data.least",
            timeout="1h",
            lookback=True,
        )
        return paid and paid.data["n"]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go", {"id": 1, "least": 10}))
        await engine.settle()
        await engine.send([Event("t/paid", {"id": 1, "n": n}) for n in (9, 11, 12)])
        await engine.advance("1h")
        assert (await engine.wait(event_id)).output == 11


async def test_a_sync_function_looks_back(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO, lookback=["t/paid"])
    def f(ctx):
        ctx.step.sleep("nap", "1h")
        paid = ctx.step.wait_for_event("paid", event="t/paid", timeout="1h", lookback=True)
        return paid and paid.data["n"]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send(Event("t/paid", {"n": 5}))
        await engine.advance("1h")
        assert (await engine.wait(event_id)).output == 5


async def test_the_event_that_started_the_run_is_no_news(client, stepwell_engine):
    payments(client, lookback=["t/go", "t/paid"])

    @client.create_function(fn_id="again", trigger=GO, lookback=["t/go"])
    async def again(ctx):
        found = await ctx.step.wait_for_event("w", event="t/go", timeout="1h", lookback=True)
        return found and found.data["id"]

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/go", {"id": 1}))
        await engine.settle()
        [run] = await engine.runs("again")
        assert run.status is RunStatus.WAITING
        await engine.send(Event("t/go", {"id": 2}))
        assert (await engine.wait(run.id)).output == 2


async def test_one_of_many_on_a_page_after_the_first(client, stepwell_engine):
    payments(client)
    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go", {"id": 1}))
        await engine.settle()
        news = [Event("t/paid", {"id": n, "n": n}) for n in range(2, 352)]
        await engine.send([*news, Event("t/paid", {"id": 1, "n": "found"})])
        await engine.advance("1h")
        assert (await engine.wait(event_id)).output == "found"


@pytest.mark.parametrize("declared", [(), ("t/other",)])
async def test_a_name_that_is_not_declared(client, stepwell_engine, declared):
    payments(client, lookback=declared)
    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert run.error.name == "StepArgumentError"
        names = ", ".join(repr(name) for name in (*declared, "t/paid"))
        assert f"create_function(fn_id='f', lookback=[{names}])" in run.error.message


def test_a_mocked_run_checks_it_too(client):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await ctx.step.wait_for_event("w", event="t/paid", timeout="1h", lookback=True)

    result = mocked.trigger(f, Event("t/go"), step_stubs={"w": mocked.Timeout})
    assert result.status is mocked.Status.FAILED
    assert "lookback=['t/paid']" in str(result.error)


async def test_what_is_kept_has_bounds(client: Client, stepwell_engine):
    async with stepwell_engine(client) as engine:
        store: Store = engine.store
        shard = store.shards[0]
        now = store.clock.now_ms() * 1000
        bounds = {"most": MAX_EVENTS, "age_ms": MAX_AGE_MS, "ttl_ms": 60_000}
        await shard.remember([("old", now - AGE_US - 1_000_000, b"old")], **bounds)
        await shard.remember([("n", now + n, b"%04d" % n) for n in range(MAX_EVENTS + 5)], **bounds)
        await shard.remember([("n", now + 7, b"0007")], **bounds)
        assert await shard.recent("old", 0, age_ms=MAX_AGE_MS) == []
        seen: list[bytes] = []
        while page := await shard.recent(
            "n", now, age_ms=MAX_AGE_MS, after=seen[-1] if seen else b""
        ):
            seen += page
        assert seen == [b"%04d" % n for n in range(5, MAX_EVENTS + 5)]
        assert (await shard.recent("n", now + 900, age_ms=MAX_AGE_MS))[0] == b"0900"
        # The key itself goes by its TTL, in the server's time; what it holds counts in the engine's.
        engine.clock.offset_ms += MAX_AGE_MS + 60_000
        assert await shard.recent("n", 0, age_ms=MAX_AGE_MS) == []
