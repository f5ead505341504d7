"""tick.lua, and how due.lua hands cron items over: a tick happens once, whoever dies or comes second."""

import random

import pytest

from stepwell.ids import run_id, ulid_ms
from stepwell.serde.values import pack
from stepwell_engine.cron import parse_cron
from stepwell_engine.cron_plan import TickPlan, plan_ticks
from stepwell_engine.store.transitions import NewRun
from stepwell_engine.triggers import RegisteredFunction
from tests.support.audit import violations
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

HOUR = 3_600_000
FN = "7"


async def items(shard: Shard) -> dict[str, int]:
    flat = await shard.do("ZRANGE", "due", 0, -1, "WITHSCORES")
    return {k.decode(): int(float(v)) for k, v in zip(flat[::2], flat[1::2], strict=True)}


async def state(shard: Shard) -> dict[str, bytes]:
    flat = await shard.do("HGETALL", "cron", params=(FN,))
    return {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)}


async def runs(shard: Shard) -> list[bytes]:
    found: list[bytes] = await shard.do("ZRANGE", "fn_runs", 0, -1, params=(FN,))
    return found


def event_of(at: int) -> str:
    return f"{at:026d}"


def new_run(at: int, start_ms: int = 0) -> NewRun:
    run = run_id(at, event_of(at), "app", "f", 0)
    return NewRun(run, FN, "app", b"E" * 26 + b"blob", start_ms, at)


async def begin(shard: Shard, at: int) -> dict[str, bytes]:
    """A cron that begins, with its next tick at `at`."""
    after = {"UTC @hourly": b"%013d" % (at - HOUR)}
    assert await shard.t.tick(FN, at, {}, after, record_ttl_ms=1000) == 0
    return after


async def fire(shard: Shard, before: dict[str, bytes], at: int, start_ms: int = 0) -> int | None:
    after = dict.fromkeys(before, b"%013d" % at)
    run = new_run(at, start_ms)
    records = [(event_of(at), b"record")]
    return await shard.t.tick(FN, at + HOUR, before, after, records, [run], record_ttl_ms=1000)


async def test_a_cron_begins_in_due(shard: Shard) -> None:
    at = shard.clock.now_ms() + HOUR
    after = await begin(shard, at)
    assert await state(shard) == after
    assert await items(shard) == {f"%{FN}": at}
    reply = await shard.due()
    assert (reply.handled, reply.ticks, reply.next_due) == (0, (), at)


async def test_a_due_tick_stays_until_it_is_done(shard: Shard) -> None:
    at = shard.clock.now_ms() + HOUR
    before = await begin(shard, at)
    shard.wait(HOUR + 5)
    for _ in range(2):  # the first to find it died
        reply = await shard.due()
        assert (reply.handled, reply.late_ms, reply.ticks) == (0, 0, (FN,))
        assert await items(shard) == {f"%{FN}": at}
    assert await fire(shard, before, at) == 1
    assert await items(shard) == {f"%{FN}": at + HOUR}
    assert (await shard.due()).ticks == ()
    (leased,) = await shard.lease()
    assert leased.run_id == new_run(at).run_id
    assert await shard.do("GET", "record", params=(event_of(at),)) == b"record"
    await shard.commit(leased, "F", "c", b"", b"")


async def test_of_two_at_once_one_does_it(shard: Shard) -> None:
    at = shard.clock.now_ms()
    before = await begin(shard, at)
    assert await fire(shard, before, at) == 1
    done = await state(shard)
    assert await fire(shard, before, at) is None  # also what a lost reply leads to
    # Nor does one that means to make up for what the other left out.
    assert await fire(shard, before, at - HOUR) is None
    assert await state(shard) == done
    assert len(await runs(shard)) == 1
    assert await items(shard) == {f"%{FN}": at + HOUR}


@pytest.mark.parametrize(
    "read",
    [{}, {"UTC @daily": b"1"}, {"UTC @hourly": b"2"}, {"UTC @hourly": b"1", "UTC @daily": b"1"}],
)
async def test_a_plan_made_from_another_state_does_nothing(
    shard: Shard, read: dict[str, bytes]
) -> None:
    assert await shard.t.tick(FN, 5, {}, {"UTC @hourly": b"1"}, record_ttl_ms=1000) == 0
    after = {"UTC @weekly": b"9"}
    assert await shard.t.tick(FN, 9, read, after, [], [new_run(9)], record_ttl_ms=1000) is None
    assert await state(shard) == {"UTC @hourly": b"1"}
    assert await items(shard) == {f"%{FN}": 5}
    assert await runs(shard) == []


