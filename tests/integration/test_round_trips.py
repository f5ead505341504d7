"""The budget of round trips (one event → one run of one step), asserted by the clients' own counters."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from stepwell import Client, Context, Event, TriggerEvent
from stepwell.records import RunStatus
from stepwell.testing.engine import Engine
from stepwell_engine.cron_run import Crons
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry, register
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script
from stepwell_engine.store.store import Store

pytestmark = pytest.mark.anyio

BATCH = 500
GO = TriggerEvent("t/go")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each script was called, by any client of this process."""
    calls: Counter[str] = Counter()
    script = Server.script

    def counted(self: Server, key: str, what: Script, *args: Any, **more: Any) -> Any:
        calls[what.name] += 1
        return script(self, key, what, *args, **more)

    monkeypatch.setattr(Server, "script", counted)
    return calls


@pytest.fixture
def ended(client: Client) -> Callable[[int], "asyncio.Future[None]"]:
    """A function of `steps` steps; the call gives a future that is done when so many of its bodies are."""
    left = 0
    done: asyncio.Future[None] | None = None

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx: Context) -> None:
        nonlocal left
        for n in range(ctx.event.data["steps"]):
            await ctx.step.run(f"step-{n}", _nothing)
        left -= 1
        if left == 0:
            assert done is not None
            done.set_result(None)

    def expect(count: int) -> "asyncio.Future[None]":
        nonlocal left, done
        left, done = count, asyncio.get_running_loop().create_future()
        return done

    return expect


async def _nothing() -> None:
    pass


async def _run(engine: Engine, events: int, steps: int, done: "asyncio.Future[None]") -> None:
    sent = [Event("t/go", {"steps": steps}) for _ in range(events)]
    [*_, last] = await engine.send(sent)
    await done
    run = await engine.wait(last)
    assert run.status is RunStatus.COMPLETED


async def test_a_batch_of_events_stays_within_the_budget(client, server_kind, scripts, ended):
    async with Engine(client, server=server_kind) as engine:
        await _run(engine, 1, 1, ended(1))  # connections and registrations
        worker = engine.worker
        assert worker is not None
        scripts.clear()
        coordinated, worked = engine.store.server.counters, worker.store.server.counters
        before = coordinated.commands, worked.commands
        await _run(engine, BATCH, 1, ended(BATCH))
        assert scripts["ingest"] == 1
        assert scripts["fanout"] <= 0.1 * BATCH
        assert scripts["lease"] <= 0.2 * BATCH
        assert scripts["record"] <= BATCH
        # A run that is watched ends by the full form of a commit: here at most the last.
        assert scripts["returned"] + scripts["commit"] <= BATCH
        assert scripts["commit"] <= 1
        # Everything: reading, matching and acknowledging the ends of the runs; then leases, steps and ends.
        assert coordinated.commands - before[0] <= 0.1 * BATCH
        assert worked.commands - before[1] <= (0.2 + 1 + 1) * BATCH


async def test_a_lone_run_costs_one_call_a_step_and_one_for_its_end(
    client, server_kind, scripts, ended
):
    async with Engine(client, server=server_kind) as engine:
        await _run(engine, 1, 1, ended(1))
        scripts.clear()
        await _run(engine, 1, 5, ended(1))
        assert scripts["ingest"] == 1
        assert scripts["record"] == 5
        assert scripts["returned"] + scripts["commit"] == 1
        # One that finds the run, and one that finds nothing more.
        assert scripts["lease"] <= 2


async def test_an_event_that_ends_one_wait_costs_few_calls(client, server_kind, scripts):
    @client.create_function(fn_id="waits", trigger=GO)
    async def waits(ctx: Context) -> object:
        found = await ctx.step.wait_for_event("paid", event="t/paid", match="data.id", timeout="1d")
        return found is not None

    async with Engine(client, server=server_kind) as engine:
        sent = await engine.send([Event("t/go", {"id": n}) for n in range(3)])
        await engine.settle()
        scripts.clear()
        await engine.send(Event("t/paid", {"id": 1}))
        assert (await engine.wait(sent[1])).output is True
        await engine.settle()
        # Tried as one that nobody waits for, which tells who does; acknowledged with the last, like the end of the run.
        calls = ("ingest", "awaited", "candidates", "resolve")
        assert [scripts[name] for name in calls] == [1, 0, 1, 1]
        assert 2 <= scripts["fanout"] <= 4


async def test_crons_are_synced_in_pages(server_kind, scripts):
    """200 functions with a cron: what it takes to begin them all, and to find at a change that nothing else did."""
    async with Engine(Client(app_id="shop"), server=server_kind, shards=4) as engine:
        store = engine.store
        trigger = {"cron": "@hourly", "timezone": None, "jitter": None, "catchup": "last"}
        cron = {"triggers": [trigger]}
        await engine.stop_coordinator()
        await register(store, [("shop", f"f{n}", cron) for n in range(200)], 1)
        crons = Crons(store, Registry(store), Metrics())
        scripts.clear()
        assert await _sync(crons, store) <= 8
        # Shards have about 50 functions: a page each.
        assert (scripts["crons"], scripts["tick"]) == (4, 200)
        await register(store, [("shop", "one-more", cron)], 2)
        scripts.clear()
        assert await _sync(crons, store) <= 8
        assert (scripts["crons"], scripts["tick"]) == (4, 1)
        await engine.start_coordinator()


async def _sync(crons: Crons, store: Store) -> int:
    """The round trips of one sync, those to several nodes counted together."""
    before = store.server.counters.round_trips
    await crons.sync()
    nodes = len(store.server.same_node([shard.keys.root for shard in store.shards]))
    return (store.server.counters.round_trips - before) // nodes
