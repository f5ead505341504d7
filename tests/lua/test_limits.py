"""Limits that events give: which one holds, for how long it is kept, and who goes on when a slot is free.

Directed cases that the random histories of test_gates.py seldom meet.
"""

import pytest

from stepwell.serde import pack
from stepwell_engine.store.transitions import NewRun
from tests.support.gates import gate
from tests.support.limited import add, end, runs, say
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

ONE, TWO, OTHER = gate("c", "0", "one"), gate("c", "1", "two"), gate("c", "0", "other")
MONTH = 2_678_400_000


async def test_the_newest_event_gives_the_limit(shard: Shard) -> None:
    await say(shard, "*")
    for us, limit in ((10, 2), (30, 3), (20, 1), (5, 9)):
        await add(shard, ONE, us, one=limit)
    assert await shard.do("GET", "limit", params=(ONE[2:],)) == b"30 3 0"
    items = await shard.lease(50)
    assert len(items) == 3
    await add(shard, ONE, 40, one=2)
    await end(shard, items[0])
    assert await runs(shard) == [], "two hold two slots"
    await add(shard, ONE, 40, one=4)
    assert len(await runs(shard)) == 2, "of one moment the later arrival counts"


async def test_events_that_come_together_are_told_apart(shard: Shard) -> None:
    await say(shard, "*")
    await add(shard, ONE, 10, one=2)
    news = [
        NewRun(
            shard.new_id(), "1", "app", b"E" * 26 + b"blob", 0, shard.clock.now_ms(), key=ONE,
            flow=pack({"lm": f"{us} {ONE[2:]}={limit}"}),
        )
        for us, limit in ((50, 2), (20, 9), (30, 8))
    ]  # fmt: skip
    await shard.t.admit("stepwell", [], [], news, record_ttl_ms=60_000)
    assert await shard.do("GET", "limit", params=(ONE[2:],)) == b"50 2 0"
    assert len(await runs(shard)) == 2


async def test_what_waits_hears_of_a_higher_limit_at_once(shard: Shard) -> None:
    await say(shard, "*")
    for _ in range(5):
        await add(shard, ONE, 1, one=1)
    await add(shard, f"{ONE},w2")
    assert len(await runs(shard)) == 1
    assert await runs(shard) == []
    await add(shard, f"{ONE},w3", 2, one=3)
    assert len(await runs(shard)) == 2
    # None at all: both queues that wait go on, though no slot came free.
    await add(shard, ONE, 3, one=0)
    assert len(await runs(shard)) == 5


async def test_a_limit_is_of_a_gate_of_the_event_only(shard: Shard) -> None:
    await say(shard, "*", "*")
    for _ in range(3):
        await add(shard, f"{ONE},{TWO}", 1, one=3, two=1)
        await add(shard, OTHER, 1, other=2)
    found = await runs(shard)
    keys = [await shard.field(run, "k") for run in found]
    assert (keys.count(OTHER.encode()), len(keys)) == (2, 3)


async def test_without_a_limit_it_is_the_number_before_else_1(shard: Shard) -> None:
    await say(shard, 3)
    for _ in range(5):
        await add(shard, ONE)
    await say(shard, "*", "*", version=2)
    assert await shard.do("HMGET", "flow", "0", "1", params=("1",)) == [b"* 3", b"* "]
    assert len(await runs(shard)) == 3
    for _ in range(2):
        await add(shard, TWO)
    assert len(await runs(shard)) == 1
    # A deploy that changes another thing does not change that; one that says a number does, whatever events gave.
    await add(shard, ONE, 1, one=4)
    await say(shard, "*", 5, version=3)
    assert await shard.do("HGET", "flow", "0", params=("1",)) == b"* 3"
    assert len(await runs(shard)) == 1 + 1
    await say(shard, 5, 5, version=4)
    assert len(await runs(shard)) == 1
    await add(shard, ONE, 9, one=1)
    assert await shard.do("GET", "limit", params=(ONE[2:],)) == b"1 4 0"


async def test_a_limit_is_kept_for_a_month_and_while_it_is_used(shard: Shard) -> None:
    await say(shard, "*")
    await add(shard, ONE, 1, one=1)
    await add(shard, ONE, 2, one=2)
    await shard.do("PEXPIRE", "limit", 5_000, params=(ONE[2:],))
    assert len(await runs(shard, 1)) == 1
    assert MONTH - 60_000 < await shard.do("PTTL", "limit", params=(ONE[2:],)) <= MONTH


@pytest.mark.parametrize("begun", [False, True])
async def test_a_limit_that_is_gone_is_what_the_newest_run_brought(
    shard: Shard, begun: bool
) -> None:
    await say(shard, "*")
    for us in (1, 2, 3, 4, 5):
        await add(shard, ONE, us, one=us)
        shard.wait(1)
    if begun:
        for item in await shard.lease(50):
            await shard.commit(item, "R", 0, b"01")
        await shard.due()
    await shard.do("DEL", "limit", params=(ONE[2:],))
    assert len(await runs(shard)) == 5
    assert (await shard.do("GET", "limit", params=(ONE[2:],)))[:4] == b"5 5 "


async def test_a_limit_that_is_gone_and_that_no_run_knows_is_1(shard: Shard) -> None:
    await say(shard, "*")
    for _ in range(3):
        await add(shard, f"{ONE},{OTHER}", 1, other=7)
    await shard.do("DEL", "limit", params=(OTHER[2:],))
    assert len(await runs(shard)) == 1


async def test_who_cannot_use_a_free_slot_passes_it_on(shard: Shard) -> None:
    await say(shard, 1, 1)
    await add(shard, ONE)
    await add(shard, f"{OTHER},{TWO}")
    first, second = await shard.lease(2)
    both = await add(shard, f"{ONE},{TWO}")
    assert await runs(shard) == []
    only = await add(shard, ONE)
    assert await runs(shard) == []
    await end(shard, first)
    # The slot of `one` lets the first in line try; it finds `two` shut.
    assert await runs(shard) == [only]
    await end(shard, second)
    assert await runs(shard) == []
    assert await shard.status(both) == "q"
