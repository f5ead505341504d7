"""Permits of a shared gate at home on another shard: asked for, granted, given back, and recalled when its limit changes."""

import pytest

from stepwell_engine.audit_gates import Gate, home_of
from tests.support.audit import assert_sound
from tests.support.gates import SHARED as EVERYWHERE
from tests.support.gates import World, gate
from tests.support.limited import add, end, home, runs, say
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

SHARED = gate("C", "0", "shared")


async def owed(shard: Shard) -> list[tuple[str, str, str]]:
    """Messages about permits since the last look: kind, permit, word."""
    found = [
        (f["k"].decode(), f["c"].decode(), f["d"].decode())
        for _, f in await shard.entries("outbox")
    ]
    await shard.do("DEL", "outbox")
    return found


async def granted(shard: Shard, permit: str, word: str) -> None:
    await shard.t.permit("G", SHARED[2:], permit, word=word, home=home(SHARED))


async def asking(shard: Shard, limit: int = 2, many: int = 1) -> list[str]:
    await say(shard, limit, shards=4)
    made = [await add(shard, SHARED) for _ in range(many)]
    assert await runs(shard) == []
    return made


async def test_a_grant_that_nobody_asked_for_is_given_back(shard: Shard) -> None:
    (run,) = await asking(shard)
    assert await owed(shard) == [("g", "0-1", "1 2")]
    await granted(shard, "0-9", "9 2")
    assert await owed(shard) == [("h", "0-9", "")]
    assert await runs(shard) == []
    await granted(shard, "0-1", "1 2")
    assert await runs(shard) == [run]
    # In use: an old message brought it about once more.
    await granted(shard, "0-1", "1 2")
    assert await owed(shard) == []


async def test_a_grant_of_an_older_limit_is_given_back(shard: Shard) -> None:
    (run,) = await asking(shard)
    assert await owed(shard) == [("g", "0-1", "1 2")]
    await say(shard, 1, shards=4, version=2)
    assert await owed(shard) == [("g", "0-1", "2 1")]
    await granted(shard, "0-1", "1 2")
    assert await owed(shard) == [("h", "0-1", "")]
    assert await runs(shard) == []
    assert await owed(shard) == [("g", "0-3", "3 1")]
    await granted(shard, "0-3", "3 1")
    assert await runs(shard) == [run]


async def test_a_spare_permit_of_an_older_limit_is_recalled(shard: Shard) -> None:
    (run,) = await asking(shard)
    await owed(shard)
    await granted(shard, "0-1", "1 2")
    await say(shard, 1, shards=4, version=2)
    assert await runs(shard) == []
    assert await owed(shard) == [("h", "0-1", ""), ("g", "0-2", "2 1")]
    await granted(shard, "0-2", "2 1")
    assert await runs(shard) == [run]


async def test_what_was_granted_before_all_knew_is_recalled(shard: Shard) -> None:
    """Another shard may have been granted more, under the old limit, after this one was given its permit under the new."""
    await asking(shard, 3)
    await say(shard, 1, shards=4, version=2)
    await owed(shard)
    await granted(shard, "0-1", "2 1")
    await say(shard, 1, shards=4, version=2, told=True)
    assert await runs(shard) == []
    assert await owed(shard) == [("h", "0-1", ""), ("g", "0-3", "3 1")]
    # Said once, it is said.
    await say(shard, 1, shards=4, version=2, told=True)
    await granted(shard, "0-3", "3 1")
    assert len(await runs(shard)) == 1


async def test_a_lower_limit_holds_though_shards_heard_of_it_one_after_another(
    shard: Shard,
) -> None:
    world = World(shard.server, 4, 4)
    three, four = world.shard_of("3").number, world.shard_of("4").number
    key = gate("C", "0", EVERYWHERE)
    assert home_of(Gate("C", EVERYWHERE), 4, 0) not in (three, four)
    world.configs["3"].limits[0] = world.configs["4"].limits[0] = 3
    await world.publish()
    for fn in "344":
        await world.create(fn, key)
    # Only the shard of 3 has heard: it is given a permit while nobody holds a slot.
    world.configs["3"].limits[0] = world.configs["4"].limits[0] = 1
    world.version += 1
    world.bound[EVERYWHERE] = 3
    await world.publish(fns="3")
    await world.lease(three, 5)
    await delivered(world)
    # That of 4 has not, and begins under the old limit.
    for _ in range(2):
        await world.lease(four, 1)
        await delivered(world)
    assert len(world.held) == 1
    await world.publish()
    assert world.bound == {}
    assert await world.lease(three, 5) == 0
    await world.drain(60_000)


