"""Sleeps, waits for events, signals (semantics §4)."""

from datetime import UTC, datetime, timedelta

import pytest

from stepwell import Event, StepError, TriggerEvent
from stepwell.records import RunStatus, StepStatus
from tests.support.runs import run_of, step

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")


async def test_sleep_until(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        at = datetime.fromisoformat(ctx.event.data["at"])
        await ctx.step.sleep_until("datetime", at)
        await ctx.step.sleep_until("iso", (at + timedelta(hours=1)).isoformat())
        await ctx.step.sleep_until("ms", int(at.timestamp() * 1000) + 7_200_000)
        await ctx.step.sleep_until("past", at)
        return "up"

    async with stepwell_engine(client, start=datetime(2030, 1, 1, tzinfo=UTC)) as engine:
        at = datetime(2030, 1, 5, tzinfo=UTC)
        run = await run_of(engine, Event("t/go", {"at": at.isoformat()}), after="5d")
        assert run.output == "up"
        ends = [step(run, name).ended_at for name in ("datetime", "iso", "ms", "past")]
        for found, hours in zip(ends, (0, 1, 2, 2), strict=True):
            assert timedelta(0) <= found - at - timedelta(hours=hours) < timedelta(seconds=2)


async def test_a_sleep_in_a_sync_function(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    def f(ctx):
        ctx.step.sleep("a", timedelta(days=1))
        ctx.step.sleep("b", 86_400_000)
        news = ctx.step.wait_for_event("news", event="t/news", timeout="1d")
        signal = ctx.step.wait_for_signal("signal", signal="s", timeout="1d")
        return [news, signal]

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go", after="5d")).output == [None, None]


@pytest.mark.parametrize("duration", [1.5, -1, True, "1 fortnight", "400d", None])
async def test_bad_durations_fail_at_once(client, stepwell_engine, duration):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await ctx.step.sleep("nap", duration)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go")
        assert run.status is RunStatus.FAILED
        assert run.error.message.startswith("duration")
        assert run.steps == ()


async def test_wait_with_match_and_if_exp(client, stepwell_engine):
    @client.create_function(fn_id="match", trigger=GO)
    async def match(ctx):
        found = await ctx.step.wait_for_event("w", event="t/news", match="data.id", timeout="1h")
        return found and found.data["text"]

    @client.create_function(fn_id="if", trigger=GO)
    async def if_exp(ctx):
        found = await ctx.step.wait_for_event(
            "w",
            event="t/news",
            if_exp="event.data.id == async.data.id && async.data.amount >= 10",
            timeout="1h",
        )
        return found and found.data["text"]

    @client.create_function(fn_id="literal", trigger=GO)
    async def literal(ctx):
        found = await ctx.step.wait_for_event(
            "w",
            event="t/news",
            if_exp="async.data.kind == 'b' || async.data.amount > 99",
            timeout="1h",
        )
        return found and found.data["text"]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go", {"id": 7}))
        await engine.settle()
        for data in (
            {"id": 8, "text": "other id", "amount": 20},
            {"id": 7.0, "text": "same id", "amount": 5},
            {"id": 7, "text": "enough", "amount": 10},
            {"text": "kind", "kind": "b"},
        ):
            await engine.send(Event("t/news", data))
            await engine.settle()
        runs = {run.fn_id: run.output for run in await engine.runs()}
        assert runs == {"match": "same id", "if": "enough", "literal": "kind"}
        await engine.wait((await engine.event(event_id)).run_ids[0])


async def test_two_missing_values_never_match(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.wait_for_event("w", event="t/news", match="data.id", timeout="1h")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go", {}))
        await engine.settle()
        await engine.send(Event("t/news", {}))
        await engine.send(Event("t/news", {"id": None}))
        await engine.advance("2h")
        assert (await engine.wait(event_id)).output is None


async def test_a_wait_times_out_at_its_time(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.wait_for_event("w", event="t/news", timeout="1h")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.advance("59m")
        [run] = await engine.runs()
        assert run.status is RunStatus.WAITING
        assert step(run, "w").status is StepStatus.WAITING
        await engine.advance("2m")
        run = await engine.wait(event_id)
        assert run.output is None
        assert step(run, "w").status is StepStatus.COMPLETED


async def test_the_event_a_wait_gives(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        found = await ctx.step.wait_for_event("w", event="t/news", timeout="1h")
        return [found.name, found.data, found.id, found.user, found.ts > 0]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send(Event("t/news", {"a": [1]}, id="mine", user={"id": "u"}))
        run = await engine.wait(event_id)
        assert run.output == ["t/news", {"a": [1]}, "mine", {"id": "u"}, True]


async def test_a_duplicate_event_wakes_nothing(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        found = await ctx.step.wait_for_event("w", event="t/news", timeout="1h")
        return found and found.data

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/news", {"n": 1}, id="once"))
        await engine.settle()
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send(Event("t/news", {"n": 2}, id="once"))
        await engine.advance("2h")
        assert (await engine.wait(event_id)).output is None


async def test_signals(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.wait_for_signal("w", signal=ctx.event.data["signal"], timeout="1h")

    async with stepwell_engine(client) as engine:
        assert await engine.client.send_signal("approve-1", {"by": "nobody"}) is None
        [event_id] = await engine.send(Event("t/go", {"signal": "approve-1"}))
        await engine.settle()
        [run] = await engine.runs()
        assert await engine.client.send_signal("approve-1", {"by": "mia"}) == run.id
        assert (await engine.wait(event_id)).output == {"by": "mia"}
        assert await engine.client.send_signal("approve-1", {"by": "late"}) is None


async def test_signals_for_many_runs_on_many_shards(client, stepwell_engine):
    names = [f"fn-{n}" for n in range(8)]
    for name in names:

        @client.create_function(fn_id=name, trigger=TriggerEvent(f"t/{name}"))
        async def f(ctx):
            return await ctx.step.wait_for_signal("w", signal=f"s-{ctx.fn_id}", timeout="1h")

    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event(f"t/{name}") for name in names])
        await engine.settle()
        for name in names:
            assert await engine.client.send_signal(f"s-{name}", name)
        assert [(await engine.wait(event_id)).output for event_id in ids] == names


async def test_a_signal_in_conflict_fails_the_newcomer(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        try:
            return await ctx.step.wait_for_signal("w", signal="s", timeout="1h")
        except StepError as error:
            return f"{error.name}: {error.message}"

    async with stepwell_engine(client) as engine:
        [first] = await engine.send(Event("t/go"))
        await engine.settle()
        [second] = await engine.send(Event("t/go"))
        assert "SignalConflictError" in (await engine.wait(second)).output
        assert await engine.client.send_signal("s", "to the first")
        assert (await engine.wait(first)).output == "to the first"


async def test_a_signal_in_conflict_may_be_taken_over(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.wait_for_signal("w", signal="s", timeout="1h", on_conflict="replace")

    async with stepwell_engine(client) as engine:
        [first] = await engine.send(Event("t/go"))
        await engine.settle()
        [second] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.client.send_signal("s", "to the second")
        assert (await engine.wait(second)).output == "to the second"
        await engine.advance("2h")
        assert (await engine.wait(first)).output is None


async def test_a_name_is_free_again_after_a_timeout(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.wait_for_signal("w", signal="s", timeout="1h")

    async with stepwell_engine(client) as engine:
        assert (await run_of(engine, "t/go", after="2h")).output is None
        [second] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.client.send_signal("s", 2)
        assert (await engine.wait(second)).output == 2


async def test_a_held_signal_is_received_later(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.wait_for_signal("w", signal="s", timeout="1h")

    async with stepwell_engine(client) as engine:
        assert await engine.client.send_signal("s", "held", hold="10m") is None
        assert (await run_of(engine, "t/go")).output == "held"
        await engine.client.send_signal("s", "too old", hold="10m")
        await engine.advance("11m")
        assert (await run_of(engine, "t/go", after="2h")).output is None


async def test_a_signal_sent_by_a_step(client, stepwell_engine):
    @client.create_function(fn_id="waits", trigger=GO)
    async def waits(ctx):
        return await ctx.step.wait_for_signal("w", signal="s", timeout="1h")

    @client.create_function(fn_id="sends", trigger=TriggerEvent("t/send"))
    async def sends(ctx):
        return await ctx.step.send_signal("s", signal="s", data={"n": 1})

    @client.create_function(fn_id="sends-sync", trigger=TriggerEvent("t/send2"))
    def sends_sync(ctx):
        return ctx.step.send_signal("s", signal="s", data={"n": 2}, hold="1m")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        sender = await run_of(engine, "t/send")
        waiter = await engine.wait(event_id)
        assert sender.output == waiter.id
        assert waiter.output == {"n": 1}
        assert (await run_of(engine, "t/send2")).output is None
        assert (await run_of(engine, "t/go")).output == {"n": 2}
