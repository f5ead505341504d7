"""cancel.lua and finish: from every root state, once, with all that waits gone."""

import pytest

from stepwell_engine.store.transitions import Arg
from tests.support.shard import CANCELLED, Shard, done, failed, planned, sleep, step, wait

pytestmark = pytest.mark.anyio


async def end(shard: Shard, run: str) -> None:
    assert await shard.cancel(run) == "k"
    assert await shard.cancel(run) == "k", "idempotent"
    assert await shard.status(run) == "k"
    assert await shard.field(run, "er") == CANCELLED
    assert await shard.kinds() == ["f inngest/function.cancelled", "f inngest/function.finished"]
    shard.wait(10_000_000)
    await shard.due()
    assert await shard.lease() == []
    assert await shard.do("EXISTS", "ready_fns", params=("app",)) == 0


async def test_queued(shard: Shard) -> None:
    await end(shard, await shard.create())


async def test_scheduled(shard: Shard) -> None:
    await end(shard, await shard.create(start_ms=shard.clock.now_ms() + 60_000))


@pytest.mark.parametrize("ops", [sleep("a", 9), wait("a", "app/x"), failed("a"), planned("a")])
async def test_parked(shard: Shard, ops: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=ops)
    await end(shard, item.run_id)


async def test_in_backoff(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "R", 1_000, b"01")
    await end(shard, item.run_id)


async def test_queued_again(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "Y", "drain")
    await end(shard, item.run_id)


async def test_a_suspect(shard: Shard) -> None:
    item = await shard.leased()
    shard.wait(20_001)
    await shard.reclaim()
    await end(shard, item.run_id)


async def test_leased_and_the_worker_confirms(shard: Shard) -> None:
    item = await shard.leased()
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.do("LRANGE", "control", 0, -1, params=("w1",)) == [
        b"c" + item.run_id.encode()
    ]
    await shard.commit(item, "F", "k", CANCELLED, b"")
    await end(shard, item.run_id)


async def test_leased_and_the_grace_ends(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=sleep("a", 99_999))
    await shard.cancel(item.run_id)
    shard.wait(10_001)
    await shard.due()
    assert await shard.alive("w1", item) == [item.run_id]
    assert await shard.commit(item, "F", "k", b"late", b"") == "FENCED"
    await end(shard, item.run_id)


@pytest.mark.parametrize("root", [("S",), ("R", 50_000, b""), ("Y", "drain")])
async def test_a_leased_planned_step(shard: Shard, root: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=planned("a"))
    (planned_item,) = await shard.lease(worker="w2")
    await shard.commit(item, *root)
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.do("LLEN", "control", params=("w2",)) == 1
    assert await shard.commit(planned_item, "D", ops=done("a")) == "CANCEL"
    assert await shard.commit(planned_item, "F", "k", CANCELLED, b"") == "OK"
    await end(shard, item.run_id)


async def test_an_ended_run_stays_as_it_is(shard: Shard) -> None:
    for to in "cf":
        item = await shard.leased()
        await shard.commit(item, "F", to, b"p", b"")
        assert await shard.cancel(item.run_id) == to


async def test_an_unknown_run(shard: Shard) -> None:
    run = shard.new_id()
    assert await shard.cancel(run) == ""
    assert await shard.cancel(run, tombstone="1") == "k"
    await shard.create(run=run)
    assert await shard.status(run) == "k", "a cancelled child can't start any more"
    assert await shard.lease() == []


async def test_a_delivery_to_a_cancelling_run_does_no_harm(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=sleep("a", 10))
    await shard.cancel(item.run_id)
    shard.wait(11)
    await shard.due()
    assert await shard.field(item.run_id, f"s:{step('a')}") is not None
    assert await shard.commit(item, "S", dv=1) == "CANCEL"


async def test_watchers_hear_of_the_end_once(shard: Shard) -> None:
    run = await shard.create()
    for watcher in ("a", "b", "a"):
        assert await shard.t.watch(run, watcher, ttl_ms=60_000) == "q"
    await shard.cancel(run)
    for watcher in ("a", "b"):
        assert await shard.do("LRANGE", "reply", 0, -1, params=(watcher,)) == [run.encode()]
    assert await shard.do("EXISTS", "watchers", params=(run,)) == 0
    assert await shard.t.watch(run, "c", ttl_ms=60_000) == "k"


async def test_a_run_may_be_watched_before_it_exists(shard: Shard) -> None:
    run = shard.new_id()
    assert await shard.t.watch(run, "a", ttl_ms=60_000) == ""
    await shard.create(run=run)
    (item,) = await shard.lease()
    await shard.commit(item, "F", "c", b"", b"")
    assert await shard.do("LLEN", "reply", params=("a",)) == 1


async def test_sweep_removes_old_ends_only(shard: Shard) -> None:
    old, young = await shard.create(), await shard.create()
    live = await shard.create()
    await shard.cancel(old)
    shard.wait(1_000)
    await shard.cancel(young)
    assert await shard.t.sweep(shard.clock.now_ms() - 500, limit=10) == 1
    assert [await shard.status(r) for r in (old, young, live)] == ["", "k", "q"]
    assert await shard.do("ZCARD", "fn_runs", params=("1",)) == 2
