"""A lease whose reply was longer on its way than it lasts is not run: it may be somebody's by now."""

import asyncio

import pytest

from stepwell.events import Event
from stepwell.triggers import TriggerEvent
from stepwell_engine.store.transitions import Leased, Transitions
from stepwell_workers import fetch

pytestmark = pytest.mark.anyio

LEASE_S = 20


async def test_a_reply_that_comes_after_the_lease(client, stepwell_engine, monkeypatch):
    entered: list[str] = []
    tokens: list[str] = []
    lost: list[Leased] = []
    lease, now = Transitions.lease, [0.0]
    monkeypatch.setattr(fetch, "boot_seconds", lambda: now[0])

    async def stalled(shard, *args, **more):
        taken = await lease(shard, *args, **more)
        tokens.extend(leased.token for leased in taken)
        if taken and not lost:
            lost.append(taken[0])
            key = shard.keys.run(taken[0].run_id)
            engine.clock.offset_ms += (LEASE_S + 1) * 1000
            async with asyncio.timeout(10):
                while await engine.store.server.call(key, "HGET", key, "rs") != b"q":
                    await shard.reclaim(
                        [(each.item, each.token, 3, b"") for each in await shard.expired(10)]
                    )
            now[0] += LEASE_S + 1
        return taken

    monkeypatch.setattr(Transitions, "lease", stalled)

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        entered.append(ctx.run_id)

    async with stepwell_engine(client, shards=1) as engine:
        [event_id] = await engine.send(Event("t/go"))
        run = await engine.wait(event_id)
        assert lost[0].run_id == run.id
        assert len(tokens) == 2
        assert entered == [run.id]
