"""lease.lua: turns, resumes before starts, bells, budgets, suspects."""

from collections import Counter

import pytest

from tests.support.gates import gate
from tests.support.limited import end, say
from tests.support.shard import Shard, planned, sleep

pytestmark = pytest.mark.anyio


async def rings(shard: Shard, lane: str = "app") -> int:
    """Take what is in the bell, as an idle worker does."""
    taken = 0
    while await shard.do("LPOP", "bell", params=(lane,)):
        taken += 1
    return taken


async def test_a_lease_gives_the_state_of_the_run(shard: Shard) -> None:
    run = await shard.create()
    (item,) = await shard.lease()
    assert (item.run_id, item.step, item.suspect) == (run, "", False)
    assert item.fields[b"e"] == b"E" * 26 + b"blob"
    fields = await shard.fields(run)
    assert (fields["st"], fields["rs"], fields["w"]) == (b"r", b"l", b"w1")
    assert await shard.lease() == []


async def test_functions_are_served_in_turn(shard: Shard) -> None:
    for number, runs in (("1", 60), ("2", 5), ("3", 5)):
        for _ in range(runs):
            await shard.create(number)
    first = await shard.lease(12)
    assert min(Counter(item.fields[b"f"] for item in first).values()) >= 3
    second = await shard.lease(6)
    both = Counter(item.fields[b"f"] for item in first + second)
    assert (both[b"2"], both[b"3"]) == (5, 5), "60 runs of one function are no reason to wait"


async def test_keys_of_a_function_are_served_in_turn(shard: Shard) -> None:
    for name, runs in (("hot", 50), ("a", 2), ("b", 2)):
        for _ in range(runs):
            await shard.create(key=gate("c", "0", name))
    leased = [
        (await shard.field(item.run_id, "k")) for _ in range(6) for item in await shard.lease(1)
    ]
    assert Counter(leased) == {gate("c", "0", name).encode(): 2 for name in ("hot", "a", "b")}


async def test_who_has_no_gates_takes_no_turns_of_those_who_are_parked(shard: Shard) -> None:
    gated = gate("c", "0", "one")
    await say(shard, 1)
    for _ in range(62):
        await shard.create(key=gated)
    for _ in range(60):
        await end(shard, *await shard.lease(1))
    (first,) = await shard.lease(5)
    for _ in range(50):
        await shard.create()
    await end(shard, first)
    keys = [await shard.field(item.run_id, "k") for item in await shard.lease(4)]
    assert gated.encode() in keys, "the function is at its sixtieth turn, for both of its keys"


async def test_a_newcomer_is_not_behind_a_hot_functions_tail(shard: Shard) -> None:
    for _ in range(30):
        await shard.create("1")
    await shard.lease(20)
    await shard.create("2")
    numbers = [item.fields[b"f"] for _ in range(3) for item in await shard.lease(1)]
    assert b"2" in numbers


async def test_resumes_go_before_starts(shard: Shard) -> None:
    resumed = await shard.leased()
    await shard.create(score=1)
    await shard.commit(resumed, "Y", "drain")
    assert [i.run_id for i in await shard.lease(1)] == [resumed.run_id]


async def test_older_runs_go_first(shard: Shard) -> None:
    late, early = await shard.create(score=20), await shard.create(score=10)
    assert [i.run_id for i in await shard.lease(2)] == [early, late]


async def test_one_ring_waits_and_is_passed_on(shard: Shard) -> None:
    for _ in range(5):
        await shard.create()
    assert await rings(shard) == 1
    await shard.lease(2)
    assert await rings(shard) == 1, "items are left: the next idle worker must hear of them"
    await shard.lease(3)
    assert await rings(shard) == 0


async def test_a_lane_is_its_own(shard: Shard) -> None:
    await shard.create(lane="one")
    await shard.create("2", lane="two")
    assert len(await shard.lease(lanes=("one",))) == 1
    assert await rings(shard, "two") == 1
    assert len(await shard.lease(1, lanes=("one", "two"))) == 1


async def test_big_runs_are_read_apart(shard: Shard) -> None:
    await shard.create()
    await shard.create()
    one, two = await shard.lease(max_bytes=100)
    assert one.fields
    assert two.fields == {}


async def test_tokens_differ_within_a_call(shard: Shard) -> None:
    for _ in range(3):
        await shard.create()
    assert len({item.token for item in await shard.lease()}) == 3


async def test_many_leases_at_once(shard: Shard) -> None:
    for _ in range(1_100):
        await shard.create()
    assert len(await shard.lease(1_100)) == 1_100
    assert await shard.do("ZCARD", "leases") == 1_100


async def test_a_renewed_lease_lasts_and_a_lost_one_is_told(shard: Shard) -> None:
    item, other = await shard.leased(), await shard.leased()
    shard.wait(15_000)
    assert await shard.alive("w1", item) == []
    shard.wait(10_000)
    assert await shard.reclaim() == ["queued"], "its process lives: no suspect"
    assert await shard.alive("w1", item, other) == [other.run_id]


async def test_an_ended_run_cannot_be_renewed(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "N", ops=planned("a"))
    (item,) = await shard.lease(worker="w2")
    await shard.commit(root, "F", "c", b"", b"")
    assert await shard.alive("w2", item) == [f"{item.run_id}:{item.step}"]
    assert await shard.do("ZCARD", "leases") == 0


async def test_what_woke_twice_is_leased_once(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=(*sleep("a", 10), *sleep("b", 10)))
    shard.wait(11)
    assert (await shard.due()).handled == 2
    assert len(await shard.lease()) == 1