async def delivered(world: World) -> None:
    while await world.collect():
        await world.deliver(0, again=False)


async def test_permits_that_are_asked_for_are_asked_for_again_when_all_know(shard: Shard) -> None:
    await asking(shard, 3)
    await say(shard, 1, shards=4, version=2)
    assert await runs(shard) == []
    await owed(shard)
    await say(shard, 1, shards=4, version=2, told=True)
    assert await owed(shard) == [("g", "0-1", "3 1")]
    # A word that comes too late is about another version.
    await say(shard, 2, shards=4, version=3)
    assert await runs(shard) == []
    await owed(shard)
    await say(shard, 1, shards=4, version=2, told=True)
    assert await owed(shard) == []


async def test_holders_keep_what_an_older_limit_gave_them(shard: Shard) -> None:
    await asking(shard, 3, many=2)
    await owed(shard)
    await granted(shard, "0-1", "1 3")
    (first,) = await shard.lease(50)
    ((kind, permit, word),) = await owed(shard)
    assert (kind, word) == ("g", "2 3")
    await say(shard, 1, shards=4, version=2)
    assert await runs(shard) == []
    await owed(shard)
    assert await shard.do("ZRANGE", "permits", 0, -1, params=(SHARED[2:],)) == [b"0-1"]
    await granted(shard, permit, "3 1")
    assert len(await runs(shard)) == 1
    # Who leaves gives the oldest back: what is left is one of the limit that holds.
    await end(shard, first)
    assert await owed(shard) == [("h", "0-1", "")]
    assert await shard.do("ZRANGE", "permits", 0, -1, params=(SHARED[2:],)) == [permit.encode()]


async def test_who_leaves_takes_no_permit_of_the_new_limit_along(shard: Shard) -> None:
    await asking(shard, 3, many=2)
    await owed(shard)
    await granted(shard, "0-1", "1 3")
    (first,) = await shard.lease(50)
    await say(shard, 1, shards=4, version=2)
    assert await runs(shard) == []
    await owed(shard)
    await granted(shard, "0-2", "3 1")
    # The next is on its way as the first one ends.
    await end(shard, first)
    assert await owed(shard) == [("h", "0-1", "")]
    assert len(await runs(shard)) == 1


async def test_what_is_recalled_is_asked_for_anew_by_who_counted_on_it(shard: Shard) -> None:
    await asking(shard, 3)
    await granted(shard, "0-1", "1 3")
    (first,) = await shard.lease(50)
    for key in (SHARED, f"{SHARED},w2"):
        await add(shard, key)
    assert await runs(shard) == []
    await say(shard, 2, shards=4, version=2)
    assert await runs(shard) == []
    # Two are spare: one of those who wait is on its way, and would pass on what it leaves to the other.
    await granted(shard, "0-2", "4 2")
    await granted(shard, "0-3", "5 2")
    await say(shard, 2, shards=4, version=2, told=True)
    await owed(shard)
    await end(shard, first)
    await assert_sound(shard.server, shards=4)
    given_back = [("h", f"0-{n}", "") for n in (1, 2, 3)]
    assert await owed(shard) == [*given_back, ("g", "0-6", "6 2")]
    assert await runs(shard) == []
    assert await owed(shard) == [("g", "0-7", "7 2")]


async def test_permits_of_those_who_are_gone_are_asked_for_under_the_limit_now(
    shard: Shard,
) -> None:
    (run,) = await asking(shard, 1)
    await shard.cancel(run)
    await say(shard, 3, shards=4, version=2)
    await owed(shard)
    await add(shard, SHARED)
    assert await runs(shard) == []
    assert await owed(shard) == [("g", "0-1", "2 3")]


async def test_an_event_changes_a_shared_limit(shard: Shard) -> None:
    await say(shard, "*", shards=4)
    for us in (1, 2):
        await add(shard, SHARED, us, shared=2)
    assert await runs(shard) == []
    assert await owed(shard) == [("g", "0-1", "1 2")]
    await add(shard, SHARED, 3, shared=1)
    assert await owed(shard) == [("g", "0-1", "2 1")]
    assert await shard.do("GET", "limit", params=(SHARED[2:],)) == b"3 1 1"
    await granted(shard, "0-1", "1 2")
    assert [kind for kind, _, _ in await owed(shard)] == ["h", "g"]
    assert await runs(shard) == []
    await granted(shard, "0-3", "3 1")
    assert len(await runs(shard)) == 1
    assert await owed(shard) == [("g", "0-4", "4 1")]
    # None: they need no permit any more.
    await add(shard, SHARED, 4, shared=0)
    assert len(await runs(shard)) == 3
