"""Events in and out of runs: `step.send_event`, future `ts`, wildcards, filters (semantics §2, §3, §4)."""

import pytest

from stepwell import Event, TriggerEvent
from stepwell.records import RunStatus
from tests.support.runs import run_of, step

pytestmark = pytest.mark.anyio
GO = TriggerEvent("t/go")


@pytest.mark.parametrize("sync", [False, True])
async def test_send_event_sends_exactly_once(client, stepwell_engine, sync):
    if sync:

        @client.create_function(fn_id="f", trigger=GO)
        def f(ctx):
            ids = ctx.step.send_event("send", [Event("t/a", {"n": 1}), Event("t/b", {"n": 2})])
            ctx.step.sleep("nap", "1m")
            if ctx.attempt < 2:
                raise RuntimeError("again")
            return ids
    else:

        @client.create_function(fn_id="f", trigger=GO)
        async def f(ctx):
            ids = await ctx.step.send_event(
                "send", [Event("t/a", {"n": 1}), Event("t/b", {"n": 2})]
            )
            await ctx.step.sleep("nap", "1m")
            if ctx.attempt < 2:
                raise RuntimeError("again")
            return ids

    @client.create_function(fn_id="on", trigger=TriggerEvent("t/*", "event.name != 't/go'"))
    async def on(ctx):
        return [ctx.event.name, ctx.event.data["n"]]

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        told = [r.output for r in await engine.runs("on")]
        assert sorted(told) == [["t/a", 1], ["t/b", 2]]
        records = [await engine.event(event_id) for event_id in run.output]
        assert [record.event.name for record in records] == ["t/a", "t/b"]
        assert step(run, "send").op == "send_event"


async def test_a_duplicate_sent_by_a_step_starts_nothing(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.send_event("send", Event("t/a", {"by": "step"}, id="only"))

    @client.create_function(fn_id="on", trigger=TriggerEvent("t/a"))
    async def on(ctx):
        return ctx.event.data["by"]

    async with stepwell_engine(client) as engine:
        await engine.send(Event("t/a", {"by": "client"}, id="only"))
        await run_of(engine, "t/go")
        await engine.settle()
        assert [r.output for r in await engine.runs("on")] == ["client"]


async def test_events_that_can_not_be_sent_fail_the_run(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        await ctx.step.send_event("send", Event("inngest/function.failed"))

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.status is RunStatus.FAILED
        assert "inngest/" in run.error.message
        assert len(run.attempts) == 1


async def test_client_send_inside_a_step(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        return await ctx.step.run("send", lambda: client.send(Event("t/a")))

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/a"))
    def g(ctx):
        return ctx.step.run("send", lambda: client.send_sync(Event("t/b")))

    @client.create_function(fn_id="h", trigger=TriggerEvent("t/b"))
    async def h(ctx):
        return "end of the chain"

    async with stepwell_engine(client) as engine:
        await run_of(engine, "t/go")
        await engine.settle()
        assert [r.output for r in await engine.runs("h")] == ["end of the chain"]


async def test_an_event_of_the_future(client, stepwell_engine):
    began = []

    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        began.append(engine.clock.now_ms())
        return "ran"

    @client.create_function(fn_id="waits", trigger=TriggerEvent("t/wait"))
    async def waits(ctx):
        found = await ctx.step.wait_for_event("w", event="t/go", timeout="1m")
        return found is not None

    async with stepwell_engine(client) as engine:
        [waiting] = await engine.send(Event("t/wait"))
        await engine.settle()
        at = engine.clock.now_ms() + 86_400_000
        [event_id] = await engine.send(Event("t/go", ts=at))
        await engine.settle()
        [run] = await engine.runs("f")
        assert run.status is RunStatus.SCHEDULED
        assert (await engine.wait(waiting)).output is True  # waits match now
        await engine.advance("23h")
        assert began == []
        await engine.advance("2h")
        assert (await engine.wait(event_id)).output == "ran"
        assert 0 <= began[0] - at < 1000


async def test_wildcards_and_several_triggers_start_one_run(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=[
            TriggerEvent("shop/*"),
            TriggerEvent("shop/order.*"),
            TriggerEvent("shop/order.paid"),
            TriggerEvent("shop/order.paid", "event.data.total > 5"),
        ],
    )
    async def f(ctx):
        return ctx.event.name

    @client.create_function(fn_id="dots", trigger=TriggerEvent("shop/order.*"))
    async def dots(ctx):
        return ctx.event.name

    async with stepwell_engine(client) as engine:
        await engine.send(
            [Event("shop/order.paid", {"total": 9}), Event("shop/orders"), Event("shopping/x")]
        )
        await engine.settle()
        assert sorted(r.output for r in await engine.runs("f")) == [
            "shop/order.paid",
            "shop/orders",
        ]
        assert [r.output for r in await engine.runs("dots")] == ["shop/order.paid"]


async def test_one_matching_trigger_is_enough(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=[
            TriggerEvent("t/go", "json_parse(event.data.broken).x == 1"),
            TriggerEvent("t/go", "event.data.n in [1, 2]"),
        ],
    )
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        await engine.send([Event("t/go", {"n": n, "broken": "{"}) for n in range(4)])
        await engine.settle()
        assert sorted(r.output for r in await engine.runs()) == [1, 2]


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("event.data.total == 150.0", True),
        ("event.data.total > 99.5 && event.user.plan == 'pro'", True),
        ("event.data.missing == null", True),
        ("event.data.missing != 'x'", True),
        ("event.data.missing == 'x'", False),
        ("event.data.missing > 5", False),
        ("event.data.missing < 5", False),
        ("event.data.missing == event.data.gone", False),
        ("event.data.tags.exists(t, t == 'b')", True),
        ("'b' in event.data.tags", True),
        ("event.data.total + '-' + event.data.org == '150-acme'", True),
        ("event.data.flag == 1", False),
        ("size(event.data.tags) == 2 && has(event.data.org)", True),
        ("event.data.org.startsWith('ac') && lowercase('ABC') == 'abc'", True),
        ("event.v == '2'", True),
    ],
)
async def test_filters(client, stepwell_engine, expression, matches):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go", expression))
    async def f(ctx):
        return None

    async with stepwell_engine(client) as engine:
        data = {"total": 150, "tags": ["a", "b"], "org": "acme", "flag": True}
        [event_id] = await engine.send(Event("t/go", data, v="2", user={"plan": "pro"}))
        record = await engine.event(event_id)
        assert [o.outcome for o in record.outcomes] == ["started" if matches else "filtered"]
        await engine.settle()


async def test_what_the_function_sees_of_its_event(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=GO)
    async def f(ctx):
        event = ctx.event
        return [
            event.name,
            event.data,
            event.id,
            event.ts,
            event.v,
            event.user,
            ctx.events == [event],
        ]

    async with stepwell_engine(client) as engine:
        sent = Event(
            "t/go", {"ü": [1, None]}, id="mine", ts=1_700_000_000_000, v="3", user={"id": 7}
        )
        run = await run_of(engine, sent)
        assert run.output == [
            "t/go",
            {"ü": [1, None]},
            "mine",
            1_700_000_000_000,
            "3",
            {"id": 7},
            True,
        ]
        run = await run_of(engine, "t/go")
        [event_id] = [run.output[2]]
        assert (await engine.event(event_id)).run_ids == [run.id]
        assert abs(run.output[3] - engine.clock.now_ms()) < 5_000
