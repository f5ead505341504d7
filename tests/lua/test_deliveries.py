"""due.lua, resolve.lua, candidates.lua, signals, parents: what arrives for a run from outside."""

import msgpack
import pytest

from stepwell_engine.store.keys import Keys
from stepwell_engine.store.transitions import Leased, NewRun
from tests.support.shard import (
    TIMEOUT,
    Shard,
    done,
    failed,
    invoke,
    planned,
    signal,
    sleep,
    step,
    wait,
)

pytestmark = pytest.mark.anyio


async def record(shard: Shard, run: str, name: str) -> list[bytes]:
    raw = await shard.field(run, f"s:{step(name)}") or b"?"
    assert raw[:1] == b"x"
    status, _, _, value = msgpack.unpackb(raw[1:], raw=True)
    return [status, value]


async def test_due_of_each_kind(shard: Shard) -> None:
    item = await shard.leased()
    ops = (
        *sleep("z", 10),
        *wait("w", "app/x", 10),
        *signal("g", 10),
        *invoke("i", 10),
        *failed("r", 10),
    )
    await shard.commit(item, "S", ops=ops)
    run = item.run_id
    assert (await shard.due()).handled == 0
    shard.wait(15)
    reply = await shard.due()
    assert reply.handled == 5
    assert 0 <= reply.late_ms <= 1_000
    assert [await record(shard, run, n) for n in "zwg"] == [[b"n", b""]] * 3
    assert await record(shard, run, "i") == [b"e", TIMEOUT]
    assert await shard.field(run, f"s:{step('r')}") is None
    assert await shard.t.awaited(["app/x"]) == [[]]
    (again,) = await shard.lease()
    assert (again.fields[b"np"], again.fields[b"dv"]) == (b"0", b"5")


async def test_due_is_bounded_and_says_when_to_come_again(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=(*sleep("a", 10), *sleep("b", 10), *sleep("c", 60_000)))
    shard.wait(11)
    one = await shard.due(limit=1)
    assert (one.handled, (one.next_due or 0) <= shard.clock.now_ms()) == (1, True)
    two = await shard.due(limit=9)
    assert two.handled == 1
    assert (two.next_due or 0) > shard.clock.now_ms() + 50_000
    assert two.next_expiry is None


async def test_a_wake_entry_for_what_is_earlier_than_the_next_look(shard: Shard) -> None:
    await shard.due()  # looks again in 5 s
    item = await shard.leased()
    await shard.commit(item, "N", ops=sleep("a", 60_000))
    assert await shard.entries() == []
    await shard.commit(item, "N", ops=sleep("b", 1_000))
    await shard.commit(item, "N", ops=sleep("c", 2_000))
    assert [f["k"] for _, f in await shard.entries()] == [b"w"]


async def test_a_future_start(shard: Shard) -> None:
    run = await shard.create(start_ms=shard.clock.now_ms() + 1_000)
    assert await shard.lease() == []
    shard.wait(1_001)
    await shard.due()
    assert [i.run_id for i in await shard.lease()] == [run]


async def test_a_match_and_a_timeout_never_both_apply(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=wait("a", "app/x", 10))
    shard.wait(11)
    assert await shard.t.resolve(item.run_id, step("a"), "", "v", b"event")
    assert (await shard.due()).handled == 0
    assert await record(shard, item.run_id, "a") == [b"v", b"event"]
    assert await shard.t.resolve(item.run_id, step("a"), "", "v", b"event"), "sent again"
    assert not await shard.t.resolve(item.run_id, step("a"), "", "v", b"another")
    assert not await shard.t.resolve(item.run_id, step("a"), "", "v", b"even"), "a part of it"


async def test_only_the_very_wait_that_was_matched(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=wait("a", "app/x", reg="1700000000000001"))
    assert not await shard.t.resolve(item.run_id, step("a"), "1700000000000002", "v", b"event")
    assert await shard.t.resolve(item.run_id, step("a"), "1700000000000001", "v", b"event")


