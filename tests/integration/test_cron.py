"""Crons (semantics §3): each tick one run, in order, whoever lives; missed ticks; changes of clocks and of triggers."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from stepwell import Batch, Client, Event, RateLimit, Singleton, TriggerCron, TriggerEvent
from stepwell.ids import function_shard
from stepwell.records import RunStatus
from stepwell.testing.engine import Engine
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.cron_run import Crons
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from tests.integration.coordination import APP, World, coordinator, settled, until

pytestmark = pytest.mark.anyio

START = datetime(2026, 6, 1, 0, 30, tzinfo=UTC)
MINUTE, HOUR = 60_000, 3_600_000


def ticking(client: Client, *triggers: TriggerCron, fn_id: str = "tick") -> list[str]:
    """A function of these triggers; what its ticks were, as its runs see them."""
    seen: list[str] = []

    async def tick(ctx):
        seen.append(ctx.event.data["scheduledAt"])
        return ctx.event.data

    client.create_function(fn_id=fn_id, trigger=list(triggers))(tick)
    return seen


def hours(first: int, last: int) -> list[str]:
    return [f"2026-06-01T{hour:02}:00:00Z" for hour in range(first, last + 1)]


async def absent(engine: Engine, ms: int) -> None:
    """Time passes while no coordinator lives."""
    await engine.stop_coordinator()
    engine.clock.offset_ms += ms
    await engine.start_coordinator()
    await engine.settle()


async def test_a_day_of_ticks_runs_in_order(client, stepwell_engine):
    seen = ticking(client, TriggerCron(cron="0 * * * *"))
    async with stepwell_engine(client, start=START) as engine:
        await engine.advance("23h")
        assert seen == hours(1, 23)
        runs = await engine.runs("tick")
        assert {run.status for run in runs} == {RunStatus.COMPLETED}
        assert [f"{run.created_at:%H:%M:%S.%f}" for run in runs] == [
            f"{hour:02}:00:00.000000" for hour in range(1, 24)
        ]


async def test_the_event_of_a_tick_is_shown_like_any_other(client, stepwell_engine):
    ticking(client, TriggerCron(cron="TZ=Asia/Tokyo 0 9 * * *"))
    async with stepwell_engine(client, start=datetime(2026, 5, 31, 23, 59, tzinfo=UTC)) as engine:
        await engine.advance("1m")
        (run,) = await engine.runs()
        assert run.event_name == "inngest/scheduled.timer"
        assert run.output == {
            "cron": "TZ=Asia/Tokyo 0 9 * * *",
            "scheduledAt": "2026-06-01T00:00:00Z",
            "fireAt": "2026-06-01T00:00:00Z",
        }
        record = await engine.event(run.events[0].id)
        assert [(o.fn_id, o.outcome, o.run_id) for o in record.outcomes] == [
            ("tick", "started", run.id)
        ]
        assert record.event.data == run.output
        assert record.accepted_at == datetime(2026, 6, 1, tzinfo=UTC)


async def test_many_coordinators_start_one_run_a_tick(client, stepwell_engine):
    seen = {fn: ticking(client, TriggerCron(cron="*/20 * * * *"), fn_id=fn) for fn in "abcd"}
    async with stepwell_engine(client, start=START) as engine:
        others = [Coordinator(engine.store) for _ in range(3)]
        await asyncio.gather(*(c.start() for c in others))
        engine._coordinators += others
        await engine.advance("10h")
        everyone = [engine.coordinator, *others]
        fired = sum(
            sample.value
            for c in everyone
            for metric in c.metrics.cron_ticks.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        )
        assert fired == 4 * 30
    for found in seen.values():
        assert found == sorted(set(found))
        assert len(found) == 30


@pytest.mark.parametrize(
    ("catchup", "hours_away", "made_up"),
    [
        ("none", 5, []),
        ("last", 5, hours(5, 5)),
        ("all", 5, hours(1, 5)),
        ("none", 4.508, hours(5, 5)),
    ],
)
async def test_missed_ticks(client, stepwell_engine, catchup, hours_away, made_up):
    seen = ticking(client, TriggerCron(cron="0 * * * *", catchup=catchup))
    async with stepwell_engine(client, start=START) as engine:
        await engine.settle()
        await absent(engine, int(hours_away * HOUR))
        assert seen == made_up
        metrics = engine.coordinator.metrics
        skipped = metrics.cron_skipped.labels("shop", "tick")._value.get()
        assert skipped == 5 - len(made_up)
        await engine.advance("1h")
        assert seen == [*made_up, "2026-06-01T06:00:00Z"]


async def test_all_of_a_thousand_missed_ticks_are_made_up_for(client, stepwell_engine):
    seen = ticking(client, TriggerCron(cron="* * * * *", catchup="all"))
    async with stepwell_engine(client, start=START) as engine:
        await engine.settle()
        await absent(engine, 300 * MINUTE)
        assert len(seen) == len(set(seen)) == 300


async def test_a_coordinator_that_dies_with_a_tick_in_hand(client, stepwell_engine):
    seen = ticking(client, TriggerCron(cron="0 * * * *"))
    async with stepwell_engine(client, start=START) as engine:
        await engine.settle()
        await engine.stop_coordinator()
        engine.clock.offset_ms += HOUR
        shard = engine.store.shards[function_shard("shop", "tick", len(engine.store.shards))]
        reply = await shard.due(limit=10, horizon_ms=5_000, timeout_error=b"", cancelled_error=b"")
        assert len(reply.ticks) == 1
        await engine.start_coordinator()
        await engine.settle()
        assert seen == hours(1, 1)


async def test_a_daily_tick_over_both_changes_of_clocks(client, stepwell_engine):
    seen = ticking(client, TriggerCron(cron="30 2 * * *", timezone="Europe/Berlin"))
    async with stepwell_engine(client, start=datetime(2026, 3, 27, 12, tzinfo=UTC)) as engine:
        await engine.advance("3d")
        assert seen == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        seen.clear()
    async with stepwell_engine(client, start=datetime(2026, 10, 24, 12, tzinfo=UTC)) as engine:
        await engine.advance("2d")
        assert seen == ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]


async def test_a_quarter_hourly_tick_runs_on_through_the_change(client, stepwell_engine):
    seen = ticking(client, TriggerCron(cron="*/15 * * * *", timezone="Europe/Berlin"))
    async with stepwell_engine(client, start=datetime(2026, 10, 24, 23, 50, tzinfo=UTC)) as engine:
        await engine.advance("3h")
        assert len(seen) == 12
        assert seen[4:8] == [f"2026-10-25T01:{minute:02}:00Z" for minute in (0, 15, 30, 45)]


async def test_jitter_delays_the_start_not_the_tick(client, stepwell_engine):
    ticking(client, TriggerCron(cron="0 * * * *", jitter="5m"))
    async with stepwell_engine(client, start=START) as engine:
        await engine.advance("30m")
        (run,) = await engine.runs()
        fire = datetime.fromisoformat(run.events[0].data["fireAt"])
        assert run.created_at == datetime(2026, 6, 1, 1, tzinfo=UTC)
        assert run.created_at < fire
        assert run.status is RunStatus.SCHEDULED
        await engine.advance("5m")
        run = await engine.run(run.id)
        assert run.status is RunStatus.COMPLETED
        assert 0 <= (run.started_at - fire).total_seconds() < 1
        delay = fire - run.created_at
        await engine.advance("9h")
        delays = {
            datetime.fromisoformat(r.events[0].data["fireAt"]) - r.created_at
            for r in await engine.runs()
        }
        assert delay in delays
        assert len(delays) > 5
        assert max(delays).total_seconds() <= 300


async def test_events_and_two_crons_of_one_function(client, stepwell_engine):
    @client.create_function(
        fn_id="f",
        trigger=[
            TriggerEvent("t/go"), TriggerCron(cron="@hourly"), TriggerCron(cron="*/30 * * * *"),
        ],
    )  # fmt: skip
    async def f(ctx):
        await ctx.step.sleep("nap", "2h")

    async with stepwell_engine(client, start=START) as engine:
        await engine.advance("1h")
        await engine.send(Event("t/go"))
        await engine.advance("5h")
        runs = await engine.runs()
        ticks = [run.created_at for run in runs if run.event_name != "t/go"]
        assert len(ticks) == len(set(ticks)) == len(runs) - 1 == 12
        assert {run.status for run in runs} == {RunStatus.COMPLETED, RunStatus.WAITING}


async def test_flow_control_holds_for_ticks(client, stepwell_engine):
    @client.create_function(
        fn_id="one", trigger=TriggerCron(cron="@hourly"), singleton=Singleton(mode="skip")
    )
    async def one(ctx):
        await ctx.step.sleep("nap", "90m")

    @client.create_function(
        fn_id="batch",
        trigger=[TriggerCron(cron="@hourly"), TriggerEvent("t/go")],
        batch_events=Batch(max_size=10, timeout="1d"),
    )
    async def batch(ctx):
        return len(ctx.events)

    async with stepwell_engine(client, start=START) as engine:
        await engine.advance("4h")
        begun = [f"{run.created_at:%H:%M}" for run in await engine.runs("one")]
        assert begun == ["01:00", "03:00"]
        # A tick is not gathered: its run begins at its moment.
        assert [run.output for run in await engine.runs("batch")] == [1, 1, 1, 1]


async def test_a_key_without_a_value_is_logged_once(client, stepwell_engine, caplog):
    @client.create_function(
        fn_id="tick",
        trigger=TriggerCron(cron="@hourly"),
        rate_limit=RateLimit(1, "1d", key="event.data.tenant"),
    )
    async def tick(ctx):
        return None

    async with stepwell_engine(client, start=START) as engine:
        await engine.advance("3h")
        assert len(await engine.runs("tick")) == 3
        (told,) = [r.getMessage() for r in caplog.records if "no usable value" in r.getMessage()]
        assert told.startswith(
            "function shop-tick: rate_limit has no usable value for a cron's event"
        )
        labels = {"app": "shop", "function": "tick", "option": "rate_limit"}
        metrics = engine.coordinator.metrics.registry
        assert metrics.get_sample_value("stepwell_flow_key_errors_total", labels) == 3


# --- without workers: configs by hand ---


def crons(*texts: str, **more: Any) -> dict[str, Any]:
    found = [
        {"cron": t, "timezone": None, "jitter": None, "catchup": "last", **more} for t in texts
    ]
    return {"triggers": found}


async def state(w: World, number: str) -> dict[str, int]:
    keys = w.store.keys(0)
    flat = await w.store.server.call(keys.root, "HGETALL", keys.build("cron", number))
    return {k.decode(): int(v[:13]) for k, v in zip(flat[::2], flat[1::2], strict=True)}


async def due(w: World) -> dict[str, float]:
    keys = w.store.keys(0)
    flat = await w.store.server.call(keys.root, "ZRANGE", keys.build("due"), 0, -1, "WITHSCORES")
    return {k.decode(): float(v) for k, v in zip(flat[::2], flat[1::2], strict=True)}


async def runs(w: World, number: str) -> int:
    keys = w.store.keys(0)
    return int(await w.store.server.call(keys.root, "ZCARD", keys.build("fn_runs", number)))


async def test_triggers_change_while_it_runs(one: World) -> None:
    async with coordinator(one) as c, coordinator(one):
        number = (await one.functions(f=crons("0 0 1 1 *", "@monthly")))["f"]
        await settled(c)
        before = await state(one, number)
        assert set(before) == {"UTC 0 0 1 1 *", "UTC @monthly"}
        one.clock.offset_ms += 1_000
        await one.functions(f=crons("0 0 1 1 *", "@yearly"))
        await settled(c)
        after = await state(one, number)
        assert set(after) == {"UTC 0 0 1 1 *", "UTC @yearly"}
        # What stayed is where it was, what came begins now.
        assert after["UTC 0 0 1 1 *"] == before["UTC 0 0 1 1 *"]
        assert after["UTC @yearly"] > before["UTC @monthly"]
        assert set(await due(one)) == {f"%{number}"}
        await one.functions(f={"triggers": [{"event": "a/b", "expression": None}]})
        await settled(c)
        assert await state(one, number) == {}
        assert await due(one) == {}


async def ready(w: World) -> Crons:
    """The crons of a coordinator that read the registry as it is now."""
    made = Crons(w.store, Registry(w.store), Metrics())
    await made.sync()
    return made


async def test_a_tick_is_planned_by_the_newest_registry(one: World) -> None:
    number = (await one.functions(f=crons("0 * * * *")))["f"]
    behind = await ready(one)
    await one.functions(f=crons("0 0 1 1 *"))
    one.clock.offset_ms += 24 * HOUR
    await behind.handle(0, [number], one.clock.now_ms())
    assert set(await state(one, number)) == {"UTC 0 0 1 1 *"}
    assert await runs(one, number) == 0


async def test_all_who_find_a_tick_due_bring_it_about_once(one: World) -> None:
    number = (await one.functions(f=crons("*/10 * * * *", catchup="all")))["f"]
    many = [await ready(one) for _ in range(5)]
    one.clock.offset_ms += 24 * HOUR
    now = one.clock.now_ms()
    while (await due(one))[f"%{number}"] <= now:
        await asyncio.gather(*(each.handle(0, [number], now) for each in many))
    assert await runs(one, number) == 144


async def test_crons_come_back_with_their_functions_after_all_was_lost(one: World) -> None:
    async with coordinator(one) as c:
        number = (await one.functions(f=crons("0 0 1 1 *")))["f"]
        await settled(c)
        keys = one.store.keys(0)
        for kind in ("due", "functions", "functions_version", "meta"):
            key = keys.build(kind)
            await one.store.server.call(key, "DEL", key)
        cron = keys.build("cron", number)
        await one.store.server.call(cron, "DEL", cron)
        assert await one.functions(f=crons("0 0 1 1 *")) == {"f": number}
        await settled(c)
        assert set(await due(one)) == {f"%{number}"}


async def test_a_function_that_cannot_be_read_here_is_left_for_others(one: World) -> None:
    number = (await one.functions(f=crons("0 * * * *")))["f"]
    await (await ready(one)).sync()
    before = await state(one, number)
    await one.functions(f={"triggers": ["of a later version"]})
    one.clock.offset_ms += HOUR
    now = one.clock.now_ms()
    late = Crons(one.store, Registry(one.store), Metrics())
    await late.handle(0, [number], now)
    assert await state(one, number) == before
    assert await due(one) == {f"%{number}": now + MINUTE}


async def test_one_broken_cron_does_not_hold_up_the_others(
    one: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with coordinator(one) as c:
        numbers = await one.functions(
            odd=crons("0 * * * *", timezone="Mars/Phobos"),
            worse=crons("0 * * * *", jitter="soon"),
            spoilt=crons("0 * * * *"),
            good=crons("0 * * * *"),
        )
        await settled(c)
        assert f"function {APP}-odd: its cron '0 * * * *' can't be read here" in caplog.text
        keys = one.store.keys(0)
        spoilt = keys.build("cron", numbers["spoilt"])
        await one.store.server.call(spoilt, "DEL", spoilt)
        await one.store.server.call(spoilt, "SET", spoilt, "not a hash")
        one.clock.offset_ms += HOUR
        now = one.clock.now_ms()
        c.poke()

        async def all_later() -> bool:
            found = await due(one)
            return all(at > now for at in found.values()) and len(found) == len(numbers)

        await until(all_later)
        assert [await runs(one, numbers[fn]) for fn in numbers] == [0, 0, 0, 1]
        assert f"the crons of function {numbers['spoilt']} are put off" in caplog.text
        assert (await due(one))[f"%{numbers['spoilt']}"] >= now + MINUTE