async def test_triggers_come_and_go(shard: Shard) -> None:
    first = {"UTC @hourly": b"1", "UTC @daily": b"1"}
    assert await shard.t.tick(FN, 5, {}, first, record_ttl_ms=1000) == 0
    second = {"UTC @weekly": b"2", "UTC @daily": b"1"}
    assert await shard.t.tick(FN, 7, first, second, record_ttl_ms=1000) == 0
    assert await state(shard) == second
    assert await shard.t.tick(FN, 0, second, {}, record_ttl_ms=1000) == 0
    assert await state(shard) == {}
    assert await items(shard) == {}


async def test_jitter_is_a_start_in_the_future(shard: Shard) -> None:
    at = shard.clock.now_ms()
    before = await begin(shard, at)
    assert await fire(shard, before, at, start_ms=at + 30_000) == 1
    run = new_run(at).run_id
    assert (await items(shard))[run] == at + 30_000
    assert await shard.lease() == []
    shard.wait(30_001)
    assert (await shard.due()).handled == 1
    (leased,) = await shard.lease()
    await shard.commit(leased, "F", "c", b"", b"")


async def test_ticks_do_not_hold_up_other_timers(shard: Shard) -> None:
    at = shard.clock.now_ms()
    run = await shard.create(start_ms=at + 100)
    await begin(shard, at)
    shard.wait(150)
    reply = await shard.due()
    assert (reply.handled, reply.ticks) == (1, (FN,))
    assert 50 <= reply.late_ms < 60_000
    (leased,) = await shard.lease()
    assert leased.run_id == run
    await shard.commit(leased, "F", "c", b"", b"")


async def test_a_near_tick_wakes_a_sleeping_coordinator(shard: Shard) -> None:
    await shard.due()
    await begin(shard, shard.clock.now_ms() + HOUR)
    assert await shard.entries() == []
    await shard.t.tick(FN, 0, await state(shard), {}, record_ttl_ms=1000)
    await begin(shard, shard.clock.now_ms() + 1_000)
    assert [f["k"] for _, f in await shard.entries()] == [b"w"]


async def test_a_registration_of_crons_wakes_a_coordinator(shard: Shard) -> None:
    plain = pack({"triggers": [{"event": "a/b", "expression": None}]})
    clockwork = pack({"triggers": [{"cron": "@daily", "timezone": None}]})
    wakes = []
    for config in (plain, plain, clockwork, clockwork, plain, plain):
        await shard.t.register(5, [("app\0f", config)])
        wakes.append(len(await shard.entries()))
    assert wakes == [0, 0, 1, 1, 2, 2]
    assert {(f["k"], f["n"]) for _, f in await shard.entries()} == {(b"w", b"fn")}


async def test_the_audit_misses_a_cron_that_is_not_in_due(shard: Shard) -> None:
    await begin(shard, 5)
    assert await violations(shard.server) == []
    await shard.do("ZREM", "due", f"%{FN}")
    assert [v.rule for v in await violations(shard.server)] == ["cron"]
    await shard.do("ZADD", "due", 5, f"%{FN}", 5, "%8")
    assert [str(v)[:9] for v in await violations(shard.server)] == ["stray: %8"]
    await shard.do("ZREM", "due", "%8")


@pytest.mark.parametrize("seed", range(6))
async def test_forgetful_coordinators_miss_nothing_and_do_nothing_twice(
    shard: Shard, seed: int
) -> None:
    """Any number of them read, plan, die, write late and write again, in any order."""
    rng = random.Random(seed)
    texts = ("*/20 * * * *", "7 */2 * * *", "0 * * * *")
    triggers = [{"cron": text, "catchup": "all", "jitter": 5_000} for text in texts]
    function = RegisteredFunction("app", "f", FN, 0, {"triggers": triggers})
    held: list[tuple[dict[str, bytes], TickPlan]] = []

    async def read() -> tuple[dict[str, bytes], TickPlan]:
        found = await state(shard)
        return found, plan_ticks(function, found, shard.clock.now_ms())

    async def write(found: dict[str, bytes], plan: TickPlan) -> None:
        await shard.t.tick(
            FN, plan.next_ms, found, plan.after, plan.records, plan.runs, record_ttl_ms=1000
        )

    first, plan = await read()
    await write(first, plan)
    begun = int(next(iter(plan.after.values())))
    for _ in range(80):
        act = rng.choice("jrrwwwd")
        if act == "j":
            shard.wait(rng.choice([60_000, HOUR // 3, 5 * HOUR, 40 * HOUR]))
        elif act == "r":
            held.append(await read())
        elif held and act == "w":
            await write(*rng.choice(held))
        elif held:
            held.pop(rng.randrange(len(held)))
    while (await shard.due()).ticks:
        await write(*await read())
    until = max(int(value[:13]) for value in (await state(shard)).values())
    schedules = [parse_cron(text, None) for text in texts]
    wanted = {tick for each in schedules for tick in each.between(begun, until, 100_000)}
    assert [ulid_ms(run.decode()) for run in await runs(shard)] == sorted(wanted)
    assert min((await items(shard)).values()) > until