async def test_nothing_is_delivered_to_a_run_that_ended(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "F", "c", b"", b"")
    assert not await shard.t.resolve(item.run_id, step("a"), "", "v", b"x", early=True)
    assert not await shard.t.resolve(shard.new_id(), step("a"), "", "v", b"x", early=True)


async def test_sent_again_after_the_run_has_ended_with_it(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=wait("a", "app/x"))
    assert await shard.t.resolve(item.run_id, step("a"), "", "v", b"event")
    (again,) = await shard.lease()
    await shard.commit(again, "F", "c", b"", b"")
    assert await shard.t.resolve(item.run_id, step("a"), "", "v", b"event", early=True)
    assert not await shard.t.resolve(item.run_id, step("a"), "", "v", b"other", early=True)


async def test_candidates_by_page(shard: Shard) -> None:
    item = await shard.leased()
    ops = (
        *wait("a", "app/x", path="p"),
        *wait("b", "app/x", path="p"),
        *wait("c", "app/x", path="q"),
    )
    await shard.commit(item, "S", ops=ops)
    (paths,) = await shard.t.awaited(["app/x"])
    assert sorted(paths) == ["p", "q"]
    prefix = b"p\0" + b"0" * 16
    (first,) = await shard.t.candidates([("app/x", prefix, b"")], limit=1)
    ((member, _, blob),) = first.rows
    assert first.more
    assert blob == b"E" * 26 + b"blob"
    (second,) = await shard.t.candidates([("app/x", prefix, member)], limit=5)
    assert len(second.rows) == 1
    assert second.rows[0][0] != member
    assert not second.more
    (third,) = await shard.t.candidates([("app/x", prefix, second.rows[0][0])], limit=5)
    assert third == ([], False)


async def test_an_early_signal_is_there_when_the_wait_is_written(shard: Shard) -> None:
    item = await shard.leased()
    assert await shard.t.resolve(item.run_id, step("a"), "", "v", b"data", early=True)
    assert await shard.t.resolve(item.run_id, step("a"), "", "v", b"data", early=True)
    assert await shard.commit(item, "S", ops=signal("a")) == "AGAIN"
    assert await record(shard, item.run_id, "a") == [b"v", b"data"]
    assert await shard.field(item.run_id, "dv") == b"1"


async def test_a_signal_has_one_holder(shard: Shard) -> None:
    run, other = shard.new_id(), shard.new_id()
    assert await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000) == (True, f"{run}:s", None)
    assert (await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000))[0]
    assert await shard.t.signal_reserve("h", other, "s", expiry_ms=1_000) == (
        False,
        f"{run}:s",
        None,
    )
    taken = await shard.t.signal_reserve("h", other, "s", expiry_ms=1_000, replace=f"{run}:s")
    assert taken[0]
    assert await shard.t.signal_send("h", b"v") == f"{other}:s"
    assert not await shard.t.signal_free("h", f"{run}:s")
    assert await shard.t.signal_free("h", f"{other}:s")
    assert await shard.t.signal_send("h", b"v") == ""


async def test_a_reservation_expires(shard: Shard) -> None:
    run, other = shard.new_id(), shard.new_id()
    await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000)
    shard.wait(1_001)
    assert await shard.t.signal_send("h", b"v") == ""
    await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000)
    shard.wait(1_001)
    assert (await shard.t.signal_reserve("h", other, "s", expiry_ms=1_000))[0]


async def test_a_held_signal_reaches_the_next_who_waits(shard: Shard) -> None:
    run = shard.new_id()
    assert await shard.t.signal_send("h", b"v", hold_ms=1_000) == ""
    assert await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000) == (True, f"{run}:s", b"v")
    again = await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000)
    assert again == (True, f"{run}:s", b"v"), "the reply was lost: it is given again"
    await shard.t.signal_free("h", f"{run}:s")
    assert (await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000))[2] is None
    await shard.t.signal_free("h", f"{run}:s")
    await shard.t.signal_send("h", b"v", hold_ms=1_000)
    shard.wait(1_001)
    assert (await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000))[2] is None


