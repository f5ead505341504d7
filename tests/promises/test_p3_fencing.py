"""P3: a worker that lost its lease can write nothing."""

import threading

import pytest

from stepwell.events import Event
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from tests.support.runs import until

pytestmark = pytest.mark.anyio


async def test_what_a_worker_finishes_after_its_lease_is_lost(client, stepwell_engine):
    started, release = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow():
        calls.append(len(calls))
        if len(calls) == 1:
            started.set()
            release.wait(20)
            return "from the worker that lost its lease"
        return "from the worker that has it"

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return await ctx.step.run("slow", slow)

    async with stepwell_engine(client) as engine:
        try:
            [event_id] = await engine.send(Event("t/go"))
            await until(started.is_set)
            await engine.kill_worker()
            await engine.start_worker()
            await engine.advance("1m")
            run = await engine.wait(event_id)
        finally:
            release.set()
        assert run.output == "from the worker that has it"
        await engine.settle()
        assert (await engine.run(run.id)).output == "from the worker that has it"


async def test_every_write_of_an_old_lease_is_refused(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return "ours"

    async with stepwell_engine(client) as engine:
        await engine.stop_worker()
        [event_id] = await engine.send(Event("t/go"))
        [run_id] = (await engine.event(event_id)).run_ids
        await engine.settle()
        shard = engine.store.of_run(run_id)
        [old] = await shard.lease("ghost", "ghost", ["shop"], want=1, lease_ms=1_000, suspects=0)
        await engine.advance("1m")
        await engine.start_worker()
        run = await engine.wait(run_id)
        assert run.output == "ours"
        for clause in (("N",), ("S",), ("F", "c", b"\xc0", b""), ("R", 0, b""), ("Y", "late")):
            code, *_ = await shard.commit(
                run_id, "", old.token, 0, clause, ("d", "0" * 16, b"dx", b"", 0)
            )
            assert code in (b"FENCED", b"GONE")
        assert await shard.renew("ghost", [(run_id, old.token)], alive_ms=1, lease_ms=1) == [run_id]
        after = await engine.run(run_id)
        assert (after.status, after.output, after.steps) == (RunStatus.COMPLETED, "ours", ())
