"""A function that is removed: nothing starts it any more, and what it ran is still there."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from stepwell import Client, Context, Debounce, Event, TriggerCron, TriggerEvent
from stepwell.errors import ConfigError, FunctionInUseError, FunctionNotFoundError, StepError
from stepwell.records import RemovedFunction, RunStatus
from stepwell.testing.engine import Engine
from stepwell_engine.audit import audit
from tests.integration.coordination import until

pytestmark = pytest.mark.anyio

START = datetime(2026, 6, 1, 0, 30, tzinfo=UTC)
GO = TriggerEvent("t/go")


def other_app() -> Client:
    """An app of its own, so that a worker lives when the one in question has none."""
    other = Client(app_id="else")

    @other.create_function(fn_id="calls", trigger=TriggerEvent("t/call"))
    async def calls(ctx: Context) -> str:
        try:
            return str(await ctx.step.invoke_by_id("call", app_id="shop", function_id="f"))
        except StepError as error:
            return f"{error.name}: {error.message}"

    return other


def plain(client: Client, **options: Any) -> None:
    async def f(ctx: Context) -> int:
        await ctx.step.sleep("nap", ctx.event.data.get("ms", 1))
        return 7

    async def failed(ctx: Context) -> None:
        pass

    client.create_function(fn_id="f", on_failure=failed, **{"trigger": GO, **options})(f)


async def crons_of(engine: Engine) -> list[bytes]:
    """What is left of crons: their states, and their items among what is due."""
    found: list[bytes] = []
    for shard in engine.store.shards:
        root, due = shard.keys.root, shard.keys.build("due")
        keys = await engine.store.server.call(root, "KEYS", f"{root}:cron:*")
        items = await engine.store.server.call(due, "ZRANGE", due, 0, -1)
        found += [*keys, *(item for item in items if item.startswith(b"%"))]
    return found


async def test_nothing_starts_a_removed_function(client, stepwell_engine):
    plain(client, trigger=[GO, TriggerCron("0 * * * *")])
    async with stepwell_engine([client, other_app()], start=START) as engine:
        await engine.advance("1h")
        assert len(await engine.runs("f")) == 1
        assert await crons_of(engine)
        await engine.advance("1m")
        done = await client.remove_function("f")
        assert done == RemovedFunction(app_id="shop", fn_ids=("f", "f-failure"))
        await engine.settle()
        assert await crons_of(engine) == []
        await engine.advance("5h")
        event = await engine.event(*await engine.send(Event("t/go")))
        assert event.outcomes == ()
        # It is known to this client from before, or asked for anew: neither starts it.
        with pytest.raises(FunctionNotFoundError, match="removed"):
            await client.invoke(client.functions["f"])
        with pytest.raises(FunctionNotFoundError, match="write app-fn"):
            await client.invoke("shop-f")
        called = await engine.wait(*await engine.send(Event("t/call")))
        assert called.output.startswith(
            "FunctionNotFoundError: no worker has registered function 'f'"
        )
        # What it ran is there, with its name.
        (run,) = await engine.runs("f")
        assert (run.function_id, run.status, run.output) == ("shop-f", RunStatus.COMPLETED, 7)
        for shard in engine.store.shards:
            assert await audit(engine.store.server, shard.keys) == []
        with pytest.raises(FunctionNotFoundError, match="no function 'f' of app 'shop'"):
            await client.remove_function("f")


async def test_an_invoke_on_its_way_when_the_function_goes(client, stepwell_engine):
    plain(client)
    async with stepwell_engine(client) as engine:
        await engine.stop_coordinator()
        call = asyncio.create_task(client.invoke(client.functions["f"]))
        streams = [shard.keys.events for shard in engine.store.shards]

        async def sent() -> bool:
            rows = [await engine.store.server.call(s, "XRANGE", s, "-", "+") for s in streams]
            return b"inngest/function.invoked" in str(rows).encode()

        await until(sent)
        await client.remove_function("f")
        await engine.start_coordinator()
        with pytest.raises(FunctionNotFoundError, match="was not started: no worker"):
            await call


async def test_a_worker_brings_it_back(client, stepwell_engine):
    plain(client, trigger=[GO, TriggerCron("0 * * * *")])
    async with stepwell_engine(client, start=START) as engine:
        await engine.advance("1h")
        await client.remove_function("f")
        await engine.advance("3h")
        assert len(await engine.runs("f")) == 1
        await engine.restart_worker()
        await engine.settle()
        # It is the same function, and what came while it was not there is not made up for.
        assert len(await engine.runs("f")) == 1
        await engine.advance("1h")
        await engine.send(Event("t/go"))
        await engine.settle()
        assert len(await engine.runs("f")) == 3


async def test_live_runs_are_asked_about(client, stepwell_engine):
    plain(client)
    async with stepwell_engine(client) as engine:
        (event,) = await engine.send(Event("t/go", {"ms": 3_600_000}))
        await engine.settle()
        with pytest.raises(
            FunctionInUseError, match=r'shop/f has 1 run .* runs="cancel"'
        ) as refused:
            await client.remove_function("f")
        assert refused.value.count == 1
        await engine.send(Event("t/go", {"ms": 3_600_000}))
        await engine.settle()
        assert len(await engine.runs("f")) == 2
        done = await client.remove_function("f", runs="keep")
        assert (done.fn_ids, done.cancelled, done.left) == (("f",), 0, 2)
        assert (await engine.event(*await engine.send(Event("t/go")))).outcomes == ()
        # A worker has the code still.
        await engine.advance("1h")
        assert (await engine.wait(event)).output == 7
        assert (await client.remove_function("f")).fn_ids == ("f-failure",)


async def test_a_kept_run_tells_whom_it_waits_for(client, stepwell_engine):
    plain(client)
    async with stepwell_engine(client) as engine:
        await engine.stop_worker()
        (event,) = await engine.send(Event("t/go"))
        await engine.settle()
        (run,) = (await engine.event(event)).run_ids
        assert "removed" not in str(await client.explain(run))
        await client.remove_function("f", runs="keep")
        told = await client.explain(run)
        assert told.reason == "no_worker"
        assert "its function was removed: only a worker that still has the code takes it" in str(
            told
        )
        await engine.start_worker()
        assert (await engine.wait(event)).output == 7


async def test_live_runs_are_cancelled_windows_among_them(client, stepwell_engine):
    plain(client, debounce=Debounce("10m"))
    async with stepwell_engine(client) as engine:
        ids = await engine.send(Event("t/go", {"ms": 3_600_000}))
        await engine.settle()
        await engine.advance("10m")
        await engine.settle()
        ids += await engine.send(Event("t/go"))
        await engine.settle()
        with pytest.raises(FunctionInUseError) as refused:
            await client.remove_function("f")
        assert refused.value.count == 2
        done = await client.remove_function("f", runs="cancel")
        assert (done.fn_ids, done.cancelled, done.left) == (("f", "f-failure"), 2, 0)
        await engine.settle()
        for event in ids:
            run = await engine.wait(event)
            assert (run.status, run.error.message) == (
                RunStatus.CANCELLED,
                "its function was removed",
            )


async def test_what_remove_function_takes(client):
    with pytest.raises(ConfigError, match=r'runs=\): .all.; write "refuse", "cancel" or "keep"'):
        await client.remove_function("f", runs="all")
    with pytest.raises(ConfigError, match=r"remove_function\(fn_id=\)"):
        await client.remove_function("")