async def test_a_stale_holder_is_passed_by(shard: Shard) -> None:
    run = shard.new_id()
    await shard.t.signal_reserve("h", run, "s", expiry_ms=1_000)
    assert await shard.t.signal_send("h", b"v", stale=f"{run}:s", hold_ms=1_000) == ""
    other = shard.new_id()
    assert await shard.t.signal_reserve("h", other, "s", expiry_ms=1_000) == (
        True,
        f"{other}:s",
        b"v",
    )


@pytest.mark.parametrize(("to", "status"), [("c", b"v"), ("f", b"e"), ("k", b"e")])
async def test_a_child_wakes_its_parent_here(shard: Shard, to: str, status: bytes) -> None:
    parent = await shard.leased()
    await shard.commit(parent, "S", ops=invoke("i"))
    ((_, event),) = [e for e in await shard.entries() if e[1]["k"] == b"v"]
    assert event["n"] == b"inngest/function.invoked"
    child = await shard.leased(parent=f"{parent.run_id}:{step('i')}")
    assert await shard.commit(child, "F", to, b"payload", b"") == "OK"
    assert await record(shard, parent.run_id, "i") == [status, b"payload"]
    assert [i.run_id for i in await shard.lease()] == [parent.run_id]


async def test_a_child_wakes_its_parent_elsewhere(shard: Shard) -> None:
    other = Shard(shard.server, 2, shard.clock)
    parent = await other.leased()
    await other.commit(parent, "S", ops=invoke("i"))
    child = await shard.leased(parent=f"{parent.run_id}:{step('i')}")
    await shard.commit(child, "F", "c", b"out", b"")
    ((_, owed),) = await shard.entries("outbox")
    message = [owed[name].decode() for name in "kabcd"]
    assert message == ["r", parent.run_id, step("i"), "v", "out"]
    for _ in range(2):
        assert await other.t.resolve(parent.run_id, step("i"), "", "v", b"out")
    assert await record(other, parent.run_id, "i") == [b"v", b"out"]
    assert len(await other.lease()) == 1


async def test_a_child_of_a_parent_that_waits_no_more(shard: Shard) -> None:
    parent = await shard.leased()
    await shard.commit(parent, "N", ops=invoke("i", 10))
    shard.wait(11)
    await shard.due()
    child = await shard.leased(parent=f"{parent.run_id}:{step('i')}")
    await shard.commit(child, "F", "c", b"out", b"")
    assert await record(shard, parent.run_id, "i") == [b"e", TIMEOUT]


async def test_a_result_beside_planned_steps(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "S", ops=(*planned("a"), *sleep("z", 10), "m", "w"))
    (item,) = await shard.lease()
    assert await shard.commit(item, "D", ops=done("a")) == "OK"
    assert await shard.lease() == [], "the sleep is still on"
    shard.wait(11)
    await shard.due()
    assert [i.step for i in await shard.lease()] == [""]


async def test_a_delivery_while_in_backoff_waits_for_it(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "R", 1_000, b"01", ops=wait("a", "app/x"))
    await shard.t.resolve(item.run_id, step("a"), "", "v", b"event")
    assert await shard.lease() == []
    shard.wait(1_001)
    await shard.due()
    (again,) = await shard.lease()
    assert again.fields[b"dv"] == b"1"


async def test_a_run_is_created_once(shard: Shard) -> None:
    run = await shard.create()
    (item,) = await shard.lease()
    await shard.create(run=run)
    assert await shard.lease() == []
    assert isinstance(item, Leased)
    new = NewRun(run, "1", "app", b"", 0, 5)
    assert await shard.t.fanout("g", [], [], [new, new], record_ttl_ms=9) == 0
    assert shard.keys.root == Keys("stepwell", 0).root
