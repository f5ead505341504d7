"""Rate limits: which starts count, when the period or the limit changes and when the clock is set back."""

import pytest

from stepwell.serde import pack
from stepwell_engine.store.transitions import NewRun
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio


async def begins(shard: Shard, limit: int, period: int) -> bool:
    run, now = shard.new_id(), shard.clock.now_ms()
    asked = pack({"ts": now, "us": now * 1000, "rl": ["rate", limit, period]})
    # An event of its own: a decision is made once.
    new = NewRun(run, "1", "app", run.encode() + b"blob", 0, now, flow=asked)
    await shard.t.admit("stepwell", [], [], [new], record_ttl_ms=60_000)
    return await shard.status(run) == "q"


async def begun(shard: Shard, many: int, limit: int, period: int) -> int:
    return sum([await begins(shard, limit, period) for _ in range(many)])


async def logged(shard: Shard) -> int:
    found: int = await shard.do("ZCARD", "rate", params=("rate",))
    return found


async def test_a_longer_period_counts_the_last_starts(shard: Shard) -> None:
    for _ in range(5):
        assert await begins(shard, 3, 60_000)
        shard.wait(61_000)
    assert await logged(shard) == 3
    # Each of the last three was more than a minute after the one before.
    assert await begun(shard, 5, 3, 600_000) == 0
    assert await begun(shard, 5, 2, 100_000) == 1
    shard.wait(600_000)
    assert await begun(shard, 5, 3, 600_000) == 3
    assert await logged(shard) == 3


async def test_an_event_with_a_low_limit_forgets_no_start(shard: Shard) -> None:
    assert await begun(shard, 4, 4, 60_000) == 4
    shard.wait(59_000)
    assert await begun(shard, 2, 1, 60_000) == 0
    assert await begun(shard, 5, 6, 60_000) == 2
    shard.wait(2_000)
    assert await begun(shard, 5, 1, 60_000) == 0
    assert await begun(shard, 5, 3, 60_000) == 1
    assert await logged(shard) == 3


async def test_a_rate_limit_after_the_clock_was_set_back(shard: Shard) -> None:
    assert await begun(shard, 2, 2, 600_000) == 2
    # By less than the period: what it says holds.
    shard.wait(-300_000)
    assert await begun(shard, 1, 2, 600_000) == 0
    # By more: it does not hold back until the clock is there again.
    shard.wait(-3_300_000)
    assert await begun(shard, 3, 2, 600_000) == 2
    assert await logged(shard) == 2
    shard.wait(3_600_000)
    assert await begun(shard, 3, 2, 600_000) == 2
