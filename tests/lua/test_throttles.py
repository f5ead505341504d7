"""Throttles: the interval that events give, and starts that are still owed when it, or the clock, changes."""

import pytest

from tests.support.gates import gate
from tests.support.limited import add, end, runs, say
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

RATE = gate("t", "-", "rate")
MINUTE = 60_000_000


async def clear(shard: Shard) -> None:
    """Everything ends, so that the audit finds nothing in the way."""
    for _ in range(30):
        shard.wait(60_000)
        await shard.due()
        await end(shard, *await shard.lease(50))


async def test_an_event_gives_a_throttle_its_interval(shard: Shard) -> None:
    await say(shard, rate=(f"*{MINUTE}", 1))
    for _ in range(4):
        await add(shard, RATE, 1, rate=2)
    assert len(await runs(shard)) == 1
    shard.wait(30_001)
    await shard.due()
    assert len(await runs(shard)) == 1
    # Ten a minute: the next is due in six seconds, not in thirty.
    await add(shard, RATE, 2, rate=10)
    shard.wait(6_001)
    await shard.due()
    assert len(await runs(shard)) == 1
    await add(shard, RATE, 3, rate=1)
    shard.wait(30_000)
    await shard.due()
    assert await runs(shard) == []
    await clear(shard)


async def test_a_slower_rate_gives_no_burst_back(shard: Shard) -> None:
    await say(shard, rate=(f"*{MINUTE}", 3))
    for us, limit in ((1, 60), (2, 1), (3, 60), (4, 1), (5, 7)):
        for _ in range(3):
            await add(shard, RATE, us, rate=limit)
        assert len(await runs(shard)) == (3 if us == 1 else 0)
    await clear(shard)


async def test_a_rate_before_any_event_gave_one(shard: Shard) -> None:
    await say(shard, rate=(10_000_000, 1))
    await add(shard, RATE)
    await add(shard, RATE)
    assert len(await runs(shard)) == 1
    await say(shard, rate=(f"*{MINUTE}", 1), version=2)
    assert await shard.do("HGET", "flow", "t", params=("1",)) == b"*60000000 10000000"
    shard.wait(10_001)
    await shard.due()
    assert len(await runs(shard)) == 1
    fresh = gate("t", "-", "fresh")
    await shard.do("HSET", "flow", "t", f"*{MINUTE} ", params=("1",))
    for _ in range(2):
        await add(shard, fresh)
    assert len(await runs(shard)) == 1
    shard.wait(59_000)
    await shard.due()
    assert await runs(shard) == [], "one a period, as with a limit of 1"
    await clear(shard)


@pytest.mark.parametrize("how", ["the clock went back", "the interval got shorter"])
async def test_no_start_is_further_off_than_the_interval_now(shard: Shard, how: str) -> None:
    await say(shard, rate=(MINUTE * 60, 2))
    for _ in range(4):
        await add(shard, RATE)
    assert len(await runs(shard)) == 2
    if how == "the clock went back":
        shard.wait(-86_400_000)
        await say(shard, rate=(MINUTE * 60, 1), version=2)
        wait, other = 3_600_000, 1_800_000
    else:
        await say(shard, rate=(MINUTE, 1), version=2)
        wait, other = 60_000, 30_000
    assert await runs(shard) == []
    shard.wait(other)
    await shard.due()
    assert await runs(shard) == []
    shard.wait(wait - other + 1_000)
    await shard.due()
    assert len(await runs(shard)) == 1
    await shard.do("DEL", "arrival", params=(RATE[2:],))
    await clear(shard)
