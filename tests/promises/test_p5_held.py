"""P5: a cancel accepted after the trigger cancels even what would be over in no time, when it is handled first or with it."""

import pytest

from stepwell import Cancel, Concurrency, Debounce, Event
from stepwell.records import RunStatus
from tests.support.cancels import BY_ID, GO, handle, handle_at_once, was_cancelled_by

pytestmark = pytest.mark.anyio
TRIES = 20
APART_MS = 1_000  # further than a Cluster's clocks may differ
OPTIONS = [{}, {"concurrency": [Concurrency(limit=1)]}]


def short(client, **options):
    """A function that is over as soon as it begins; the ids of the events it had."""
    begun: list[int] = []

    @client.create_function(fn_id="f", trigger=GO, **options)
    async def f(ctx):
        begun.append(ctx.event.data["id"])
        return "done"

    return begun


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "concurrency"])
async def test_handled_before_the_trigger(client, stepwell_engine, options):
    begun = short(client, cancel=[BY_ID, Cancel("t/halt")], **options)
    async with stepwell_engine(client) as engine:
        await engine.settle()
        await engine.stop_coordinator()
        pairs = []
        for n in range(TRIES):
            (go,) = await engine.send(Event("t/go", {"id": n}))
            (other,) = await engine.send(Event("t/go", {"id": -n - 1}))
            engine.clock.offset_ms += APART_MS
            (stop,) = await engine.send(Event("t/stop", {"id": n}))
            await handle(engine, stop, go, other)
            pairs.append((go, stop, other))
        await engine.start_coordinator()
        await engine.settle()
        for go, stop, other in pairs:
            assert was_cancelled_by(await engine.wait(go), stop)
            assert (await engine.wait(other)).output == "done", "let go, not left"
        assert sorted(begun) == sorted(-n - 1 for n in range(TRIES))


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "concurrency"])
async def test_handled_with_the_trigger_in_one_batch(client, stepwell_engine, options):
    begun = short(client, cancel=[BY_ID], **options)
    async with stepwell_engine(client) as engine:
        await engine.settle()
        await engine.stop_coordinator()
        pairs = []
        for n in range(TRIES):
            (go,) = await engine.send(Event("t/go", {"id": n}))
            engine.clock.offset_ms += APART_MS
            (stop,) = await engine.send(Event("t/stop", {"id": n}))
            await handle_at_once(engine, *((go, stop) if n % 2 else (stop, go)))
            pairs.append((go, stop))
        await engine.start_coordinator()
        await engine.settle()
        for go, stop in pairs:
            assert was_cancelled_by(await engine.wait(go), stop)
        assert begun == []


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "concurrency"])
async def test_handled_while_the_debounce_was_open(client, stepwell_engine, options):
    begun = short(client, cancel=[BY_ID], debounce=Debounce("1m", key="event.data.id"), **options)
    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"id": n}) for n in range(TRIES + 1)])
        await engine.advance("1s")
        stops = [(await engine.send(Event("t/stop", {"id": n})))[0] for n in range(TRIES)]
        await engine.advance("5m")
        for go, stop in zip(ids[:TRIES], stops, strict=True):
            assert was_cancelled_by(await engine.wait(go), stop)
        assert (await engine.wait(ids[TRIES])).output == "done"
        assert begun == [TRIES]


async def test_a_held_run_and_the_event_say_so(client, stepwell_engine):
    short(client, cancel=[BY_ID])
    async with stepwell_engine(client) as engine:
        await engine.settle()
        await engine.stop_coordinator()
        (go,) = await engine.send(Event("t/go", {"id": 1}))
        engine.clock.offset_ms += APART_MS
        (stop,) = await engine.send(Event("t/stop", {"id": 1}))
        await handle(engine, stop, go)
        [run] = await engine.runs()
        assert run.status is RunStatus.SCHEDULED
        told = await client.explain(run.id)
        assert told.reason == "held"
        assert "held before its start: an event that its cancel= names" in told.text
        assert (await engine.event(stop)).outcomes == ()
        await engine.start_coordinator()
        assert was_cancelled_by(await engine.wait(go), stop)
        record = await engine.event(stop)
        [outcome] = record.outcomes
        assert (outcome.outcome, outcome.run_id, record.cancelled) == ("cancels", run.id, 1)
        assert outcome.reason == f"cancelled run {run.id}"
        assert (outcome.app_id, outcome.fn_id) == (run.app_id, "f")
        assert record.run_ids == []
