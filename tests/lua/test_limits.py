"""Limits of gates: those that events give, and what directed cases the random histories of test_gates.py seldom meet."""

from typing import Any

import pytest

from stepwell.serde import pack
from stepwell_engine.audit_gates import Gate, home_of
from stepwell_engine.store.transitions import Arg, Leased, NewRun
from tests.support.audit import assert_sound
from tests.support.gates import SHARED as EVERYWHERE
from tests.support.gates import World, gate
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

ONE, TWO, OTHER = gate("c", "0", "one"), gate("c", "1", "two"), gate("c", "0", "other")
RATE, SHARED = gate("t", "-", "rate"), gate("C", "0", "shared")
MINUTE = 60_000_000
MONTH = 2_678_400_000


async def say(
    shard: Shard, *limits: Arg, rate: tuple[Arg, Arg] = ("", ""), version: int = 1, shards: int = 1,
    told: bool = False,
) -> None:  # fmt: skip
    """What function 1's gates allow."""
    both = [*limits, "", ""][:2]
    row = ("1", "app", *both, *rate, shards)
    assert await shard.t.configure(version, [row], most=500, told=told) == []


async def add(shard: Shard, key: str, us: int = 0, **given: int) -> str:
    """A run; `given`: the limits that its event, accepted at `us`, gives some of the gates."""
    ids = {name: part[2:] for part in key.split(",") for name in given if part[2:].startswith(name)}
    lm = " ".join([str(us), *(f"{ids[name]}={limit}" for name, limit in given.items())])
    flow: dict[str, Any] = {"lm": lm} if given else {}
    return await shard.create(key=key, flow=flow)


async def runs(shard: Shard, want: int = 50) -> list[str]:
    return [item.run_id for item in await shard.lease(want)]


async def end(shard: Shard, *items: Leased) -> None:
    for item in items:
        assert await shard.commit(item, "F", "c", b"", b"") == "OK"


async def clear(shard: Shard) -> None:
    """Everything ends, so that the audit finds nothing in the way."""
    for _ in range(30):
        shard.wait(60_000)
        await shard.due()
        await end(shard, *await shard.lease(50))


# --- limits that events give ---


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


# --- a throttle's ---


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


# --- who goes on when a slot is free ---


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


# --- permits ---


def away(shards: int = 4) -> int:
    """The shard where SHARED's slots are not: function 1 lives on shard 0."""
    home = home_of(Gate("C", SHARED[2:]), shards, 0)
    assert home != 0
    return home


async def owed(shard: Shard) -> list[tuple[str, str, str]]:
    """Messages about permits since the last look: kind, permit, word."""
    found = [
        (f["k"].decode(), f["c"].decode(), f["d"].decode())
        for _, f in await shard.entries("outbox")
    ]
    await shard.do("DEL", "outbox")
    return found


async def granted(shard: Shard, permit: str, word: str) -> None:
    await shard.t.permit("G", SHARED[2:], permit, word=word, home=away())


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
    world = World(shard.server, 4, 4, strict=shard.strict)
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


# --- two shared gates, both away ---

FIRST, LAST = gate("C", "1", "first"), gate("C", "0", "last")
BOTH = f"{LAST},{FIRST}"
"""In no order: `first` comes first."""


def home(part: str) -> int:
    found = home_of(Gate(part[0], part[2:]), 4, 0)
    assert found != 0
    return found


async def news(shard: Shard) -> list[tuple[str, str]]:
    """Messages since the last look: kind, gate."""
    found = [
        (f["k"].decode(), f["b"].decode().strip("_")) for _, f in await shard.entries("outbox")
    ]
    await shard.do("DEL", "outbox")
    return found


async def grants(shard: Shard, part: str, permit: str, word: str = "") -> None:
    word = word or f"{permit[2:]} 1"
    await shard.t.permit("G", part[2:], permit, word=word, home=home(part))


async def kept(shard: Shard, part: str) -> list[str]:
    found = await shard.do("ZRANGE", "kept", 0, -1, params=(part[2:],))
    return [member.decode() for member in found]


