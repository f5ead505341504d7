"""The budget of round trips (one event → one run of one step), asserted by the clients' own counters."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from stepwell import Client, Context, Event, TriggerEvent
from stepwell.records import RunStatus
from stepwell.testing.engine import Engine
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script

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