async def between(shard: Shard, key: str = BOTH) -> str:
    """A run that has the first permit and waits for the last."""
    await say(shard, 1, 1, shards=4)
    run = await add(shard, key)
    assert await runs(shard) == []
    assert await news(shard) == [("g", "first")]
    await grants(shard, FIRST, "0-1")
    assert await runs(shard) == []
    assert await news(shard) == [("g", "last")]
    assert await kept(shard, FIRST) == [f"1:{key}"]
    return run


async def test_who_waits_for_the_second_keeps_the_first(shard: Shard) -> None:
    run = await between(shard)
    await assert_sound(shard.server, shards=4)
    # Nobody else of this shard takes it, or gives it back.
    other = await add(shard, FIRST)
    assert await runs(shard) == []
    assert await news(shard) == [("g", "first")]
    await grants(shard, LAST, "0-2")
    (item,) = await shard.lease(50)
    assert item.run_id == run
    assert await kept(shard, FIRST) == []
    assert await news(shard) == []
    await end(shard, item)
    assert sorted(await news(shard)) == [("h", "first"), ("h", "last")]
    await grants(shard, FIRST, "0-3")
    assert await runs(shard) == [other]


async def test_who_is_cancelled_keeps_nothing(shard: Shard) -> None:
    run = await between(shard)
    await shard.cancel(run)
    assert await kept(shard, FIRST) == []
    assert await news(shard) == [("h", "first")]
    await grants(shard, LAST, "0-2")
    assert await news(shard) == [("h", "last")]


async def test_who_is_cancelled_on_its_way_keeps_nothing(shard: Shard) -> None:
    run = await between(shard)
    await grants(shard, LAST, "0-2")
    assert await kept(shard, FIRST) == [f"1:{BOTH}"]
    await shard.cancel(run)
    assert await kept(shard, FIRST) == []
    assert sorted(await news(shard)) == [("h", "first"), ("h", "last")]


async def test_what_is_kept_is_recalled_when_its_limit_changes(shard: Shard) -> None:
    run = await between(shard)
    # Everybody tries again, and finds that what he kept is of the old limit.
    await say(shard, 1, 2, shards=4, version=2)
    await news(shard)
    assert await runs(shard) == []
    assert await kept(shard, FIRST) == []
    assert await news(shard) == [("h", "first"), ("g", "first")]
    await assert_sound(shard.server, shards=4)
    # `last` is granted meanwhile: nobody waits for it any more.
    await grants(shard, LAST, "0-2", "3 1")
    assert ("h", "last") in await news(shard)
    await grants(shard, FIRST, "0-4", "4 2")
    assert await runs(shard) == []
    ((kind, _),) = await news(shard)
    assert kind == "g"
    (permit,) = await shard.do("HKEYS", "asks", params=(LAST[2:],))
    await grants(shard, LAST, permit.decode())
    assert await runs(shard) == [run]


async def test_a_gate_of_its_own_function_keeps_nobody_waiting(shard: Shard) -> None:
    lock = gate("s", "-", "lock")
    await say(shard, 1, 1, shards=4)
    await add(shard, lock)
    assert len(await runs(shard)) == 1
    await add(shard, f"{BOTH},{lock}")
    assert await runs(shard) == []
    await grants(shard, FIRST, "0-1")
    assert await runs(shard) == []
    await grants(shard, LAST, "0-2")
    await news(shard)
    assert await runs(shard) == []
    assert await kept(shard, FIRST) == await kept(shard, LAST) == []
    assert sorted(await news(shard)) == [("h", "first"), ("h", "last")]


RUNS = gate("R", "0", "run")
HELD = f"{RUNS},{FIRST}"


async def test_runs_come_before_steps(shard: Shard) -> None:
    """Who has begun holds the one and waits for the other: so does who has not."""
    await say(shard, 1, 1, shards=4)
    run = await add(shard, HELD)
    assert await runs(shard) == []
    await grants(shard, FIRST, "0-1")
    assert await runs(shard) == []
    assert await news(shard) == [("g", "first"), ("h", "first"), ("g", "run")]
    await grants(shard, RUNS, "0-2")
    assert await runs(shard) == []
    assert await kept(shard, RUNS) == [f"1:{HELD}"]
    assert await news(shard) == [("g", "first")]
    await assert_sound(shard.server, shards=4)
    await grants(shard, FIRST, "0-3")
    assert await runs(shard) == [run]


# --- rate limits ---


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
